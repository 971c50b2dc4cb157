import { bitmapFor, outlineFor } from "../bitmaps";
import type { LocalMask } from "../commands";
import { type Rect, type View, overlaps } from "../geometry";
import type { Bitmap } from "../mask";
import { type Rgb, css, maskColour } from "../palette";
import type { LabelState } from "../store";

/** More outline pieces than this in all, and only the selected mask gets an outline: thousands of masks stay fluid. */
const MAX_PIECES = 60_000;

/** An RGBA picture of a mask in one colour, of the size of its box. */
export function tint(bitmap: Bitmap, [r, g, b]: Rgb): ImageData {
  const picture = new ImageData(bitmap.w, bitmap.h);
  // Alpha in the high byte: little-endian RGBA, as every browser platform has it.
  const colour = (255 << 24) | (b << 16) | (g << 8) | r;
  const words = new Int32Array(picture.data.buffer);
  for (let i = 0; i < bitmap.pixels.length; i++) if (bitmap.pixels[i]) words[i] = colour;
  return picture;
}

export function strokeOutline(
  context: CanvasRenderingContext2D, outline: Float32Array, view: View, colour: string, width: number,
): void {
  context.beginPath();
  for (let i = 0; i < outline.length; i += 4) {
    context.moveTo((outline[i] ?? 0) * view.scale + view.tx, (outline[i + 1] ?? 0) * view.scale + view.ty);
    context.lineTo((outline[i + 2] ?? 0) * view.scale + view.tx, (outline[i + 3] ?? 0) * view.scale + view.ty);
  }
  context.lineCap = "square";
  context.lineWidth = width;
  context.strokeStyle = colour;
  context.stroke();
}

/**
 * The accepted masks as one picture in image pixels, changed only inside the boxes of masks that came or went, so that
 * the two-thousandth mask costs as little as the first.
 */
export class MaskLayer {
  private readonly canvas = document.createElement("canvas");
  private readonly context = this.canvas.getContext("2d", { willReadFrequently: false });
  private image: ImageBitmap | null = null;
  private drawn: readonly LocalMask[] = [];

  draw(context: CanvasRenderingContext2D, state: LabelState): void {
    this.update(state);
    if (state.areMasksHidden || !state.image) return;
    const { view, image } = state;
    context.globalAlpha = state.opacity;
    context.imageSmoothingEnabled = view.scale < 2;
    context.drawImage(this.canvas, view.tx, view.ty, image.width * view.scale, image.height * view.scale);
    context.globalAlpha = 1;
    this.drawOutlines(context, state);
  }

  private drawOutlines(context: CanvasRenderingContext2D, { view, selectedId }: LabelState): void {
    let left = MAX_PIECES;
    for (const mask of this.drawn) {
      if (mask.localId === selectedId || left <= 0) continue;
      const outline = outlineFor(mask.segmentation);
      left -= outline.length / 4;
      strokeOutline(context, outline, view, css(maskColour(mask.colour), 0.95), 1.25);
    }
  }

  /** The mask that is being corrected is drawn as the one being made. */
  private update({ image, masks: all, draft }: LabelState): void {
    if (image && image !== this.image) this.begin(image);
    const masks = all.filter((mask) => mask.localId !== draft.supersedes);
    const now = new Set(masks);
    const before = new Set(this.drawn);
    this.drawn.filter((mask) => !now.has(mask)).forEach((mask) => this.erase(bitmapFor(mask.segmentation), masks));
    masks.filter((mask) => !before.has(mask)).forEach((mask) => this.add(mask));
    this.drawn = masks;
  }

  private begin(image: ImageBitmap): void {
    this.image = image;
    this.canvas.width = image.width;
    this.canvas.height = image.height;
    this.drawn = [];
  }

  private add(mask: LocalMask): void {
    const bitmap = bitmapFor(mask.segmentation);
    if (bitmap.w === 0 || !this.context) return;
    const sprite = document.createElement("canvas");
    sprite.width = bitmap.w;
    sprite.height = bitmap.h;
    sprite.getContext("2d")?.putImageData(tint(bitmap, maskColour(mask.colour)), 0, 0);
    this.context.drawImage(sprite, bitmap.x, bitmap.y);
  }

  /** Clear a box and draw again whatever else reaches into it. */
  private erase(box: Rect, masks: readonly LocalMask[]): void {
    const context = this.context;
    if (!context || box.w === 0) return;
    context.save();
    context.beginPath();
    context.rect(box.x, box.y, box.w, box.h);
    context.clip();
    context.clearRect(box.x, box.y, box.w, box.h);
    masks.filter((mask) => this.drawn.includes(mask) && overlaps(bitmapFor(mask.segmentation), box))
      .forEach((mask) => this.add(mask));
    context.restore();
  }
}
