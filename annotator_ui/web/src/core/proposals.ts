/** Masks the model drew beforehand (stage 2): what a person may do to them, as plain functions. */
import type { Proposal, ProposalState, Prompt, Rle } from "../api/types";
import type { Draft } from "./draft";

export interface LocalProposal {
  /** The page's name for it, apart from those of masks. */
  readonly localId: string;
  readonly id: number;
  readonly segmentation: Rle;
  readonly bbox: readonly [number, number, number, number];
  readonly area: number;
  readonly score: number;
  readonly prompts: readonly Prompt[];
  readonly chosen: readonly number[];
  readonly state: ProposalState;
}

export interface ProposalCounts {
  /** Those that become masks when the image is submitted. */
  readonly kept: number;
  readonly rejected: number;
  readonly corrected: number;
}

export function localProposalOf(proposal: Proposal): LocalProposal {
  const { id, segmentation, bbox, area, prompts, chosen, state } = proposal;
  const score = proposal.score ?? proposal.predicted_iou;
  return { localId: `proposal-${id}`, id, segmentation, bbox, area, score, prompts, chosen, state };
}

/** Best score first, as the list shows them. */
export function localProposalsOf(proposals: readonly Proposal[]): LocalProposal[] {
  return proposals.map(localProposalOf).sort((a, b) => b.score - a.score || a.id - b.id);
}

export function isBelow(proposal: LocalProposal, cutoff: number): boolean {
  return proposal.state === "open" && proposal.score < cutoff;
}

/** What "reject all below" rejects: everything open under the cutoff, but not the one being corrected just now. */
export function idsBelow(proposals: readonly LocalProposal[], cutoff: number, draft: Draft): number[] {
  return proposals.filter((one) => isBelow(one, cutoff) && one.id !== draft.proposalId).map((one) => one.id);
}

export function countsOf(proposals: readonly LocalProposal[]): ProposalCounts {
  const count = (state: ProposalState): number => proposals.filter((one) => one.state === state).length;
  return { kept: count("open"), rejected: count("rejected"), corrected: count("corrected") };
}

/** The same proposals with those of `ids` in `state`; the very same array when that changes nothing. */
export function withState(
  proposals: readonly LocalProposal[], ids: readonly number[], state: ProposalState,
): readonly LocalProposal[] {
  const chosen = new Set(ids);
  const changes = (one: LocalProposal): boolean => chosen.has(one.id) && one.state !== state;
  return proposals.some(changes) ? proposals.map((one) => (changes(one) ? { ...one, state } : one)) : proposals;
}

/** A mask begun where the proposal ended: its prompts and choices, so that further clicks refine it. */
export function draftFrom(proposal: LocalProposal, before: Draft): Draft {
  const picks = proposal.prompts.map((_, i) => proposal.chosen[i] ?? null);
  const { segmentation, bbox, area } = proposal;
  return { ...before, prompts: proposal.prompts, picks, base: { segmentation, bbox, area }, proposalId: proposal.id };
}
