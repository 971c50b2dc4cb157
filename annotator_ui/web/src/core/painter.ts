import type { PathStroke, Stroke } from "../api/types";
import { bitmapFor } from "./bitmaps";
import type { ActiveClock } from "./clock";
import type { Command } from "./commands";
import { holesOf, specksOf } from "./components";
import { isBegun } from "./draft";
import { type Bitmap } from "./mask";
import { regionOf } from "./painting";
import type { LabelStore } from "./store";
import { MAX_POINTS, MAX_STROKES, adds, nPointsOf } from "./strokes";
import type { Toasts } from "./toasts";

export interface PainterEvents {
  /** Take the selected mask up, if there is one and no mask is being made. */
  takeUp(): void;
  perform(command: Command): void;
}

/** Strokes on the mask being made. A stroke with a mask selected corrects that mask. */
export class Painter {
  constructor(
    private readonly store: LabelStore,
    private readonly toasts: Toasts,
    private readonly clock: ActiveClock,
    private readonly events: PainterEvents,
  ) {}

  /** Before the first pixel of a stroke: whether it may begin; says why not. */
  begin(stroke: PathStroke): boolean {
    if (!this.isOpen()) return false;
    this.events.takeUp();
    const { draft } = this.store.getState();
    if (!adds(stroke) && !isBegun(draft)) {
      this.toasts.info("There is nothing to take away yet. Select a mask, or begin one with a click or the brush.");
      return false;
    }
    return this.hasRoom();
  }

  add(stroke: PathStroke): void {
    if (this.isOpen() && stroke.points.length > 0) this.perform(stroke);
  }

  fillHoles(): void {
    this.change("fill_holes", holesOf, "This mask has no holes.");
  }

  removeSpecks(): void {
    this.change("remove_specks", specksOf, "This mask has no specks: no piece is under a tenth of the largest.");
  }

  /** The pixels are kept with the stroke, so that a later click cannot bring them back. */
  private change(kind: "fill_holes" | "remove_specks", changed: (mask: Bitmap) => Bitmap, ifNone: string): void {
    if (!this.isOpen()) return;
    this.events.takeUp();
    const { drawn, assignment } = this.store.getState();
    if (!drawn || !assignment || !this.hasRoom()) return;
    const pixels = changed(bitmapFor(drawn.segmentation));
    if (pixels.w === 0) return this.toasts.info(ifNone);
    this.perform({ kind, counts: regionOf(pixels, assignment.image).segmentation.counts });
  }

  private perform(stroke: Stroke): void {
    this.store.setState({ selectedId: null });
    this.events.perform({ kind: "stroke", stroke: { ...stroke, at_ms: this.clock.readMs() } });
  }

  private hasRoom(): boolean {
    const { strokes } = this.store.getState().draft;
    const isFull = strokes.length >= MAX_STROKES || nPointsOf(strokes) > 0.9 * MAX_POINTS;
    if (isFull) this.toasts.info("This mask has all the strokes it can hold. Accept it, then select it to go on.");
    return !isFull;
  }

  private isOpen(): boolean {
    const { phase, isSubmitting } = this.store.getState();
    return phase === "ready" && !isSubmitting;
  }
}
