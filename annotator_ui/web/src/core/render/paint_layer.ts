import type { PathStroke } from "../../api/types";
import { bitmapFor } from "../bitmaps";
import type { Size, View } from "../geometry";
import type { Bitmap } from "../mask";
import type { Region } from "../painting";
import { CANDIDATE } from "../palette";
import { adds, coverOf } from "../strokes";
import { tint } from "./mask_layer";

/**
 * The mask being made while a stroke runs over it, in image pixels. A move of the pointer changes the few pixels it
 * covers; the mask is encoded only when the stroke has ended.
 */
export class PaintLayer {
  private readonly canvas = document.createElement("canvas");
  private readonly context = this.canvas.getContext("2d");
  private readonly piece = document.createElement("canvas");
  isPainting = false;

  begin(drawn: Region | null, image: Size): void {
    this.canvas.width = image.width;
    this.canvas.height = image.height;
    this.isPainting = true;
    if (drawn) this.lay(bitmapFor(drawn.segmentation), "source-over");
  }

  add(stroke: PathStroke): void {
    if (this.isPainting) this.lay(coverOf(stroke, this.canvas), adds(stroke) ? "source-over" : "destination-out");
  }

  /** Gives the memory back as well: a large picture has a large canvas. */
  end(): void {
    this.isPainting = false;
    this.canvas.width = this.canvas.height = 0;
  }

  draw(context: CanvasRenderingContext2D, view: View, opacity: number): void {
    context.globalAlpha = Math.max(opacity, 0.25);
    context.imageSmoothingEnabled = view.scale < 2;
    context.drawImage(this.canvas, view.tx, view.ty, this.canvas.width * view.scale, this.canvas.height * view.scale);
    context.globalAlpha = 1;
  }

  private lay(cover: Bitmap, how: GlobalCompositeOperation): void {
    if (cover.w === 0 || !this.context) return;
    this.piece.width = cover.w;
    this.piece.height = cover.h;
    this.piece.getContext("2d")?.putImageData(tint(cover, CANDIDATE), 0, 0);
    this.context.globalCompositeOperation = how;
    this.context.drawImage(this.piece, cover.x, cover.y);
  }
}
