/**
 * COCO's compressed run-length encoding. Runs count pixels down the columns (column-major), background
 * first. A run is written as groups of five bits, least first, each plus 48, bit 0x20 saying that more
 * follow; from the fourth run on (the third index and up) a run is written as the difference to the one two before.
 */
import type { Rle } from "../api/types";

const GROUP_BITS = 5;
const MORE = 0x20;
const SIGN = 0x10;

/** Runs of a counts string. Throws RangeError for a string that is cut off or leaves the ASCII range used. */
export function decodeCounts(counts: string): Uint32Array {
  const runs = new Uint32Array(counts.length);
  let n = 0;
  let at = 0;
  while (at < counts.length) {
    let value = 0;
    let shift = 0;
    let group = MORE;
    while (group & MORE) {
      group = counts.charCodeAt(at++) - 48;
      // charCodeAt past the end gives NaN, which fails this test as well.
      if (!(group >= 0 && group < 64)) throw new RangeError("The mask's counts are damaged.");
      value += (group & 0x1f) * 2 ** shift;
      shift += GROUP_BITS;
    }
    if (group & SIGN) value -= 2 ** shift;
    if (n > 2) value += runs[n - 2] ?? 0;
    if (value < 0) throw new RangeError("The mask's counts hold a negative run.");
    runs[n++] = value;
  }
  return runs.subarray(0, n);
}

/** The counts string of `runs`; the inverse of decodeCounts. */
export function encodeCounts(runs: ArrayLike<number>): string {
  const codes: number[] = [];
  for (let i = 0; i < runs.length; i++) {
    let value = (runs[i] ?? 0) - (i > 2 ? (runs[i - 2] ?? 0) : 0);
    let more = true;
    while (more) {
      const group = value & 0x1f;
      value >>= GROUP_BITS;
      more = group & SIGN ? value !== -1 : value !== 0;
      codes.push(group + 48 + (more ? MORE : 0));
    }
  }
  return textOf(codes);
}

/** Joined in slices: one call with a million arguments would overflow the stack. */
function textOf(codes: number[]): string {
  let text = "";
  for (let i = 0; i < codes.length; i += 8192) text += String.fromCharCode(...codes.slice(i, i + 8192));
  return text;
}

/** Column-major runs, background first, of a row-major mask of height h and width w. */
export function runsOf(pixels: ArrayLike<number>, h: number, w: number): Uint32Array {
  const runs: number[] = [];
  let length = 0;
  let value = 0;
  for (let x = 0; x < w; x++) {
    for (let y = 0; y < h; y++) {
      const here = pixels[y * w + x] ? 1 : 0;
      if (here !== value) {
        runs.push(length);
        length = 0;
        value = here;
      }
      length++;
    }
  }
  runs.push(length);
  return Uint32Array.from(runs);
}

export function encodeMask(pixels: ArrayLike<number>, h: number, w: number): Rle {
  return { size: [h, w], counts: encodeCounts(runsOf(pixels, h, w)) };
}

export function areaOf(runs: Uint32Array): number {
  let area = 0;
  for (let i = 1; i < runs.length; i += 2) area += runs[i] ?? 0;
  return area;
}
