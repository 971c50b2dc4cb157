/**
 * Five canvases, one above the other, by how often they change: the picture, the prefilled masks, the accepted masks,
 * what the person is doing right now, and the brush's own outline, which moves with the pointer. Each is redrawn only when something it shows has changed, at most once a frame.
 */
import type { LabelState } from "../store";
import { objectsOf } from "../selection";
import type { LabelSession } from "../session";
import { type Rect, type Size, fitRect, grow, keepInSight, panBy, screenPoint, toImage, zoomAt } from "../geometry";
import type { PathStroke } from "../../api/types";
import type { StrokePath } from "../stroke_path";
import { drawCursor } from "./cursor_layer";
import { drawImage } from "./image_layer";
import { drawLive } from "./live_layer";
import { MaskLayer } from "./mask_layer";
import { PaintLayer } from "./paint_layer";
import { drawPrefilled } from "./prefilled_layer";

export interface Layers {
  readonly image: HTMLCanvasElement;
  readonly prefilled: HTMLCanvasElement;
  readonly masks: HTMLCanvasElement;
  readonly live: HTMLCanvasElement;
  readonly cursor: HTMLCanvasElement;
}

type LayerName = keyof Layers;

/** Which layer shows which part of the state. */
const SHOWN_BY: Readonly<Record<LayerName, readonly (keyof LabelState)[]>> = {
  image: ["image", "view"],
  prefilled: ["proposals", "cutoff", "draft", "drawn", "view", "areMasksHidden", "opacity", "selectedId", "image"],
  masks: ["masks", "view", "areMasksHidden", "opacity", "selectedId", "image"],
  live: ["drawn", "draft", "view", "image", "masks", "proposals", "selectedId", "areMasksHidden", "opacity", "isPredicting"],
  cursor: ["pointer", "tool", "brushSize", "view", "image"],
};

export class Stage {
  /** A box being dragged, in image pixels. */
  private drag: Rect | null = null;
  private stroke: StrokePath | null = null;
  private readonly paintLayer = new PaintLayer();
  private readonly dirty = new Set<LayerName>();
  private frame = 0;
  private size: Size = { width: 1, height: 1 };
  private readonly maskLayer = new MaskLayer();
  private readonly observer: ResizeObserver;
  private readonly unsubscribe: () => void;

  constructor(
    private readonly session: LabelSession,
    private readonly layers: Layers,
  ) {
    this.observer = new ResizeObserver(() => this.resize());
    this.observer.observe(layers.live);
    this.unsubscribe = session.store.subscribe((state, before) => this.onChange(state, before));
    this.resize();
  }

  stop(): void {
    this.unsubscribe();
    this.observer.disconnect();
    cancelAnimationFrame(this.frame);
  }

  fit(): void {
    const { image } = this.session.store.getState();
    if (!image) return;
    const view = fitRect({ x: 0, y: 0, w: image.width, h: image.height }, this.size);
    this.session.store.setState({ view, isFitted: true });
  }

  /** Bring the selected mask, or the one being made, close; with neither, the whole image. */
  zoomToObject(): void {
    const state = this.session.store.getState();
    const selected = objectsOf(state).find((one) => one.localId === state.selectedId);
    const box = selected?.bbox ?? state.drawn?.bbox;
    if (!box || box[2] === 0) return this.fit();
    const rect = { x: box[0], y: box[1], w: box[2], h: box[3] };
    const view = fitRect(grow(rect, 0.3 * Math.max(rect.w, rect.h)), this.size);
    this.session.store.setState({ view, isFitted: false });
  }

  zoomBy(factor: number, x = this.size.width / 2, y = this.size.height / 2): void {
    const { view, image } = this.session.store.getState();
    if (!image) return;
    const fitted = fitRect({ x: 0, y: 0, w: image.width, h: image.height }, this.size).scale;
    this.look(zoomAt(view, screenPoint(x, y), factor, Math.min(fitted / 2, 1)));
  }

  pan(dx: number, dy: number): void {
    this.look(panBy(this.session.store.getState().view, dx, dy));
  }

  setDrag(drag: Rect | null): void {
    this.drag = drag;
    this.redraw("live");
  }

  /** A stroke begins on the mask as it stands. */
  beginStroke(stroke: StrokePath): void {
    const { drawn, image } = this.session.store.getState();
    this.stroke = stroke;
    if (image && !stroke.isLasso) this.paintLayer.begin(drawn, image);
  }

  /** One piece more of the stroke that has begun. */
  paint(piece: PathStroke): void {
    this.paintLayer.add(piece);
    this.redraw("live", "cursor");
  }

  endStroke(): void {
    this.stroke = null;
    this.paintLayer.end();
    this.redraw("live", "cursor");
  }

  /** The image point under a pointer position given in client coordinates. */
  imagePointAt(clientX: number, clientY: number): ReturnType<typeof toImage> {
    const box = this.layers.live.getBoundingClientRect();
    return toImage(this.session.store.getState().view, screenPoint(clientX - box.left, clientY - box.top));
  }

  private look(view: LabelState["view"]): void {
    const { image } = this.session.store.getState();
    if (image) this.session.store.setState({ view: keepInSight(view, image, this.size), isFitted: false });
  }

  private onChange(state: LabelState, before: LabelState): void {
    for (const name of Object.keys(SHOWN_BY) as LayerName[]) {
      if (SHOWN_BY[name].some((key) => state[key] !== before[key])) this.redraw(name);
    }
    // Only when another mask is taken up or let go; the layer has nothing else of the draft.
    if (state.draft.supersedes !== before.draft.supersedes) this.redraw("masks");
    if (state.image !== before.image && state.image) this.fit();
  }

  private resize(): void {
    const { clientWidth: width, clientHeight: height } = this.layers.live;
    this.size = { width: Math.max(width, 1), height: Math.max(height, 1) };
    const ratio = window.devicePixelRatio || 1;
    for (const canvas of Object.values(this.layers) as HTMLCanvasElement[]) {
      canvas.width = Math.round(this.size.width * ratio);
      canvas.height = Math.round(this.size.height * ratio);
    }
    if (this.session.store.getState().isFitted) this.fit();
    this.redraw("image", "prefilled", "masks", "live", "cursor");
  }

  private redraw(...names: LayerName[]): void {
    names.forEach((name) => this.dirty.add(name));
    this.frame ||= requestAnimationFrame(() => this.paintLayers());
  }

  private paintLayers(): void {
    this.frame = 0;
    const state = this.session.store.getState();
    const ratio = window.devicePixelRatio || 1;
    for (const name of this.dirty) {
      const context = this.layers[name].getContext("2d");
      if (!context) continue;
      context.setTransform(1, 0, 0, 1, 0, 0);
      context.clearRect(0, 0, context.canvas.width, context.canvas.height);
      if (!state.image) continue;
      context.setTransform(ratio, 0, 0, ratio, 0, 0);
      if (name === "image") drawImage(context, state.image, state.view);
      if (name === "prefilled") drawPrefilled(context, state);
      if (name === "masks") this.maskLayer.draw(context, state);
      if (name === "live") drawLive(context, state, this.drag, this.paintLayer);
      if (name === "cursor") drawCursor(context, state, this.stroke?.isLasso ? this.stroke.path : null);
    }
    this.dirty.clear();
  }
}
