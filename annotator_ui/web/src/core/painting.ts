/** The mask being made as it stands: what the prompts gave, or the mask taken up, with the strokes laid over it. */
import type { Rle, Stroke } from "../api/types";
import { bitmapFor, remember } from "./bitmaps";
import type { Rect, Size } from "./geometry";
import { type Bitmap, EMPTY_BITMAP, boundsOf, unionBox } from "./mask";
import { areaOf, encodeCounts } from "./rle";
import { adds, coverOf } from "./strokes";

/** An area of the image, as accepted masks and candidates describe it. */
export interface Region {
  readonly segmentation: Rle;
  readonly bbox: readonly [number, number, number, number];
  readonly area: number;
}

interface Step {
  readonly under: Rle | null;
  readonly strokes: readonly Stroke[];
  readonly region: Region;
}

/** Undo and one more stroke find what they need among the last few results. */
const MAX_STEPS = 12;

/** Paints strokes over masks; a stroke more costs its own size, not that of all before it. */
export class Painting {
  private steps: Step[] = [];

  /** `under` with the strokes over it, in an image of that size. */
  over(under: Rle | null, strokes: readonly Stroke[], size: Size): Region {
    const near = this.nearest(under, strokes);
    if (near?.strokes.length === strokes.length) return near.region;
    const start = near ? bitmapFor(near.region.segmentation) : under ? bitmapFor(under) : EMPTY_BITMAP;
    const region = regionOf(paint(start, strokes.slice(near?.strokes.length ?? 0), size), size);
    this.steps = [...this.steps, { under, strokes, region }].slice(-MAX_STEPS);
    return region;
  }

  forget(): void {
    this.steps = [];
  }

  /** The known result with the longest beginning of `strokes`. */
  private nearest(under: Rle | null, strokes: readonly Stroke[]): Step | null {
    const fits = this.steps.filter((step) => step.under === under && step.strokes.every((stroke, i) => stroke === strokes[i]));
    return fits.reduce<Step | null>((best, step) => (step.strokes.length > (best?.strokes.length ?? -1) ? step : best), null);
  }
}

/** `mask` with the strokes laid over it in their order, later over earlier. */
export function paint(mask: Bitmap, strokes: readonly Stroke[], size: Size): Bitmap {
  const covers = strokes.map((stroke) => ({ cover: coverOf(stroke, size), value: adds(stroke) ? 1 : 0 }));
  const box = unionBox([mask, ...covers.filter(({ value }) => value === 1).map(({ cover }) => cover)]);
  const painted: Bitmap = { ...box, pixels: new Uint8Array(box.w * box.h) };
  lay(painted, mask, 1);
  for (const { cover, value } of covers) lay(painted, cover, value);
  return painted;
}

function lay(onto: Bitmap, cover: Bitmap, value: number): void {
  const top = Math.max(cover.y, onto.y);
  const bottom = Math.min(cover.y + cover.h, onto.y + onto.h);
  const left = Math.max(cover.x, onto.x);
  const right = Math.min(cover.x + cover.w, onto.x + onto.w);
  for (let y = top; y < bottom; y++) {
    let from = (y - cover.y) * cover.w + (left - cover.x);
    let to = (y - onto.y) * onto.w + (left - onto.x);
    for (let x = left; x < right; x++, from++, to++) if (cover.pixels[from]) onto.pixels[to] = value;
  }
}

/** The bitmap encoded, with its box and area; its pixels are kept at hand. */
export function regionOf(bitmap: Bitmap, size: Size): Region {
  const runs = runsOfBitmap(bitmap, size);
  const segmentation: Rle = { size: [size.height, size.width], counts: encodeCounts(runs) };
  const box = boundsOf(runs, size.height);
  remember(segmentation, crop(bitmap, box));
  return { segmentation, bbox: [box.x, box.y, box.w, box.h], area: areaOf(runs) };
}

function crop(bitmap: Bitmap, box: Rect): Bitmap {
  if (box.w === bitmap.w && box.h === bitmap.h) return bitmap;
  const cropped: Bitmap = { ...box, pixels: new Uint8Array(box.w * box.h) };
  lay(cropped, bitmap, 1);
  return cropped;
}

/** Column-major runs, background first, of the whole image: only the bitmap's own columns are looked at. */
function runsOfBitmap(bitmap: Bitmap, { width, height }: Size): Uint32Array {
  const runs: number[] = [];
  // Where the run that is open began, and whether it is foreground.
  let [began, value] = [0, 0];
  const change = (at: number): void => {
    runs.push(at - began);
    began = at;
    value = 1 - value;
  };
  for (let x = 0; x < bitmap.w; x++) {
    const column = (bitmap.x + x) * height;
    // Above the bitmap is background, even right after a column that ended in foreground.
    if (value === 1 && bitmap.y > 0) change(column);
    for (let y = 0; y < bitmap.h; y++) if ((bitmap.pixels[y * bitmap.w + x] ? 1 : 0) !== value) change(column + bitmap.y + y);
    if (value === 1 && bitmap.y + bitmap.h < height) change(column + bitmap.y + bitmap.h);
  }
  if (value === 1 && bitmap.x + bitmap.w < width) change((bitmap.x + bitmap.w) * height);
  if (began < width * height) runs.push(width * height - began);
  return Uint32Array.from(runs);
}
