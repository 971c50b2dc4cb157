/**
 * What a person can do to an image, each with its inverse. A command changes the draft, the masks and the proposals
 * and names the acts the server must hear of; it never touches the network itself.
 */
import type { AcceptBody, Prompt, ProposalState, ReviewBody, Stroke } from "../api/types";
import { type Draft, EMPTY_DRAFT, withPick, withPrompt, withStroke, withoutLastPrompt, withoutLastStroke } from "./draft";
import type { Region } from "./painting";
import { type LocalProposal, withState } from "./proposals";

export interface LocalMask extends Region {
  /** The page's own name for the mask; stays the same through deletion and restoration. */
  readonly localId: string;
  readonly colour: number;
  readonly predictedIou: number | null;
  readonly stabilityScore: number | null;
  readonly categoryId: number | null;
  readonly author: string | null;
  /** The prefilled mask it corrects. */
  readonly proposalId: number | null;
  /** How it came about, so that it can be taken up again. */
  readonly making: Making;
  /** The accepted mask whose place it took, by localId. */
  readonly supersedes: string | null;
  /** What was posted, so that a refused or restored mask can be posted again; null when it came from the server. */
  readonly body: AcceptBody | null;
}

export interface Making {
  readonly prompts: readonly Prompt[];
  readonly chosen: readonly number[];
  readonly strokes: readonly Stroke[];
}

export type Command =
  | { kind: "prompt"; prompt: Prompt }
  | { kind: "cycle"; from: number | null; to: number | null }
  | { kind: "stroke"; stroke: Stroke }
  | { kind: "clear"; draft: Draft }
  | { kind: "accept"; mask: LocalMask; draft: Draft; replaced: LocalMask | null }
  | { kind: "delete"; mask: LocalMask; index: number }
  | { kind: "correct"; after: Draft; before: Draft }
  | { kind: "reject" | "unreject"; proposalIds: readonly number[] };

export interface Work {
  readonly draft: Draft;
  readonly masks: readonly LocalMask[];
  readonly proposals: readonly LocalProposal[];
}

export interface MaskAct {
  readonly kind: "accept" | "delete" | "restore";
  readonly mask: LocalMask;
  /** The correction whose place a restored mask takes, or the other way round. */
  readonly instead?: LocalMask | null;
}

export interface ReviewAct {
  readonly kind: ReviewBody["act"];
  readonly proposalIds: readonly number[];
}

/** An act for the server. The first acceptance posts the mask; redoing one restores the deleted mask. */
export type Act = MaskAct | ReviewAct;

export interface Outcome {
  readonly work: Work;
  readonly acts: readonly Act[];
}

/** The server takes this many proposals in one request. */
const MAX_REVIEWED = 500;

export function apply(work: Work, command: Command, isRedo: boolean): Outcome {
  switch (command.kind) {
    case "prompt":
      return { work: { ...work, draft: withPrompt(work.draft, command.prompt) }, acts: [] };
    case "cycle":
      return { work: { ...work, draft: withPick(work.draft, command.to) }, acts: [] };
    case "stroke":
      return { work: { ...work, draft: withStroke(work.draft, command.stroke) }, acts: [] };
    case "clear":
      return { work: { ...work, draft: EMPTY_DRAFT }, acts: [] };
    case "accept": {
      const { mask, replaced } = command;
      const masks = replaced ? exchanged(work.masks, replaced, mask) : [...work.masks, mask];
      const accepted = { ...corrected(work, mask, "corrected"), draft: EMPTY_DRAFT, masks };
      return { work: accepted, acts: [{ kind: isRedo ? "restore" : "accept", mask, instead: replaced }] };
    }
    case "delete":
      return deletion(work, command.mask);
    case "correct":
      return { work: { ...work, draft: command.after }, acts: [] };
    case "reject":
    case "unreject":
      return reviewed(work, command.kind, command.proposalIds);
  }
}

export function revert(work: Work, command: Command): Outcome {
  const { work: before, acts } = inverse(work, command);
  return { work: { ...before, draft: { ...before.draft, nUndos: before.draft.nUndos + 1 } }, acts };
}

function inverse(work: Work, command: Command): Outcome {
  switch (command.kind) {
    case "prompt":
      return { work: { ...work, draft: withoutLastPrompt(work.draft) }, acts: [] };
    case "cycle":
      return { work: { ...work, draft: withPick(work.draft, command.from) }, acts: [] };
    case "stroke":
      return { work: { ...work, draft: withoutLastStroke(work.draft) }, acts: [] };
    case "clear":
      return { work: { ...work, draft: command.draft }, acts: [] };
    case "accept":
      if (command.replaced) return reinstated(work, command.mask, command.replaced, command.draft);
      return {
        work: { ...without(corrected(work, command.mask, "open"), command.mask), draft: command.draft },
        acts: [{ kind: "delete", mask: command.mask }],
      };
    case "delete":
      return restoration(work, command.mask, command.index);
    case "correct":
      return { work: { ...work, draft: command.before }, acts: [] };
    case "reject":
      return reviewed(work, "unreject", command.proposalIds);
    case "unreject":
      return reviewed(work, "reject", command.proposalIds);
  }
}

/** The mask that was corrected stands again; the server hears of it as one act. */
function reinstated(work: Work, mask: LocalMask, replaced: LocalMask, draft: Draft): Outcome {
  return {
    work: { ...work, draft, masks: exchanged(work.masks, mask, replaced) },
    acts: [{ kind: "restore", mask: replaced, instead: mask }],
  };
}

function exchanged(masks: readonly LocalMask[], old: LocalMask, mask: LocalMask): LocalMask[] {
  return masks.map((other) => (other.localId === old.localId ? mask : other));
}

/** Who deletes the correction of a prefilled mask wants neither of the two. */
function deletion(work: Work, mask: LocalMask): Outcome {
  return {
    work: without(corrected(work, mask, "rejected"), mask),
    acts: [{ kind: "delete", mask }, ...reviewsOf(work, mask, "reject")],
  };
}

function restoration(work: Work, mask: LocalMask, index: number): Outcome {
  return {
    work: { ...corrected(work, mask, "corrected"), masks: work.masks.toSpliced(index, 0, mask) },
    acts: [...reviewsOf(work, mask, "unreject"), { kind: "restore", mask }],
  };
}

function reviewed(work: Work, kind: ReviewBody["act"], proposalIds: readonly number[]): Outcome {
  const acts: ReviewAct[] = [];
  for (let i = 0; i < proposalIds.length; i += MAX_REVIEWED) {
    acts.push({ kind, proposalIds: proposalIds.slice(i, i + MAX_REVIEWED) });
  }
  const state = kind === "reject" ? "rejected" : "open";
  return { work: { ...work, proposals: withState(work.proposals, proposalIds, state) }, acts };
}

/** The proposal that `mask` corrects, if any, in another state. */
function corrected(work: Work, { proposalId }: LocalMask, state: ProposalState): Work {
  return proposalId === null ? work : { ...work, proposals: withState(work.proposals, [proposalId], state) };
}

function reviewsOf(work: Work, { proposalId }: LocalMask, kind: ReviewBody["act"]): ReviewAct[] {
  const isHere = work.proposals.some((one) => one.id === proposalId);
  return isHere && proposalId !== null ? [{ kind, proposalIds: [proposalId] }] : [];
}

function without(work: Work, mask: LocalMask): Work {
  return { ...work, masks: work.masks.filter((other) => other.localId !== mask.localId) };
}
