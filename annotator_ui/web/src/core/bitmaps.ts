import type { Rle } from "../api/types";
import { type Bitmap, EMPTY_BITMAP, bitmapOf, loopsOf, outlineOf } from "./mask";

/** Decoded masks, kept as long as their RLE lives. A mask that cannot be decoded counts as empty. */
const bitmaps = new WeakMap<Rle, Bitmap>();
const outlines = new WeakMap<Rle, Float32Array>();
const loops = new WeakMap<Rle, readonly Float32Array[]>();

export function bitmapFor(rle: Rle): Bitmap {
  let bitmap = bitmaps.get(rle);
  if (!bitmap) {
    bitmap = decodeOrEmpty(rle);
    bitmaps.set(rle, bitmap);
  }
  return bitmap;
}

/** Keep the pixels of a mask that was painted here: they need not be decoded. */
export function remember(rle: Rle, bitmap: Bitmap): void {
  bitmaps.set(rle, bitmap);
}

export function outlineFor(rle: Rle): Float32Array {
  let outline = outlines.get(rle);
  if (!outline) {
    outline = outlineOf(bitmapFor(rle));
    outlines.set(rle, outline);
  }
  return outline;
}

/** The outline as closed loops, for lines that are dashed. */
export function loopsFor(rle: Rle): readonly Float32Array[] {
  let found = loops.get(rle);
  if (!found) {
    found = loopsOf(bitmapFor(rle));
    loops.set(rle, found);
  }
  return found;
}

function decodeOrEmpty(rle: Rle): Bitmap {
  try {
    return bitmapOf(rle);
  } catch (error) {
    // One damaged mask must not take the whole picture down; the console names it for whoever looks into it.
    console.error("A mask could not be decoded:", error);
    return EMPTY_BITMAP;
  }
}
