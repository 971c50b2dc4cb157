import { describe, expect, test } from "vitest";

import type { Rle, Stroke } from "../../src/api/types";
import { holesOf, specksOf } from "../../src/core/components";
import { imagePoint } from "../../src/core/geometry";
import { bitmapOf } from "../../src/core/mask";
import { Painting, paint, regionOf } from "../../src/core/painting";
import { encodeMask } from "../../src/core/rle";
import { StrokePath } from "../../src/core/stroke_path";
import { adds, coverOf } from "../../src/core/strokes";
// Written by the server's rule: python -m tests.geometry.test_strokes
import cases from "./stroke_cases.json";

const rleOf = (size: number[], counts: string): Rle => ({ size: [size[0] ?? 0, size[1] ?? 0], counts });

describe.each(cases.map((one, i) => ({ ...one, i })))("case $i", (one) => {
  const [height = 0, width = 0] = one.size;
  const size = { height, width };
  const strokes = one.strokes as Stroke[];
  const under = rleOf(one.size, one.under);

  test("paints the same pixels as the server, whatever was known before", () => {
    expect(new Painting().over(under, strokes, size).segmentation.counts).toBe(one.painted);
    const painting = new Painting();
    for (let n = 0; n <= strokes.length; n++) painting.over(under, strokes.slice(0, n), size);
    expect(painting.over(under, strokes, size).segmentation.counts).toBe(one.painted);
  });

  test("piece by piece a path covers what it covers whole", () => {
    for (const stroke of strokes) {
      if (stroke.kind === "lasso" || !("points" in stroke) || stroke.points.length < 4) continue;
      const pieces = Array.from({ length: stroke.points.length / 2 - 1 }, (_, i): Stroke =>
        ({ ...stroke, kind: "brush", points: stroke.points.slice(2 * i, 2 * i + 4) }));
      const whole = paint(coverOf({ ...stroke, kind: "brush" }, size), [], size);
      const empty = bitmapOf(rleOf(one.size, encodeMask(new Uint8Array(height * width), height, width).counts));
      expect(regionOf(paint(empty, pieces, size), size)).toEqual(regionOf(whole, size));
    }
  });
});

test("a painted mask is encoded as any other, with its own box and area", () => {
  const size = { width: 7, height: 5 };
  const region = regionOf({ x: 1, y: 1, w: 4, h: 4, pixels: Uint8Array.from([0, 0, 0, 0, 0, 1, 1, 0, 0, 1, 1, 0, 0, 0, 1, 0]) }, size);
  const pixels = new Uint8Array(35);
  for (const at of [16, 17, 23, 24, 31]) pixels[at] = 1;
  expect(region).toEqual({ segmentation: encodeMask(pixels, 5, 7), bbox: [2, 2, 2, 3], area: 5 });
});

test("undo returns the very bytes, far back as well", () => {
  const size = { width: 60, height: 50 };
  const strokes = Array.from({ length: 30 }, (_, i): Stroke =>
    ({ kind: i % 3 ? "brush" : "erase", size: 5 + (i % 7), points: [i, 2 * i, 60 - i, i + 3] }));
  const painting = new Painting();
  const seen = strokes.map((_, i) => painting.over(null, strokes.slice(0, i + 1), size).segmentation.counts);
  for (let n = strokes.length; n > 0; n--) {
    expect(painting.over(null, strokes.slice(0, n), size).segmentation.counts).toBe(seen[n - 1]);
  }
});

test("a path in tenths of a pixel starts and ends where the pointer did, without points too near", () => {
  const path = new StrokePath({ kind: "brush", size: 10 }, { width: 100, height: 100 }, 2);
  for (const x of [10.03, 10.5, 11, 13, 13.2, 14.44]) path.add(imagePoint(x, 20));
  expect(path.finished()).toEqual({ kind: "brush", size: 10, points: [9.5, 19.5, 12.5, 19.5, 13.9, 19.5] });
});

test("a brush of one pixel follows pixel centres and leaves no gap", () => {
  const path = new StrokePath({ kind: "brush", size: 1 }, { width: 20, height: 20 }, 0.5);
  for (const [x, y] of [[2.9, 3.1], [5.2, 4.9], [9.9, 9.9]] as const) path.add(imagePoint(x, y));
  const stroke = path.finished();
  expect(stroke.points).toEqual([2, 3, 5, 4, 9, 9]);
  expect(specksOf(coverOf(stroke, { width: 20, height: 20 })).w).toBe(0);
});

test("holes are what the mask encloses, specks its small pieces", () => {
  const rows = ["0000000000", "0111110000", "0100010000", "0101010000", "0100010010", "0111110000", "0000000000"];
  const mask = bitmapOf(encodeMask(rows.join("").split("").map(Number), 7, 10));
  expect(holesOf(mask).pixels.reduce((n, pixel) => n + pixel, 0)).toBe(8);
  const specks = specksOf(mask);
  const found = Array.from(specks.pixels).flatMap((pixel, i) => (pixel ? [[specks.x + (i % specks.w), specks.y + Math.floor(i / specks.w)]] : []));
  expect(found).toEqual([[3, 3], [8, 4]]);
});

test("a gap at the image's edge or between corners is no hole", () => {
  const open = bitmapOf(encodeMask([1, 1, 1, 1, 0, 0, 1, 1, 1], 3, 3));
  expect(holesOf(open).w).toBe(0);
  const corners = bitmapOf(encodeMask([0, 1, 0, 1, 0, 1, 0, 1, 0], 3, 3));
  expect(holesOf(corners).pixels.reduce((n, pixel) => n + pixel, 0)).toBe(1);
});

test("which strokes add", () => {
  const kinds: Stroke[] = [
    { kind: "brush", size: 1, points: [] }, { kind: "erase", size: 1, points: [] }, { kind: "lasso", label: 1, points: [] },
    { kind: "lasso", label: 0, points: [] }, { kind: "fill_holes", counts: "" }, { kind: "remove_specks", counts: "" },
  ];
  expect(kinds.map(adds)).toEqual([true, false, true, false, true, false]);
});
