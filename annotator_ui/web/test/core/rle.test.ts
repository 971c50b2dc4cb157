import { describe, expect, test } from "vitest";

import { bitmapOf, boundsOf, covers, outlineOf } from "../../src/core/mask";
import { areaOf, decodeCounts, encodeCounts, encodeMask, runsOf } from "../../src/core/rle";
import { BIG, RLE_CASES, type RleCase } from "./rle_cases";

const pixelsOf = (one: RleCase): Uint8Array => Uint8Array.from(one.pixels, Number);

/** CRC-32 of ASCII text, to compare a long counts string without storing it. */
function crc32(text: string): number {
  let crc = -1;
  for (let i = 0; i < text.length; i++) {
    crc ^= text.charCodeAt(i);
    for (let k = 0; k < 8; k++) crc = (crc >>> 1) ^ (crc & 1 ? 0xedb88320 : 0);
  }
  return (crc ^ -1) >>> 0;
}

function bigMask(): Uint8Array {
  const [h, w] = BIG.size;
  const pixels = new Uint8Array(h * w);
  for (let y = 0; y < h; y++) {
    for (let x = 0; x < w; x++) {
      const isIn = (y - 1500) ** 2 / 1400 ** 2 + (x - 2000) ** 2 / 1900 ** 2 < 1;
      if (isIn && (Math.floor(y / 7) + Math.floor(x / 5)) % 9 > 0) pixels[y * w + x] = 1;
    }
  }
  return pixels;
}

describe.each(RLE_CASES)("mask $name", (one) => {
  const [h, w] = one.size;

  test("its counts are written exactly as pycocotools writes them", () => {
    expect(encodeMask(pixelsOf(one), h, w)).toEqual({ size: one.size, counts: one.counts });
  });

  test("its counts are read back to the same runs", () => {
    expect(decodeCounts(one.counts)).toEqual(runsOf(pixelsOf(one), h, w));
    expect(encodeCounts(decodeCounts(one.counts))).toBe(one.counts);
  });

  test("its area, box and pixels agree with pycocotools", () => {
    const runs = decodeCounts(one.counts);
    const bitmap = bitmapOf({ size: one.size, counts: one.counts });
    expect(areaOf(runs)).toBe(one.area);
    if (one.area > 0) expect(Object.values(boundsOf(runs, h))).toEqual(one.bbox);
    const again = Array.from({ length: h * w }, (_, i) => (covers(bitmap, i % w, Math.floor(i / w)) ? "1" : "0"));
    expect(again.join("")).toBe(one.pixels);
  });
});

test("a mask of twelve megapixels goes there and back, and fast enough for a click", () => {
  const [h, w] = BIG.size;
  const pixels = bigMask();
  const rle = encodeMask(pixels, h, w);
  expect([rle.counts.length, crc32(rle.counts)]).toEqual([BIG.n_counts, BIG.crc32]);
  const startedAt = performance.now();
  const bitmap = bitmapOf(rle);
  expect(performance.now() - startedAt).toBeLessThan(1500);
  expect([bitmap.x, bitmap.y, bitmap.w, bitmap.h]).toEqual(BIG.bbox);
  expect(areaOf(decodeCounts(rle.counts))).toBe(BIG.area);
  const row = bitmap.pixels.subarray(1400 * bitmap.w, 1401 * bitmap.w);
  const from = (bitmap.y + 1400) * w + bitmap.x;
  expect(row).toEqual(pixels.subarray(from, from + bitmap.w));
});

test.each([["cut off", "0130|"], ["not ASCII", "0é"], ["a negative run", "0120N"]])("counts that are %s are refused", (_, counts) => {
  expect(() => bitmapOf({ size: [5, 4], counts })).toThrow(RangeError);
});

test("runs that do not fill the stated size are refused", () => {
  expect(() => bitmapOf({ size: [9, 9], counts: encodeCounts([3, 4]) })).toThrow(/7 pixels.*81/);
});

test("the outline of a two by one rectangle is its four sides", () => {
  const outline = outlineOf({ x: 3, y: 5, w: 2, h: 1, pixels: Uint8Array.of(1, 1) });
  expect(Array.from(outline)).toEqual([3, 5, 5, 5, 3, 6, 5, 6, 3, 5, 3, 6, 5, 5, 5, 6]);
});

test("a hole has an outline of its own", () => {
  const ring = { x: 0, y: 0, w: 3, h: 3, pixels: Uint8Array.of(1, 1, 1, 1, 0, 1, 1, 1, 1) };
  expect(outlineOf(ring).length / 4).toBe(8);
});
