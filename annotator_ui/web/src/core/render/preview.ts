import type { Candidate } from "../../api/types";
import { bitmapFor, outlineFor } from "../bitmaps";
import { type Rect, type Size, fitRect } from "../geometry";
import { unionBox } from "../mask";
import { CANDIDATE, css } from "../palette";
import { strokeOutline, tint } from "./mask_layer";

/** The square of the image around all `candidates`, so that their previews can be compared at one scale. */
export function mapBox(candidates: readonly Candidate[], image: Size): Rect {
  const box = unionBox(candidates.map(({ bbox: [x, y, w, h] }) => ({ x, y, w, h })));
  if (box.w === 0) return { x: 0, y: 0, w: image.width, h: image.height };
  const side = Math.max(1.25 * Math.max(box.w, box.h), 24);
  return { x: box.x + (box.w - side) / 2, y: box.y + (box.h - side) / 2, w: side, h: side };
}

/** Draw the part `box` of the image with the candidate over it. */
export function drawPreview(canvas: HTMLCanvasElement, image: ImageBitmap, candidate: Candidate, box: Rect): void {
  const context = canvas.getContext("2d");
  if (!context) return;
  const view = fitRect(box, canvas, 0);
  context.clearRect(0, 0, canvas.width, canvas.height);
  context.drawImage(image, view.tx, view.ty, image.width * view.scale, image.height * view.scale);
  const bitmap = bitmapFor(candidate.segmentation);
  if (bitmap.w === 0) return;
  const sprite = document.createElement("canvas");
  sprite.width = bitmap.w;
  sprite.height = bitmap.h;
  sprite.getContext("2d")?.putImageData(tint(bitmap, CANDIDATE), 0, 0);
  context.globalAlpha = 0.5;
  context.drawImage(
    sprite, bitmap.x * view.scale + view.tx, bitmap.y * view.scale + view.ty, bitmap.w * view.scale, bitmap.h * view.scale,
  );
  context.globalAlpha = 1;
  strokeOutline(context, outlineFor(candidate.segmentation), view, "rgb(255 255 255 / 0.9)", 3);
  strokeOutline(context, outlineFor(candidate.segmentation), view, css(CANDIDATE), 1.5);
}
