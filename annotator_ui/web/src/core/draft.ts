/**
 * The mask being made: its prompts in order and, for each, which candidate was in force when the next one came; and the
 * strokes laid over what the prompts give, which they outlast whatever is clicked later.
 * Predictions are kept by the exact prompts and choices that led to them, so an answer can only ever be
 * shown for the clicks it answers, and undo brings an old answer back without asking again.
 */
import type { Candidate, Prediction, Prompt, Stroke } from "../api/types";
import type { Region } from "./painting";

export interface Draft {
  readonly prompts: readonly Prompt[];
  /** picks[i]: the candidate a person chose after prompt i, or null for the model's best. */
  readonly picks: readonly (number | null)[];
  readonly strokes: readonly Stroke[];
  /** The mask it was taken up from: it lies under the strokes until the prompts, if there are any, are answered. */
  readonly base: Region | null;
  /** The accepted mask it takes the place of, by localId. */
  readonly supersedes: string | null;
  readonly activeMs: number;
  readonly nUndos: number;
  /** The prefilled mask it corrects, by the server's id. */
  readonly proposalId: number | null;
}

export type Predictions = ReadonlyMap<string, Prediction>;

export const EMPTY_DRAFT: Draft = {
  prompts: [], picks: [], strokes: [], base: null, supersedes: null, activeMs: 0, nUndos: 0, proposalId: null,
};

/** Whether there is anything to accept or to clear. */
export function isBegun({ prompts, strokes, base }: Draft): boolean {
  return prompts.length > 0 || strokes.length > 0 || base !== null;
}

export function keyOf(prompts: readonly Prompt[], chosen: readonly number[]): string {
  return JSON.stringify([prompts, chosen]);
}

/**
 * The choices in force after each of the first `n` prompts, or null while the first answer is still missing.
 * Only one prompt alone has several candidates; after it there is one, and its index is 0.
 */
export function chosenOf(draft: Draft, known: Predictions, n: number): number[] | null {
  const chosen: number[] = [];
  for (let i = 0; i < n; i++) {
    const best = known.get(keyOf(draft.prompts.slice(0, i + 1), chosen))?.best;
    const choice = draft.picks[i] ?? best ?? (i > 0 ? 0 : null);
    if (choice === null) return null;
    chosen.push(choice);
  }
  return chosen;
}

/** What to ask the model so that step `n` can be shown; null when an earlier answer must come first. */
export function requestFor(draft: Draft, known: Predictions, n: number): { prompts: Prompt[]; chosen: number[] } | null {
  if (n < 1 || n > draft.prompts.length) return null;
  const chosen = chosenOf(draft, known, n - 1);
  return chosen ? { prompts: draft.prompts.slice(0, n), chosen } : null;
}

function keyAt(draft: Draft, known: Predictions, n: number): string | null {
  const request = requestFor(draft, known, n);
  return request && keyOf(request.prompts, request.chosen);
}

/** What stands on the screen: the step shown (number of prompts), its prediction and the chosen candidate. */
export interface Shown {
  readonly key: string;
  readonly nPrompts: number;
  readonly prediction: Prediction;
  readonly choice: number;
  readonly candidate: Candidate;
}

function shownAt(draft: Draft, known: Predictions, n: number): Shown | null {
  const key = keyAt(draft, known, n);
  const prediction = key === null ? undefined : known.get(key);
  if (key === null || !prediction) return null;
  const choice = draft.picks[n - 1] ?? prediction.best;
  const candidate = prediction.candidates[choice];
  return candidate ? { key, nPrompts: n, prediction, choice, candidate } : null;
}

/**
 * What to show now: the answer to the last prompt, or, while that is awaited, what was already on the screen if it
 * belongs to this draft. An answer to an older click that arrives late is therefore never drawn.
 */
export function nextShown(draft: Draft, known: Predictions, before: Shown | null): Shown | null {
  const last = shownAt(draft, known, draft.prompts.length);
  if (last || !before || before.nPrompts > draft.prompts.length) return last;
  const still = shownAt(draft, known, before.nPrompts);
  return still?.key === before.key ? still : null;
}

export function isSettled(draft: Draft, shown: Shown | null): shown is Shown {
  return shown !== null && shown.nPrompts === draft.prompts.length;
}

export function withPrompt(draft: Draft, prompt: Prompt): Draft {
  return { ...draft, prompts: [...draft.prompts, prompt], picks: [...draft.picks, null] };
}

export function withoutLastPrompt(draft: Draft): Draft {
  return { ...draft, prompts: draft.prompts.slice(0, -1), picks: draft.picks.slice(0, -1) };
}

export function withStroke(draft: Draft, stroke: Stroke): Draft {
  return { ...draft, strokes: [...draft.strokes, stroke] };
}

export function withoutLastStroke(draft: Draft): Draft {
  return { ...draft, strokes: draft.strokes.slice(0, -1) };
}

export function withPick(draft: Draft, pick: number | null): Draft {
  return { ...draft, picks: [...draft.picks.slice(0, -1), pick] };
}

export function hasBox(draft: Draft): boolean {
  return draft.prompts.some((prompt) => prompt.kind === "box");
}
