import type { PathStroke } from "../api/types";
import type { ImagePoint, Size } from "./geometry";
import { MAX_OUTSIDE_PX } from "./strokes";

/** Few enough that a stroke always leaves room for others. */
const MAX_POINTS_OF_ONE = 5000;

/** A stroke while the pointer draws it: the points that matter, in tenths of a pixel. */
export class StrokePath {
  private readonly points: number[] = [];
  private skipped: [number, number] | null = null;

  /** `spacingPx`: a point nearer than this to the last one is left out, unless it is the end. */
  constructor(
    private readonly kind: Readonly<{ kind: "brush" | "erase"; size: number } | { kind: "lasso"; label: 0 | 1 }>,
    private readonly image: Size,
    private readonly spacingPx: number,
  ) {}

  /** The piece that the point adds, as a stroke of its own; null where it adds none. */
  add(at: ImagePoint): PathStroke | null {
    const point = this.rounded(at);
    const [x, y] = this.points.slice(-2);
    const isFar = x === undefined || y === undefined || Math.hypot(point[0] - x, point[1] - y) >= this.spacingPx;
    if (!isFar || this.points.length >= 2 * MAX_POINTS_OF_ONE) {
      this.skipped = point;
      return null;
    }
    return this.push(point);
  }

  /** The whole stroke; it ends where the pointer was last. */
  finished(): PathStroke {
    if (this.skipped) this.push(this.skipped);
    return this.strokeOf(this.points);
  }

  /** The whole stroke so far. */
  get path(): readonly number[] {
    return this.points;
  }

  get isLasso(): boolean {
    return this.kind.kind === "lasso";
  }

  /** The stroke without its points. */
  get plain(): PathStroke {
    return this.strokeOf([]);
  }

  private push(point: [number, number]): PathStroke | null {
    this.skipped = null;
    const last = this.points.slice(-2);
    if (last[0] === point[0] && last[1] === point[1]) return null;
    this.points.push(...point);
    return this.strokeOf([...last, ...point]);
  }

  private strokeOf(points: readonly number[]): PathStroke {
    return { ...this.kind, points: [...points] };
  }

  /** A brush of one pixel follows pixel centres, or it would slip between them. */
  private rounded({ x, y }: ImagePoint): [number, number] {
    const steps = "size" in this.kind && this.kind.size === 1 ? 1 : 10;
    const round = (u: number, side: number): number =>
      Math.round(Math.min(Math.max(u - 0.5, -MAX_OUTSIDE_PX), side + MAX_OUTSIDE_PX) * steps) / steps;
    return [round(x, this.image.width), round(y, this.image.height)];
  }
}
