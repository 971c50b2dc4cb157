import type { Assignment } from "../api/types";
import type { ActiveClock } from "./clock";
import type { Command } from "./commands";
import type { Draft } from "./draft";
import { isBegun } from "./draft";
import { type History, emptyHistory } from "./history";
import { serverLocalId } from "./masks";
import type { LabelStore } from "./store";

const KEY = "maskloop.draft";

interface Kept {
  readonly assignmentId: number;
  readonly modelId: number;
  readonly draft: Draft;
  readonly supersededId: number | null;
  /** The clicks and strokes that undo walks back through. */
  readonly done: readonly Command[];
}

/** Keeps the mask being made in this tab, so that reloading the page loses no click and no stroke. */
export class DraftKeeper {
  constructor(
    private readonly store: LabelStore,
    private readonly clock: ActiveClock,
    private readonly idOf: (localId: string) => number | null,
  ) {}

  watch(signal: AbortSignal): void {
    const stop = this.store.subscribe((state, before) => {
      if (state.draft !== before.draft) this.write();
    });
    signal.addEventListener("abort", stop);
  }

  /** The draft kept for this assignment and its steps for undo; null when there is none. */
  read(assignment: Assignment): { draft: Draft; history: History<Command> } | null {
    const kept = parsed();
    if (kept?.assignmentId !== assignment.id || kept.modelId !== assignment.model.id) return null;
    const isThere = assignment.masks.some((mask) => mask.id === kept.supersededId);
    const supersedes = kept.supersededId !== null && isThere ? serverLocalId(kept.supersededId) : null;
    return { draft: { ...kept.draft, supersedes }, history: { ...emptyHistory<Command>(), done: kept.done } };
  }

  private write(): void {
    const { draft, assignment, history } = this.store.getState();
    try {
      if (!assignment || !isBegun(draft)) return sessionStorage.removeItem(KEY);
      const supersededId = draft.supersedes === null ? null : this.idOf(draft.supersedes);
      const kept: Kept = {
        assignmentId: assignment.id, modelId: assignment.model.id, supersededId, done: lastSteps(history),
        draft: { ...draft, activeMs: this.clock.readMs() },
      };
      sessionStorage.setItem(KEY, JSON.stringify(kept));
    } catch {
      // Storage is full or forbidden: the draft then lives as long as the page, as it would without us.
    }
  }
}

/** The clicks and strokes since the last step that concerns more than the draft's own list. */
function lastSteps({ done }: History<Command>): Command[] {
  const isStep = ({ kind }: Command): boolean => kind === "prompt" || kind === "cycle" || kind === "stroke";
  return done.slice(done.findLastIndex((command) => !isStep(command)) + 1);
}

function parsed(): Kept | null {
  try {
    const kept = JSON.parse(sessionStorage.getItem(KEY) ?? "null") as Kept | null;
    return kept && Array.isArray(kept.draft.prompts) && Array.isArray(kept.draft.strokes) ? kept : null;
  } catch {
    return null;
  }
}
