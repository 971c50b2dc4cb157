import { type StoreApi, createStore } from "zustand/vanilla";

import type { Assignment, DatasetDetail } from "../api/types";
import type { Command, LocalMask } from "./commands";
import { type Draft, EMPTY_DRAFT, type Shown } from "./draft";
import type { ImagePoint, View } from "./geometry";
import { type History, emptyHistory } from "./history";
import type { OutboxState } from "./outbox";
import type { Region } from "./painting";
import type { LocalProposal } from "./proposals";

export type Tool = "prompt" | "select" | "pan" | PaintTool;
export type PaintTool = "brush" | "erase" | "lasso";

const PAINT_TOOLS: readonly Tool[] = ["brush", "erase", "lasso"];

export function isPaintTool(tool: Tool): tool is PaintTool {
  return PAINT_TOOLS.includes(tool);
}

export interface Toast {
  readonly id: number;
  readonly tone: "info" | "error";
  readonly text: string;
}

/** loading: asking for an image; empty: there is none now (`reason` says why); failed: the image could not be had. */
export type Phase = "loading" | "ready" | "empty" | "failed";

export interface LabelState {
  readonly dataset: DatasetDetail | null;
  readonly phase: Phase;
  readonly reason: string | null;
  readonly assignment: Assignment | null;
  readonly image: ImageBitmap | null;

  readonly draft: Draft;
  readonly masks: readonly LocalMask[];
  /** What the model drew beforehand, with the best score first. */
  readonly proposals: readonly LocalProposal[];
  /** Prefilled masks with a lower score fade, and can be rejected at once. */
  readonly cutoff: number;
  readonly history: History<Command>;
  /** What the prompts gave. */
  readonly shown: Shown | null;
  /** The mask being made as it stands, strokes and all. */
  readonly drawn: Region | null;
  readonly isPredicting: boolean;
  readonly latencyMs: number | null;

  readonly selectedId: string | null;
  readonly categoryId: number | null;
  readonly tool: Tool;
  /** Diameter in image pixels. */
  readonly brushSize: number;
  readonly view: View;
  /** The whole image is shown; it stays so when the window changes. */
  readonly isFitted: boolean;
  readonly pointer: ImagePoint | null;
  readonly areMasksHidden: boolean;
  readonly opacity: number;

  readonly outbox: OutboxState;
  /** Masks the server refused, by localId, with its sentence. */
  readonly refusals: ReadonlyMap<string, string>;
  readonly isSubmitting: boolean;
  readonly isSignedOut: boolean;
  readonly isHelpOpen: boolean;
  readonly isSkipOpen: boolean;
  readonly isGuideOpen: boolean;
  readonly toasts: readonly Toast[];
}

export type LabelStore = StoreApi<LabelState>;

/** What starts anew with each image. */
export const FRESH_WORK = {
  draft: EMPTY_DRAFT,
  masks: [] as readonly LocalMask[],
  proposals: [] as readonly LocalProposal[],
  cutoff: 0,
  history: emptyHistory<Command>(),
  shown: null,
  drawn: null,
  isPredicting: false,
  selectedId: null,
  refusals: new Map<string, string>() as ReadonlyMap<string, string>,
  isFitted: true,
  isSkipOpen: false,
} as const;

export function createLabelStore(): LabelStore {
  return createStore<LabelState>(() => ({
    ...FRESH_WORK,
    dataset: null,
    phase: "loading",
    reason: null,
    assignment: null,
    image: null,
    latencyMs: null,
    categoryId: null,
    tool: "prompt",
    brushSize: 20,
    view: { scale: 1, tx: 0, ty: 0 },
    pointer: null,
    areMasksHidden: false,
    opacity: 0.5,
    outbox: { nPending: 0, isStuck: false },
    isSubmitting: false,
    isSignedOut: false,
    isHelpOpen: false,
    isGuideOpen: false,
    toasts: [],
  }));
}

/** What the bottom line says about the work's safety. */
export function saveStateOf(state: Pick<LabelState, "outbox" | "refusals">): "saved" | "saving" | "unsaved" {
  if (state.refusals.size > 0 || state.outbox.isStuck) return "unsaved";
  return state.outbox.nPending > 0 ? "saving" : "saved";
}
