/**
 * A person's strokes: which pixels each covers. The server reads them by the same rule (engine/geometry/strokes.py), in
 * whole tenths of a pixel, so both agree to the pixel. Whole coordinates are pixel centres, as in prompts. A brush of
 * `size` px covers each pixel whose centre lies within size / 2 of the path; a lasso each pixel whose centre its closed
 * path winds around.
 */
import type { PathStroke, Stroke } from "../api/types";
import type { Rect, Size } from "./geometry";
import { type Bitmap, EMPTY_BITMAP, bitmapOf } from "./mask";

/** The server takes no more than these for one mask. */
export const MAX_STROKES = 1000;
export const MAX_POINTS = 50_000;
export const MAX_SIZE_PX = 500;
export const MAX_OUTSIDE_PX = 1000;

const TENTHS = 10;

/** Corners in whole tenths of a pixel. */
interface Path {
  readonly xs: Int32Array;
  readonly ys: Int32Array;
}

/** First and last column or row of a stretch; there is nothing in it when the first lies beyond the last. */
type Stretch = readonly [first: number, last: number];

const NOTHING: Stretch = [Infinity, -Infinity];
const EVERYTHING: Stretch = [-Infinity, Infinity];

/** Whether the stroke adds its pixels to the mask or takes them away. */
export function adds(stroke: Stroke): boolean {
  return stroke.kind === "brush" || stroke.kind === "fill_holes" || (stroke.kind === "lasso" && stroke.label === 1);
}

/** The pixels that the stroke covers in an image of that size. */
export function coverOf(stroke: Stroke, { width, height }: Size): Bitmap {
  if ("counts" in stroke) return bitmapOf({ size: [height, width], counts: stroke.counts });
  const path = pathOf(stroke);
  return stroke.kind === "lasso" ? within(path, { width, height }) : along(path, (stroke.size * TENTHS) / 2, { width, height });
}

export function nPointsOf(strokes: readonly Stroke[]): number {
  return strokes.reduce((n, stroke) => n + ("points" in stroke ? stroke.points.length / 2 : 0), 0);
}

function pathOf({ points }: PathStroke): Path {
  const tenths = (from: number): Int32Array =>
    Int32Array.from({ length: points.length / 2 }, (_, i) => Math.floor((points[2 * i + from] ?? 0) * TENTHS + 0.5));
  return { xs: tenths(0), ys: tenths(1) };
}

/** The columns and rows of the image within `reach` tenths of the path. */
function frameOf({ xs, ys }: Path, reach: number, { width, height }: Size): Rect {
  const [left, right] = extent(xs);
  const [top, bottom] = extent(ys);
  const x = Math.max(Math.ceil((left - reach) / TENTHS), 0);
  const y = Math.max(Math.ceil((top - reach) / TENTHS), 0);
  const w = Math.min(Math.floor((right + reach) / TENTHS), width - 1) - x + 1;
  const h = Math.min(Math.floor((bottom + reach) / TENTHS), height - 1) - y + 1;
  return w > 0 && h > 0 ? { x, y, w, h } : { x: 0, y: 0, w: 0, h: 0 };
}

function extent(values: Int32Array): Stretch {
  let [low, high] = NOTHING;
  for (const value of values) {
    if (value < low) low = value;
    if (value > high) high = value;
  }
  return [low, high];
}

/** Pixels whose centre lies within `radius` tenths of the path: in each row one stretch for each piece. */
function along(path: Path, radius: number, size: Size): Bitmap {
  const frame = frameOf(path, radius, size);
  if (frame.w === 0) return EMPTY_BITMAP;
  const steps = new Int32Array(frame.h * (frame.w + 1));
  const n = Math.max(path.xs.length - 1, 1);
  for (let i = 0; i < n; i++) {
    const j = Math.min(i + 1, path.xs.length - 1);
    addPiece(steps, frame, radius, [path.xs[i] ?? 0, path.ys[i] ?? 0, path.xs[j] ?? 0, path.ys[j] ?? 0]);
  }
  return summed(steps, frame);
}

function addPiece(steps: Int32Array, frame: Rect, radius: number, [ax, ay, bx, by]: [number, number, number, number]): void {
  const [dx, dy] = [bx - ax, by - ay];
  const length2 = dx * dx + dy * dy;
  const across = rootOf(radius * radius, length2);
  const top = Math.max(Math.ceil((Math.min(ay, by) - radius) / TENTHS), frame.y);
  const bottom = Math.min(Math.floor((Math.max(ay, by) + radius) / TENTHS), frame.y + frame.h - 1);
  for (let y = top; y <= bottom; y++) {
    const down = y * TENTHS - ay;
    // The piece's surroundings are convex, two discs and the slab between, so their stretches join to one.
    let [low, high] = discAt(ax, down, radius);
    if (length2 > 0) {
      [low, high] = joined([low, high], discAt(bx, y * TENTHS - by, radius));
      // With u = 10 x - ax: 0 <= u dx + down dy <= length2 and |u dy - down dx| <= across.
      const ends = between(dx, -down * dy, length2 - down * dy, ax);
      const sides = between(dy, down * dx - across, down * dx + across, ax);
      [low, high] = joined([low, high], [Math.max(ends[0], sides[0]), Math.min(ends[1], sides[1])]);
    }
    mark(steps, frame, y, low, high);
  }
}

function mark(steps: Int32Array, frame: Rect, y: number, low: number, high: number): void {
  const first = Math.max(low - frame.x, 0);
  const last = Math.min(high - frame.x, frame.w - 1);
  if (first > last) return;
  const row = (y - frame.y) * (frame.w + 1);
  steps[row + first] = (steps[row + first] ?? 0) + 1;
  steps[row + last + 1] = (steps[row + last + 1] ?? 0) - 1;
}

function joined(a: Stretch, b: Stretch): Stretch {
  return b[0] > b[1] ? a : [Math.min(a[0], b[0]), Math.max(a[1], b[1])];
}

function discAt(x: number, down: number, radius: number): Stretch {
  const rest = radius * radius - down * down;
  if (rest < 0) return NOTHING;
  const half = Math.floor(Math.sqrt(rest));
  return [Math.ceil((x - half) / TENTHS), Math.floor((x + half) / TENTHS)];
}

/** The whole x with least <= (10 x - offset) * factor <= most. Quotients of such small whole numbers round exactly. */
function between(factor: number, least: number, most: number, offset: number): Stretch {
  if (factor === 0) return least <= 0 && most >= 0 ? EVERYTHING : NOTHING;
  if (factor < 0) return between(-factor, -most, -least, offset);
  const scale = TENTHS * factor;
  return [Math.ceil((least + offset * factor) / scale), Math.floor((most + offset * factor) / scale)];
}

/** The whole part of the square root of a * b, which may be too large for a number to hold exactly. */
function rootOf(a: number, b: number): number {
  const square = BigInt(a) * BigInt(b);
  let root = BigInt(Math.floor(Math.sqrt(Number(square))));
  while (root * root > square) root--;
  while ((root + 1n) * (root + 1n) <= square) root++;
  return Number(root);
}

/** Pixels whose centre the closed path winds around; on the path itself, left and upper sides count. */
function within({ xs, ys }: Path, size: Size): Bitmap {
  const frame = frameOf({ xs, ys }, 0, size);
  if (frame.w === 0) return EMPTY_BITMAP;
  const turns = new Int32Array(frame.h * (frame.w + 1));
  for (let i = 0; i < xs.length; i++) {
    const j = (i + 1) % xs.length;
    const falls = (ys[i] ?? 0) < (ys[j] ?? 0);
    const [upper, lower] = falls ? [i, j] : [j, i];
    addSide(turns, frame, falls ? 1 : -1, [xs[upper] ?? 0, ys[upper] ?? 0, xs[lower] ?? 0, ys[lower] ?? 0]);
  }
  return summed(turns, frame);
}

function addSide(turns: Int32Array, frame: Rect, turn: number, [x, y, toX, toY]: [number, number, number, number]): void {
  const [dx, dy] = [toX - x, toY - y];
  // Rows with y <= 10 row < toY; a level side has none.
  const top = Math.max(Math.ceil(y / TENTHS), frame.y);
  const bottom = Math.min(Math.ceil(toY / TENTHS) - 1, frame.y + frame.h - 1);
  for (let row = top; row <= bottom; row++) {
    // The columns with 10 x left of where the side crosses the row.
    const nLeft = Math.ceil((x * dy + (row * TENTHS - y) * dx) / (TENTHS * dy));
    const at = (row - frame.y) * (frame.w + 1);
    const end = at + Math.min(Math.max(nLeft - frame.x, 0), frame.w);
    turns[at] = (turns[at] ?? 0) + turn;
    turns[end] = (turns[end] ?? 0) - turn;
  }
}

/** Steps along each row (one more than it has pixels) added up: what is not 0 is covered. */
function summed(steps: Int32Array, frame: Rect): Bitmap {
  const pixels = new Uint8Array(frame.w * frame.h);
  for (let y = 0, at = 0; y < frame.h; y++, at++) {
    let sum = 0;
    for (let x = 0; x < frame.w; x++, at++) {
      sum += steps[at] ?? 0;
      if (sum !== 0) pixels[y * frame.w + x] = 1;
    }
  }
  return { ...frame, pixels };
}
