/**
 * What the model drew beforehand must never be taken for a person's work: a thin hatching in one pale colour within a
 * dashed outline, where accepted masks are filled and have a solid one.
 */
import { bitmapFor, loopsFor } from "../bitmaps";
import type { Size, View } from "../geometry";
import type { Bitmap } from "../mask";
import { PREFILLED, css } from "../palette";
import { type LocalProposal, isBelow } from "../proposals";
import type { LabelState } from "../store";

const DASH_PX = [6, 4];
/** Stripes across the longer side of the image, so that hatching looks the same in small and large pictures. */
const N_STRIPES = 110;
const MIN_PERIOD_PX = 4;
/** Of 255: between the stripes, and on them. */
const GROUND_ALPHA = 40;
const STRIPE_ALPHA = 150;

/** Every open proposal but the one being corrected; those below the slider faded to a trace. */
export function drawPrefilled(context: CanvasRenderingContext2D, state: LabelState): void {
  const { image, proposals, cutoff, draft, drawn, areMasksHidden } = state;
  if (!image || areMasksHidden) return;
  const replaced = drawn ? draft.proposalId : null;
  for (const proposal of proposals) {
    if (proposal.state !== "open" || proposal.id === replaced) continue;
    drawOne(context, state, image, proposal, isBelow(proposal, cutoff));
  }
}

function drawOne(
  context: CanvasRenderingContext2D, { view, opacity, selectedId }: LabelState, image: Size,
  proposal: LocalProposal, isFaded: boolean,
): void {
  const bitmap = bitmapFor(proposal.segmentation);
  if (bitmap.w === 0) return;
  context.globalAlpha = isFaded ? 0.12 : opacity;
  context.imageSmoothingEnabled = true;
  context.drawImage(
    spriteOf(proposal, image), bitmap.x * view.scale + view.tx, bitmap.y * view.scale + view.ty,
    bitmap.w * view.scale, bitmap.h * view.scale,
  );
  context.globalAlpha = isFaded ? 0.3 : 1;
  if (proposal.localId !== selectedId) strokeDashed(context, view, proposal, 1.5);
  context.globalAlpha = 1;
}

/** The selected one: heavier, and still dashed. */
export function drawSelectedProposal(context: CanvasRenderingContext2D, view: View, proposal: LocalProposal): void {
  strokeDashed(context, view, proposal, 3);
}

/** Pale dashes on a dark line: visible on bright and on dark pictures. */
function strokeDashed(context: CanvasRenderingContext2D, view: View, proposal: LocalProposal, width: number): void {
  context.beginPath();
  for (const loop of loopsFor(proposal.segmentation)) {
    for (let i = 0; i < loop.length; i += 2) {
      const [x, y] = [(loop[i] ?? 0) * view.scale + view.tx, (loop[i + 1] ?? 0) * view.scale + view.ty];
      if (i === 0) context.moveTo(x, y);
      else context.lineTo(x, y);
    }
    context.closePath();
  }
  context.lineCap = "butt";
  context.lineJoin = "round";
  context.lineWidth = width + 1;
  context.strokeStyle = "rgb(12 18 28 / 0.75)";
  context.stroke();
  context.setLineDash(DASH_PX);
  context.lineWidth = width;
  context.strokeStyle = css(PREFILLED);
  context.stroke();
  context.setLineDash([]);
}

const sprites = new WeakMap<LocalProposal["segmentation"], HTMLCanvasElement>();

function spriteOf({ segmentation }: LocalProposal, image: Size): HTMLCanvasElement {
  const ready = sprites.get(segmentation);
  if (ready) return ready;
  const bitmap = bitmapFor(segmentation);
  const sprite = document.createElement("canvas");
  sprite.width = bitmap.w;
  sprite.height = bitmap.h;
  const period = Math.max(MIN_PERIOD_PX, Math.round(Math.max(image.width, image.height) / N_STRIPES));
  sprite.getContext("2d")?.putImageData(hatch(bitmap, period), 0, 0);
  sprites.set(segmentation, sprite);
  return sprite;
}

/** Diagonal stripes of a third of `period` image pixels; they run on from one mask into the next. */
function hatch(bitmap: Bitmap, period: number): ImageData {
  const picture = new ImageData(bitmap.w, bitmap.h);
  const words = new Int32Array(picture.data.buffer);
  const [r, g, b] = PREFILLED;
  const colour = (b << 16) | (g << 8) | r;
  for (let y = 0, i = 0; y < bitmap.h; y++) {
    for (let x = 0; x < bitmap.w; x++, i++) {
      if (!bitmap.pixels[i]) continue;
      const isStripe = (bitmap.x + x + bitmap.y + y) % period < Math.max(period / 3, 1);
      words[i] = ((isStripe ? STRIPE_ALPHA : GROUND_ALPHA) << 24) | colour;
    }
  }
  return picture;
}
