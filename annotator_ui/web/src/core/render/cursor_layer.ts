import { fromPixelCentres, toScreen } from "../geometry";
import type { LabelState } from "../store";

/** The brush as large as it paints, and the lasso as far as it is drawn. */
export function drawCursor(context: CanvasRenderingContext2D, state: LabelState, lasso: readonly number[] | null): void {
  if (lasso) drawLasso(context, state, lasso);
  if (state.pointer && (state.tool === "brush" || state.tool === "erase")) drawBrush(context, state, state.tool === "erase");
}

function drawBrush(context: CanvasRenderingContext2D, { view, pointer, brushSize }: LabelState, isDashed: boolean): void {
  if (!pointer) return;
  const at = toScreen(view, pointer);
  context.beginPath();
  context.arc(at.x, at.y, Math.max((brushSize * view.scale) / 2, 1.5), 0, 2 * Math.PI);
  twoTone(context, isDashed ? [5, 4] : []);
}

function drawLasso(context: CanvasRenderingContext2D, { view }: LabelState, points: readonly number[]): void {
  context.beginPath();
  for (let i = 0; i + 1 < points.length; i += 2) {
    const at = toScreen(view, fromPixelCentres(points[i] ?? 0, points[i + 1] ?? 0));
    if (i === 0) context.moveTo(at.x, at.y);
    else context.lineTo(at.x, at.y);
  }
  context.closePath();
  context.fillStyle = "rgb(255 255 255 / 0.12)";
  context.fill();
  context.lineJoin = "round";
  twoTone(context, [6, 4]);
}

/** A white line on a dark one: to be seen on bright and on dark pictures. */
function twoTone(context: CanvasRenderingContext2D, dash: number[]): void {
  context.lineWidth = 3;
  context.strokeStyle = "rgb(0 0 0 / 0.55)";
  context.stroke();
  context.setLineDash(dash);
  context.lineWidth = 1.5;
  context.strokeStyle = "#fff";
  context.stroke();
  context.setLineDash([]);
}
