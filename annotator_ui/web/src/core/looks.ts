import type { LabelStore, Tool } from "./store";
import { MAX_SIZE_PX } from "./strokes";

/** What actions ask of the canvas; the session itself knows nothing of its size. */
export interface Viewport {
  fit(): void;
  zoomToObject(): void;
  zoomBy(factor: number): void;
}

/** A step of the brush size, at least one pixel. */
const SIZE_FACTOR = 1.2;

/** What changes the look of the page and the tool in hand, and no mask. */
export class Looks {
  private viewport: Viewport | null = null;

  constructor(private readonly store: LabelStore) {}

  attach(viewport: Viewport | null): void {
    this.viewport = viewport;
  }

  look(how: (viewport: Viewport) => void): void {
    if (this.viewport) how(this.viewport);
  }

  setTool(tool: Tool): void {
    this.store.setState({ tool });
  }

  setBrushSize(size: number): void {
    this.store.setState({ brushSize: Math.min(Math.max(Math.round(size), 1), MAX_SIZE_PX) });
  }

  stepBrushSize(step: 1 | -1): void {
    const { brushSize } = this.store.getState();
    const next = Math.round(step > 0 ? brushSize * SIZE_FACTOR : brushSize / SIZE_FACTOR);
    this.setBrushSize(next === brushSize ? brushSize + step : next);
  }

  toggleMasks(): void {
    this.store.setState((state) => ({ areMasksHidden: !state.areMasksHidden }));
  }

  setOpacity(opacity: number): void {
    this.store.setState({ opacity: Math.min(Math.max(opacity, 0), 1) });
  }
}
