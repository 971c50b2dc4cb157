/**
 * Two coordinate systems that must never be mixed up, told apart by type.
 * Image: continuous pixels of the stored image, (0, 0) at the outer corner of the first pixel.
 * Screen: CSS pixels from the canvas's top left corner.
 */
declare const system: unique symbol;

export type ImagePoint = Readonly<{ x: number; y: number }> & { readonly [system]?: "image" };
export type ScreenPoint = Readonly<{ x: number; y: number }> & { readonly [system]?: "screen" };

/** screen = image * scale + (tx, ty). */
export interface View {
  readonly scale: number;
  readonly tx: number;
  readonly ty: number;
}

export interface Size {
  readonly width: number;
  readonly height: number;
}

export interface Rect {
  readonly x: number;
  readonly y: number;
  readonly w: number;
  readonly h: number;
}

const MAX_SCALE = 64;
const FIT_MARGIN_PX = 24;

export function imagePoint(x: number, y: number): ImagePoint {
  return { x, y };
}

export function screenPoint(x: number, y: number): ScreenPoint {
  return { x, y };
}

export function toScreen(view: View, point: ImagePoint): ScreenPoint {
  return screenPoint(point.x * view.scale + view.tx, point.y * view.scale + view.ty);
}

export function toImage(view: View, point: ScreenPoint): ImagePoint {
  return imagePoint((point.x - view.tx) / view.scale, (point.y - view.ty) / view.scale);
}

/** Show `rect` (image pixels) whole and centred in `canvas` (CSS pixels). */
export function fitRect(rect: Rect, canvas: Size, margin = FIT_MARGIN_PX): View {
  const room = { w: Math.max(canvas.width - 2 * margin, 1), h: Math.max(canvas.height - 2 * margin, 1) };
  const scale = Math.min(room.w / Math.max(rect.w, 1), room.h / Math.max(rect.h, 1), MAX_SCALE);
  return {
    scale,
    tx: canvas.width / 2 - (rect.x + rect.w / 2) * scale,
    ty: canvas.height / 2 - (rect.y + rect.h / 2) * scale,
  };
}

/** Zoom by `factor`; the image point under `at` stays where it is. */
export function zoomAt(view: View, at: ScreenPoint, factor: number, minScale: number): View {
  const scale = Math.min(Math.max(view.scale * factor, minScale), MAX_SCALE);
  const ratio = scale / view.scale;
  return { scale, tx: at.x - (at.x - view.tx) * ratio, ty: at.y - (at.y - view.ty) * ratio };
}

export function panBy(view: View, dx: number, dy: number): View {
  return { scale: view.scale, tx: view.tx + dx, ty: view.ty + dy };
}

/** Keep at least a corner of the image in sight, so that it can never be lost by panning. */
export function keepInSight(view: View, image: Size, canvas: Size, keep = 64): View {
  const clamp = (t: number, length: number, room: number): number =>
    Math.min(Math.max(t, keep - length), room - keep);
  return {
    scale: view.scale,
    tx: clamp(view.tx, image.width * view.scale, canvas.width),
    ty: clamp(view.ty, image.height * view.scale, canvas.height),
  };
}

export function isInside(point: ImagePoint, image: Size): boolean {
  return point.x >= 0 && point.y >= 0 && point.x < image.width && point.y < image.height;
}

/**
 * Prompt coordinates, where whole numbers are pixel centres (the prompt encoder adds 0.5, as SAM's does).
 * Rounded to hundredths of a pixel so that the stored JSON stays short and replays exactly.
 */
export function toPixelCentres(point: ImagePoint, image: Size): { x: number; y: number } {
  const round = (u: number, length: number): number =>
    Math.round(Math.min(Math.max(u - 0.5, 0), length - 1) * 100) / 100;
  return { x: round(point.x, image.width), y: round(point.y, image.height) };
}

export function fromPixelCentres(x: number, y: number): ImagePoint {
  return imagePoint(x + 0.5, y + 0.5);
}

/** The rectangle spanned by two corners given in any order. */
export function spanOf(a: ImagePoint, b: ImagePoint): Rect {
  return { x: Math.min(a.x, b.x), y: Math.min(a.y, b.y), w: Math.abs(a.x - b.x), h: Math.abs(a.y - b.y) };
}

export function grow(rect: Rect, by: number): Rect {
  return { x: rect.x - by, y: rect.y - by, w: rect.w + 2 * by, h: rect.h + 2 * by };
}

export function overlaps(a: Rect, b: Rect): boolean {
  return a.x < b.x + b.w && b.x < a.x + a.w && a.y < b.y + b.h && b.y < a.y + a.h;
}
