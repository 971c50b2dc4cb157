/** Mouse, pen, touch and keys on the page, turned into what the session understands. */
import { ACTIONS, type Action } from "./actions";
import { spanOf, type ImagePoint } from "./geometry";
import { findBound, isForElement } from "./keymap";
import { PaintInput } from "./paint_input";
import type { Stage } from "./render/stage";
import type { LabelSession } from "./session";
import { type Tool, isPaintTool } from "./store";

/** A press that moves less than this on the screen is a click, not a box. */
const DRAG_FROM_PX = 4;
const WHEEL_LINE_PX = 16;
/** Alt and this much of the wheel is one step of the brush size. */
const SIZE_STEP_PX = 40;
/** A tool's key held longer than this only borrows the tool. */
const BORROW_FROM_MS = 350;

interface Press {
  readonly pointerId: number;
  readonly button: number;
  readonly x: number;
  readonly y: number;
  readonly at: ImagePoint;
  readonly isPan: boolean;
  /** It was for the brush, also where no stroke could begin. */
  readonly isPaint: boolean;
  lastX: number;
  lastY: number;
  isDrag: boolean;
}

/** A tool whose key is down: let go after a while, or after using it, the tool before comes back. */
interface Borrowing {
  readonly code: string;
  readonly before: Tool;
  readonly since: number;
  isUsed: boolean;
}

export class Input {
  private press: Press | null = null;
  private isSpaceDown = false;
  private borrowing: Borrowing | null = null;
  private sizeWheelPx = 0;
  private readonly paint: PaintInput;
  private readonly life = new AbortController();

  constructor(
    private readonly session: LabelSession,
    private readonly stage: Stage,
    private readonly canvas: HTMLCanvasElement,
  ) {
    this.paint = new PaintInput(session, stage);
    const signal = this.life.signal;
    canvas.addEventListener("pointerdown", (event) => this.onDown(event), { signal });
    canvas.addEventListener("pointermove", (event) => this.onMove(event), { signal });
    canvas.addEventListener("pointerup", (event) => this.onUp(event), { signal });
    canvas.addEventListener("pointercancel", () => this.drop(), { signal });
    canvas.addEventListener("pointerleave", () => session.store.setState({ pointer: null }), { signal });
    canvas.addEventListener("contextmenu", (event) => event.preventDefault(), { signal });
    canvas.addEventListener("wheel", (event) => this.onWheel(event), { signal, passive: false });
    window.addEventListener("keydown", (event) => this.onKey(event), { signal });
    window.addEventListener("keyup", (event) => this.onKeyUp(event), { signal });
    window.addEventListener("blur", () => this.setSpace(false), { signal });
  }

  stop(): void {
    this.life.abort();
  }

  private onDown(event: PointerEvent): void {
    this.session.clock.input();
    if (this.press || this.session.store.getState().phase !== "ready") return;
    event.preventDefault();
    if (document.activeElement instanceof HTMLElement) document.activeElement.blur();
    this.canvas.setPointerCapture(event.pointerId);
    const isPan = event.button === 1 || this.isSpaceDown || this.session.store.getState().tool === "pan";
    if (this.borrowing) this.borrowing.isUsed = true;
    const isPaint = !isPan && this.paint.begin(event);
    const { pointerId, button, clientX: x, clientY: y } = event;
    const at = this.stage.imagePointAt(x, y);
    this.press = { pointerId, button, x, y, at, isPan, isPaint, lastX: x, lastY: y, isDrag: false };
    this.updateCursor();
  }

  private onMove(event: PointerEvent): void {
    this.session.clock.input();
    const pointer = this.stage.imagePointAt(event.clientX, event.clientY);
    this.session.store.setState({ pointer });
    const press = this.press;
    if (!press || press.pointerId !== event.pointerId) return;
    if (this.paint.isPainting) return this.paint.move(event);
    press.isDrag ||= Math.hypot(event.clientX - press.x, event.clientY - press.y) >= DRAG_FROM_PX;
    if (press.isPan) this.stage.pan(event.clientX - press.lastX, event.clientY - press.lastY);
    else if (press.isDrag && this.drawsBox(press)) this.stage.setDrag(spanOf(press.at, pointer));
    press.lastX = event.clientX;
    press.lastY = event.clientY;
  }

  private onUp(event: PointerEvent): void {
    this.session.clock.input();
    const press = this.press;
    if (!press || press.pointerId !== event.pointerId) return;
    if (this.paint.isPainting) this.paint.end(event);
    this.drop();
    if (press.isPan || press.isPaint) return;
    if (press.isDrag && this.drawsBox(press)) {
      this.session.addBox(spanOf(press.at, this.stage.imagePointAt(event.clientX, event.clientY)));
    } else {
      this.click(press, event);
    }
  }

  private click(press: Press, event: PointerEvent): void {
    if (event.altKey || this.session.store.getState().tool === "select") return this.session.selectAt(press.at);
    if ((press.button !== 0 && press.button !== 2) || isPaintTool(this.session.store.getState().tool)) return;
    this.session.addPoint(press.at, press.button === 2 || event.shiftKey ? 0 : 1);
  }

  private drawsBox(press: Press): boolean {
    return press.button === 0 && this.session.store.getState().tool === "prompt";
  }

  private drop(): void {
    this.press = null;
    this.paint.cancel();
    this.stage.setDrag(null);
    this.updateCursor();
  }

  private onWheel(event: WheelEvent): void {
    event.preventDefault();
    this.session.clock.input();
    const lines = event.deltaMode === WheelEvent.DOM_DELTA_LINE ? WHEEL_LINE_PX : 1;
    if (event.altKey) return this.wheelSize(event.deltaY * lines);
    // A pinch arrives as a wheel with Ctrl and small steps.
    const speed = event.ctrlKey ? 0.01 : 0.0015;
    const box = this.canvas.getBoundingClientRect();
    const factor = Math.exp(-Math.max(Math.min(event.deltaY * lines, 300), -300) * speed);
    this.stage.zoomBy(factor, event.clientX - box.left, event.clientY - box.top);
  }

  private wheelSize(px: number): void {
    this.sizeWheelPx += px;
    for (; Math.abs(this.sizeWheelPx) >= SIZE_STEP_PX; this.sizeWheelPx -= Math.sign(this.sizeWheelPx) * SIZE_STEP_PX) {
      this.session.looks.stepBrushSize(this.sizeWheelPx < 0 ? 1 : -1);
    }
  }

  private onKey(event: KeyboardEvent): void {
    this.session.clock.input();
    const state = this.session.store.getState();
    if (event.isComposing || state.isSignedOut || isForElement(event, event.target)) return;
    if (event.key === " ") {
      event.preventDefault();
      this.setSpace(true); return;
    }
    if (state.isHelpOpen || state.isSkipOpen || state.isGuideOpen) return this.onKeyInPanel(event);
    if (this.chooseCategory(event)) return;
    if (this.paint.isPainting) return this.onKeyInStroke(event);
    const action = findBound(ACTIONS, event);
    if (!action) return;
    event.preventDefault();
    if (event.repeat && !action.repeats) return;
    if (action.when?.(state) ?? true) this.run(action, event);
  }

  private run(action: Action, event: KeyboardEvent): void {
    const before = this.session.store.getState().tool;
    if (action.tool && !this.borrowing && action.tool !== before) {
      this.borrowing = { code: event.code, before, since: event.timeStamp, isUsed: false };
    }
    action.run(this.session);
  }

  /** Esc gives the running stroke up; every other key waits until it is done. */
  private onKeyInStroke(event: KeyboardEvent): void {
    event.preventDefault();
    if (event.key === "Escape") this.paint.cancel();
  }

  private onKeyInPanel(event: KeyboardEvent): void {
    const { isHelpOpen, isGuideOpen } = this.session.store.getState();
    const isItsKey = (event.key === "?" && isHelpOpen) || (event.key.toLowerCase() === "i" && isGuideOpen);
    const closes = event.key === "Escape" || isItsKey;
    if (!closes) return;
    event.preventDefault();
    this.session.panels.closeAll();
  }

  private chooseCategory(event: KeyboardEvent): boolean {
    const isPlain = !event.ctrlKey && !event.metaKey && !event.altKey;
    const digit = isPlain && /^[1-9]$/.test(event.key) ? Number(event.key) : null;
    if (digit !== null) this.session.chooseCategory(digit - 1);
    return digit !== null;
  }

  private onKeyUp(event: KeyboardEvent): void {
    if (event.key === " ") this.setSpace(false);
    if (event.code === this.borrowing?.code) this.giveBack(event.timeStamp);
  }

  private giveBack(now: number): void {
    const borrowing = this.borrowing;
    this.borrowing = null;
    if (borrowing && (borrowing.isUsed || now - borrowing.since > BORROW_FROM_MS)) this.session.looks.setTool(borrowing.before);
  }

  private setSpace(isDown: boolean): void {
    this.isSpaceDown = isDown;
    this.updateCursor();
  }

  private updateCursor(): void {
    const grabs = this.isSpaceDown || this.press?.isPan === true;
    this.canvas.dataset["hand"] = grabs ? (this.press ? "closed" : "open") : "no";
  }
}
