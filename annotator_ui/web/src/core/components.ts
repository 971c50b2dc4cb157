/** Holes and specks of a mask, as the pixels that filling or removing them changes. */
import { type Bitmap, EMPTY_BITMAP } from "./mask";

/** Pieces smaller than this share of the largest one are specks. */
const SPECK_SHARE = 0.1;

/** Background that the mask encloses; corners do not connect. Empty where there is none. */
export function holesOf(mask: Bitmap): Bitmap {
  // A border of background around the mask, so that all of the outside hangs together.
  const [w, h] = [mask.w + 2, mask.h + 2];
  const isBackground = new Uint8Array(w * h).fill(1);
  for (let y = 0; y < mask.h; y++) {
    for (let x = 0; x < mask.w; x++) isBackground[(y + 1) * w + x + 1] = mask.pixels[y * mask.w + x] ? 0 : 1;
  }
  flood(isBackground, 0, w, false);
  const pixels = new Uint8Array(mask.w * mask.h);
  for (let y = 0; y < mask.h; y++) {
    for (let x = 0; x < mask.w; x++) pixels[y * mask.w + x] = isBackground[(y + 1) * w + x + 1] ?? 0;
  }
  return pixels.includes(1) ? { ...mask, pixels } : EMPTY_BITMAP;
}

/** Pieces under a tenth of the largest one; corners connect. Empty where there is none. */
export function specksOf(mask: Bitmap): Bitmap {
  const left = mask.pixels.slice();
  const pieces: number[][] = [];
  for (let at = left.indexOf(1); at >= 0; at = left.indexOf(1, at)) pieces.push(flood(left, at, mask.w, true));
  const largest = pieces.reduce((most, piece) => Math.max(most, piece.length), 0);
  const specks = pieces.filter((piece) => piece.length < SPECK_SHARE * largest);
  if (specks.length === 0) return EMPTY_BITMAP;
  const pixels = new Uint8Array(mask.pixels.length);
  for (const piece of specks) for (const at of piece) pixels[at] = 1;
  return { ...mask, pixels };
}

/** Clear the piece that holds `start`, row-major and `w` wide, and list its pixels. */
function flood(pixels: Uint8Array, start: number, w: number, byCorners: boolean): number[] {
  const piece = [start];
  pixels[start] = 0;
  for (let k = 0; k < piece.length; k++) {
    const at = piece[k] ?? 0;
    const x = at % w;
    for (let dy = -1; dy <= 1; dy++) {
      for (let dx = -1; dx <= 1; dx++) {
        if ((!byCorners && dx !== 0 && dy !== 0) || x + dx < 0 || x + dx >= w) continue;
        const next = at + dy * w + dx;
        if (pixels[next] !== 1) continue;
        pixels[next] = 0;
        piece.push(next);
      }
    }
  }
  return piece;
}
