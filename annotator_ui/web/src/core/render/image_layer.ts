import type { View } from "../geometry";

/** Above this zoom single pixels are shown as squares; below it the browser smooths. */
const CRISP_FROM = 2;

export function drawImage(context: CanvasRenderingContext2D, image: ImageBitmap, view: View): void {
  context.imageSmoothingEnabled = view.scale < CRISP_FROM;
  context.imageSmoothingQuality = "high";
  context.drawImage(image, view.tx, view.ty, image.width * view.scale, image.height * view.scale);
}
