import type { Prompt, Rle } from "../../api/types";
import { bitmapFor, outlineFor } from "../bitmaps";
import { type ImagePoint, type Rect, type View, fromPixelCentres, imagePoint, toScreen } from "../geometry";
import { BACKGROUND, CANDIDATE, FOREGROUND, css, maskColour } from "../palette";
import type { Region } from "../painting";
import type { LabelState } from "../store";
import { selectedProposal } from "../selection";
import { strokeOutline, tint } from "./mask_layer";
import type { PaintLayer } from "./paint_layer";
import { drawSelectedProposal } from "./prefilled_layer";

const POINT_RADIUS_PX = 7;

/** The mask being made, also under a running stroke; the selected mask, the prompts and the box being dragged. */
export function drawLive(context: CanvasRenderingContext2D, state: LabelState, drag: Rect | null, paint: PaintLayer): void {
  const selected = state.masks.find((mask) => mask.localId === state.selectedId);
  if (selected && !state.areMasksHidden) {
    const outline = outlineFor(selected.segmentation);
    strokeOutline(context, outline, state.view, "rgb(0 0 0 / 0.7)", 5);
    strokeOutline(context, outline, state.view, "#fff", 3);
    strokeOutline(context, outline, state.view, css(maskColour(selected.colour)), 1.5);
  }
  const proposal = selectedProposal(state);
  if (proposal && !state.areMasksHidden) drawSelectedProposal(context, state.view, proposal);
  if (paint.isPainting) paint.draw(context, state.view, state.opacity);
  else if (state.drawn) drawCandidate(context, state, state.drawn);
  for (const prompt of state.draft.prompts) drawPrompt(context, state.view, prompt);
  if (drag) drawBox(context, state.view, imagePoint(drag.x, drag.y), imagePoint(drag.x + drag.w, drag.y + drag.h));
}

function drawCandidate(context: CanvasRenderingContext2D, state: LabelState, { segmentation }: Region): void {
  const { view } = state;
  const bitmap = bitmapFor(segmentation);
  if (bitmap.w === 0) return;
  context.globalAlpha = Math.max(state.opacity, 0.25);
  context.imageSmoothingEnabled = view.scale < 2;
  const sprite = spriteOf(segmentation);
  context.drawImage(
    sprite, bitmap.x * view.scale + view.tx, bitmap.y * view.scale + view.ty, bitmap.w * view.scale, bitmap.h * view.scale,
  );
  context.globalAlpha = 1;
  const outline = outlineFor(segmentation);
  strokeOutline(context, outline, view, "rgb(255 255 255 / 0.95)", 3);
  strokeOutline(context, outline, view, css(CANDIDATE), 1.5);
}

const sprites = new WeakMap<Rle, HTMLCanvasElement>();

function spriteOf(segmentation: Rle): HTMLCanvasElement {
  const ready = sprites.get(segmentation);
  if (ready) return ready;
  const bitmap = bitmapFor(segmentation);
  const sprite = document.createElement("canvas");
  sprite.width = bitmap.w;
  sprite.height = bitmap.h;
  sprite.getContext("2d")?.putImageData(tint(bitmap, CANDIDATE), 0, 0);
  sprites.set(segmentation, sprite);
  return sprite;
}

function drawPrompt(context: CanvasRenderingContext2D, view: View, prompt: Prompt): void {
  if (prompt.kind === "point") return drawPoint(context, view, prompt.x, prompt.y, prompt.label);
  drawBox(context, view, fromPixelCentres(prompt.x0, prompt.y0), fromPixelCentres(prompt.x1, prompt.y1));
}

/** Foreground and background differ by sign as well as by colour. */
function drawPoint(context: CanvasRenderingContext2D, view: View, x: number, y: number, label: 0 | 1): void {
  const at = toScreen(view, fromPixelCentres(x, y));
  context.beginPath();
  context.arc(at.x, at.y, POINT_RADIUS_PX, 0, 2 * Math.PI);
  context.fillStyle = css(label === 1 ? FOREGROUND : BACKGROUND);
  context.shadowColor = "rgb(0 0 0 / 0.6)";
  context.shadowBlur = 4;
  context.fill();
  context.shadowBlur = 0;
  context.lineWidth = 2;
  context.strokeStyle = "#fff";
  context.stroke();
  context.beginPath();
  context.moveTo(at.x - 3, at.y);
  context.lineTo(at.x + 3, at.y);
  if (label === 1) {
    context.moveTo(at.x, at.y - 3);
    context.lineTo(at.x, at.y + 3);
  }
  context.lineCap = "round";
  context.stroke();
}

function drawBox(context: CanvasRenderingContext2D, view: View, from: ImagePoint, to: ImagePoint): void {
  const [a, b] = [toScreen(view, from), toScreen(view, to)];
  const rect = [a.x, a.y, b.x - a.x, b.y - a.y] as const;
  context.lineWidth = 2;
  context.strokeStyle = "rgb(0 0 0 / 0.55)";
  context.strokeRect(...rect);
  context.strokeStyle = "#fff";
  context.setLineDash([6, 4]);
  context.strokeRect(...rect);
  context.setLineDash([]);
}
