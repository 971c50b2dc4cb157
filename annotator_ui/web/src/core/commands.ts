/**
 * What a person can do to an image, each with its inverse. A command changes the draft, the masks and the proposals
 * and names the acts the server must hear of; it never touches the network itself.
 */
import type { AcceptBody, Prompt, ProposalState, ReviewBody, Rle } from "../api/types";
import { type Draft, EMPTY_DRAFT, withPick, withPrompt, withoutLastPrompt } from "./draft";
import { type LocalProposal, draftFrom, withState } from "./proposals";

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
  /** The prefilled mask it corrects. */
  readonly proposalId: number | null;
  /** What was posted, so that a refused or restored mask can be posted again; null when it came from the server. */
  readonly body: AcceptBody | null;
}

export type Command =
  | { kind: "prompt"; prompt: Prompt }
  | { kind: "cycle"; from: number | null; to: number | null }
  | { kind: "clear"; draft: Draft }
  | { kind: "accept"; mask: LocalMask; draft: Draft }
  | { kind: "delete"; mask: LocalMask; index: number }
  | { kind: "correct"; proposal: LocalProposal; before: Draft }
  | { kind: "reject" | "unreject"; proposalIds: readonly number[] };

export interface Work {
  readonly draft: Draft;
  readonly masks: readonly LocalMask[];
  readonly proposals: readonly LocalProposal[];
}

export interface MaskAct {
  readonly kind: "accept" | "delete" | "restore";
  readonly mask: LocalMask;
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
    case "clear":
      return { work: { ...work, draft: EMPTY_DRAFT }, acts: [] };
    case "accept": {
      const masks = [...work.masks, command.mask];
      const accepted = { ...corrected(work, command.mask, "corrected"), draft: EMPTY_DRAFT, masks };
      return { work: accepted, acts: [{ kind: isRedo ? "restore" : "accept", mask: command.mask }] };
    }
    case "delete":
      return deletion(work, command.mask);
    case "correct":
      return { work: { ...work, draft: draftFrom(command.proposal, command.before) }, acts: [] };
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
    case "clear":
      return { work: { ...work, draft: command.draft }, acts: [] };
    case "accept":
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
