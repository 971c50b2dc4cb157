import { expect, test } from "vitest";

import {
  fitRect, fromPixelCentres, imagePoint, keepInSight, panBy, screenPoint, toImage, toPixelCentres, toScreen, zoomAt,
} from "../../src/core/geometry";

const IMAGE = { width: 800, height: 600 };
const CANVAS = { width: 1000, height: 500 };

test("a point goes to the screen and back to the same place", () => {
  const view = { scale: 2.5, tx: -31, ty: 12 };
  const there = toScreen(view, imagePoint(120.25, 7));
  expect(toImage(view, there)).toEqual({ x: 120.25, y: 7 });
});

test("fitting shows the whole image centred with a margin", () => {
  const view = fitRect({ x: 0, y: 0, w: 800, h: 600 }, CANVAS, 25);
  expect(view.scale).toBeCloseTo(0.75);
  expect(toScreen(view, imagePoint(400, 300))).toEqual({ x: 500, y: 250 });
  expect(toScreen(view, imagePoint(0, 0)).y).toBeCloseTo(25);
});

test("zooming keeps the image point under the pointer", () => {
  const view = { scale: 1, tx: 10, ty: 20 };
  const at = screenPoint(321, 123);
  const before = toImage(view, at);
  const after = toImage(zoomAt(view, at, 3.7, 0.1), at);
  expect(after.x).toBeCloseTo(before.x);
  expect(after.y).toBeCloseTo(before.y);
});

test("zoom stops at its ends", () => {
  const view = { scale: 1, tx: 0, ty: 0 };
  expect(zoomAt(view, screenPoint(0, 0), 1e9, 0.1).scale).toBe(64);
  expect(zoomAt(view, screenPoint(0, 0), 1e-9, 0.1).scale).toBe(0.1);
});

test("panning cannot lose the image", () => {
  const view = keepInSight(panBy({ scale: 1, tx: 0, ty: 0 }, 99_999, -99_999), IMAGE, CANVAS);
  const corner = toScreen(view, imagePoint(0, IMAGE.height));
  expect(corner.x).toBeLessThan(CANVAS.width);
  expect(corner.y).toBeGreaterThan(0);
});

test("prompts are counted from pixel centres, inside the image, in hundredths", () => {
  expect(toPixelCentres(imagePoint(10.5, 20.12345), IMAGE)).toEqual({ x: 10, y: 19.62 });
  expect(toPixelCentres(imagePoint(0.1, 600), IMAGE)).toEqual({ x: 0, y: 599 });
  expect(fromPixelCentres(10, 19.62)).toEqual({ x: 10.5, y: 20.12 });
});
