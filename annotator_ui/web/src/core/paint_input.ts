import type { ImagePoint } from "./geometry";
import type { Stage } from "./render/stage";
import type { LabelSession } from "./session";
import { type PaintTool, isPaintTool } from "./store";
import { StrokePath } from "./stroke_path";

/** A pen turned over reports its eraser as this button. */
const PEN_ERASER = 5;
/** Points of a brush lie this share of its size apart: nearer ones would change no pixel to speak of. */
const SPACING = 1 / 16;

/** The pointer with a brush, an eraser or a lasso in hand. */
export class PaintInput {
  private stroke: StrokePath | null = null;

  constructor(
    private readonly session: LabelSession,
    private readonly stage: Stage,
  ) {}

  get isPainting(): boolean {
    return this.stroke !== null;
  }

  /** Begin a stroke if a paint tool is in hand; gives whether the press was for it. */
  begin(event: PointerEvent): boolean {
    const { tool, assignment } = this.session.store.getState();
    if (!isPaintTool(tool) || !assignment || event.altKey || ![0, 2, PEN_ERASER].includes(event.button)) return false;
    const stroke = this.strokeOf(tool, event, assignment.image);
    if (this.session.painter.begin(stroke.plain)) {
      this.stroke = stroke;
      this.stage.beginStroke(stroke);
      this.add(this.stage.imagePointAt(event.clientX, event.clientY));
    }
    return true;
  }

  move(event: PointerEvent): void {
    if (!this.stroke) return;
    // A frame may hold many moves; without them fast strokes would have corners.
    const moves = "getCoalescedEvents" in event ? event.getCoalescedEvents() : [];
    for (const one of moves.length > 0 ? moves : [event]) this.add(this.stage.imagePointAt(one.clientX, one.clientY));
  }

  end(event: PointerEvent): void {
    if (!this.stroke) return;
    this.add(this.stage.imagePointAt(event.clientX, event.clientY));
    const finished = this.stroke.finished();
    this.cancel();
    this.session.painter.add(finished);
  }

  cancel(): void {
    this.stroke = null;
    this.stage.endStroke();
  }

  private strokeOf(tool: PaintTool, event: PointerEvent, image: { width: number; height: number }): StrokePath {
    const { brushSize: size, view } = this.session.store.getState();
    const takesAway = event.shiftKey || event.button === 2 || event.button === PEN_ERASER;
    const screenPx = 1 / view.scale;
    if (tool === "lasso") return new StrokePath({ kind: "lasso", label: takesAway ? 0 : 1 }, image, screenPx);
    const kind = tool === "erase" || takesAway ? "erase" : "brush";
    return new StrokePath({ kind, size }, image, Math.max(screenPx, size * SPACING));
  }

  private add(at: ImagePoint): void {
    const piece = this.stroke?.add(at);
    if (piece) this.stage.paint(piece);
  }
}
