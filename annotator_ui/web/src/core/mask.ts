import type { Rle } from "../api/types";
import type { Rect } from "./geometry";
import { decodeCounts } from "./rle";

/** A mask cropped to the box of its pixels; `pixels` is row-major, w * h, 0 or 1. */
export interface Bitmap extends Rect {
  readonly pixels: Uint8Array;
}

export const EMPTY_BITMAP: Bitmap = { x: 0, y: 0, w: 0, h: 0, pixels: new Uint8Array(0) };

/** The smallest box around a mask's pixels; zero width and height for an empty mask. */
export function boundsOf(runs: Uint32Array, h: number): Rect {
  let at = 0;
  let [x0, y0, x1, y1] = [Infinity, Infinity, -1, -1];
  for (let i = 0; i < runs.length; i++) {
    const end = at + (runs[i] ?? 0);
    if (i % 2 === 1 && end > at) {
      const first = Math.floor(at / h);
      const last = Math.floor((end - 1) / h);
      x0 = Math.min(x0, first);
      x1 = Math.max(x1, last);
      // A run over a column's end touches the top and the bottom row.
      y0 = Math.min(y0, first === last ? at % h : 0);
      y1 = Math.max(y1, first === last ? (end - 1) % h : h - 1);
    }
    at = end;
  }
  return x1 < 0 ? { x: 0, y: 0, w: 0, h: 0 } : { x: x0, y: y0, w: x1 - x0 + 1, h: y1 - y0 + 1 };
}

/** Pixels of `rle` cropped to their box. Throws RangeError when the runs do not fill the stated size. */
export function bitmapOf(rle: Rle): Bitmap {
  const [h, w] = rle.size;
  const runs = decodeCounts(rle.counts);
  let total = 0;
  for (const run of runs) total += run;
  if (total !== h * w) throw new RangeError(`The mask's runs cover ${total} pixels, its size says ${h * w}.`);
  const box = boundsOf(runs, h);
  const pixels = new Uint8Array(box.w * box.h);
  fillColumns(pixels, runs, h, box);
  return { ...box, pixels };
}

function fillColumns(pixels: Uint8Array, runs: Uint32Array, h: number, box: Rect): void {
  let at = 0;
  for (let i = 0; i < runs.length; i++) {
    const end = at + (runs[i] ?? 0);
    if (i % 2 === 1) {
      let x = Math.floor(at / h);
      let y = at - x * h;
      for (let left = end - at; left > 0; x++, y = 0) {
        const n = Math.min(h - y, left);
        let to = (y - box.y) * box.w + (x - box.x);
        for (let k = 0; k < n; k++, to += box.w) pixels[to] = 1;
        left -= n;
      }
    }
    at = end;
  }
}

export function covers(mask: Bitmap, x: number, y: number): boolean {
  const [column, row] = [Math.floor(x) - mask.x, Math.floor(y) - mask.y];
  if (column < 0 || row < 0 || column >= mask.w || row >= mask.h) return false;
  return mask.pixels[row * mask.w + column] === 1;
}

export function unionBox(boxes: Rect[]): Rect {
  const full = boxes.filter((box) => box.w > 0 && box.h > 0);
  if (full.length === 0) return { x: 0, y: 0, w: 0, h: 0 };
  const x = Math.min(...full.map((box) => box.x));
  const y = Math.min(...full.map((box) => box.y));
  const right = Math.max(...full.map((box) => box.x + box.w));
  const bottom = Math.max(...full.map((box) => box.y + box.h));
  return { x, y, w: right - x, h: bottom - y };
}

/**
 * The pixel outline as straight pieces [x0, y0, x1, y1, ...] in image coordinates, each as long as it can be.
 * Drawn with a constant screen width it stays one crisp line at any zoom.
 */
export function outlineOf(mask: Bitmap): Float32Array {
  const pieces: number[] = [];
  const inside = (x: number, y: number): number =>
    x >= 0 && y >= 0 && x < mask.w && y < mask.h ? (mask.pixels[y * mask.w + x] ?? 0) : 0;
  for (let y = 0; y <= mask.h; y++) {
    eachStretch(mask.w, (x) => inside(x, y - 1) !== inside(x, y), (from, to) =>
      pieces.push(mask.x + from, mask.y + y, mask.x + to, mask.y + y));
  }
  for (let x = 0; x <= mask.w; x++) {
    eachStretch(mask.h, (y) => inside(x - 1, y) !== inside(x, y), (from, to) =>
      pieces.push(mask.x + x, mask.y + from, mask.x + x, mask.y + to));
  }
  return Float32Array.from(pieces);
}

/**
 * The pixel outline as closed loops [x0, y0, x1, y1, ...] of corners, the mask on the right hand: lines that are dashed
 * need to know where they came from.
 */
export function loopsOf(mask: Bitmap): Float32Array[] {
  const ends = directedEdges(mask);
  const loops: Float32Array[] = [];
  for (let start = ends.keys().next(); !start.done; start = ends.keys().next()) {
    const corners: number[] = [];
    let [at, before] = [start.value, 0];
    do {
      const next = takeEdge(ends, at, before);
      if (next === null) break;
      if (next - at !== before) corners.push(mask.x + (at % (mask.w + 1)), mask.y + Math.floor(at / (mask.w + 1)));
      before = next - at;
      at = next;
    } while (at !== start.value);
    loops.push(Float32Array.from(corners));
  }
  return loops;
}

/** Where the unit edges that leave each corner end; corners are numbered row by row, w + 1 to a row. */
function directedEdges(mask: Bitmap): Map<number, number[]> {
  const ends = new Map<number, number[]>();
  const row = mask.w + 1;
  const inside = (x: number, y: number): boolean =>
    x >= 0 && y >= 0 && x < mask.w && y < mask.h && mask.pixels[y * mask.w + x] === 1;
  const add = (from: number, to: number): void => {
    const known = ends.get(from);
    if (known) known.push(to);
    else ends.set(from, [to]);
  };
  for (let y = 0; y < mask.h; y++) {
    for (let x = 0; x < mask.w; x++) {
      if (!inside(x, y)) continue;
      const corner = y * row + x;
      if (!inside(x, y - 1)) add(corner, corner + 1);
      if (!inside(x + 1, y)) add(corner + 1, corner + 1 + row);
      if (!inside(x, y + 1)) add(corner + 1 + row, corner + row);
      if (!inside(x - 1, y)) add(corner + row, corner);
    }
  }
  return ends;
}

/** Walk on from `corner`; where two pixels touch by a corner only, turn rather than cross over. */
function takeEdge(ends: Map<number, number[]>, corner: number, before: number): number | null {
  const here = ends.get(corner);
  const next = here?.find((end) => end - corner !== before) ?? here?.[0];
  if (!here || next === undefined) return null;
  if (here.length === 1) ends.delete(corner);
  else ends.set(corner, here.filter((end) => end !== next));
  return next;
}

/** Calls `found` with each maximal stretch [from, to) of 0..n-1 on which `test` holds. */
function eachStretch(n: number, test: (i: number) => boolean, found: (from: number, to: number) => void): void {
  let from = -1;
  for (let i = 0; i <= n; i++) {
    const on = i < n && test(i);
    if (on && from < 0) from = i;
    if (!on && from >= 0) {
      found(from, i);
      from = -1;
    }
  }
}
