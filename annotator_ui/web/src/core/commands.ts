/**
 * What a person can do to an image, each with its inverse. A command changes the draft and the masks and
 * names the acts the server must hear of; it never touches the network itself.
 */
import type { AcceptBody, Prompt, Rle } from "../api/types";
import { type Draft, EMPTY_DRAFT, withPick, withPrompt, withoutLastPrompt } from "./draft";

export interface LocalMask {
  /** The page's own name for the mask; stays the same through deletion and restoration. */
  readonly localId: string;
  readonly segmentation: Rle;
  readonly bbox: readonly [number, number, number, number];
  readonly area: number;
  readonly colour: number;
  readonly predictedIou: number | null;
  readonly stabilityScore: number | null;
  readonly categoryId: number | null;
  readonly author: string | null;
  /** What was posted, so that a refused or restored mask can be posted again; null when it came from the server. */
  readonly body: AcceptBody | null;
}

export type Command =
  | { kind: "prompt"; prompt: Prompt }
  | { kind: "cycle"; from: number | null; to: number | null }
  | { kind: "clear"; draft: Draft }
  | { kind: "accept"; mask: LocalMask; draft: Draft }
  | { kind: "delete"; mask: LocalMask; index: number };

export interface Work {
  readonly draft: Draft;
  readonly masks: readonly LocalMask[];
}

/** An act for the server. The first acceptance posts the mask; redoing one restores the deleted mask. */
export type Act = { kind: "accept" | "delete" | "restore"; mask: LocalMask };

export interface Outcome {
  readonly work: Work;
  readonly act: Act | null;
}

export function apply(work: Work, command: Command, isRedo: boolean): Outcome {
  switch (command.kind) {
    case "prompt":
      return { work: { ...work, draft: withPrompt(work.draft, command.prompt) }, act: null };
    case "cycle":
      return { work: { ...work, draft: withPick(work.draft, command.to) }, act: null };
    case "clear":
      return { work: { ...work, draft: EMPTY_DRAFT }, act: null };
    case "accept":
      return {
        work: { draft: EMPTY_DRAFT, masks: [...work.masks, command.mask] },
        act: { kind: isRedo ? "restore" : "accept", mask: command.mask },
      };
    case "delete":
      return { work: without(work, command.mask), act: { kind: "delete", mask: command.mask } };
  }
}

export function revert(work: Work, command: Command): Outcome {
  const { work: before, act } = inverse(work, command);
  return { work: { ...before, draft: { ...before.draft, nUndos: before.draft.nUndos + 1 } }, act };
}

function inverse(work: Work, command: Command): Outcome {
  switch (command.kind) {
    case "prompt":
      return { work: { ...work, draft: withoutLastPrompt(work.draft) }, act: null };
    case "cycle":
      return { work: { ...work, draft: withPick(work.draft, command.from) }, act: null };
    case "clear":
      return { work: { ...work, draft: command.draft }, act: null };
    case "accept":
      return {
        work: { ...without(work, command.mask), draft: command.draft },
        act: { kind: "delete", mask: command.mask },
      };
    case "delete":
      return {
        work: { ...work, masks: work.masks.toSpliced(command.index, 0, command.mask) },
        act: { kind: "restore", mask: command.mask },
      };
  }
}

function without(work: Work, mask: LocalMask): Work {
  return { ...work, masks: work.masks.filter((other) => other.localId !== mask.localId) };
}
