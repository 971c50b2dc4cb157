import type { Command } from "./commands";
import { countsOf, idsBelow } from "./proposals";
import type { LabelStore } from "./store";

/** A press of a key moves the score slider by this much. */
export const CUTOFF_STEP = 0.05;

/** What a person does to prefilled masks other than drawing: the score slider, rejecting, bringing back. */
export class Review {
  constructor(
    private readonly store: LabelStore,
    private readonly perform: (command: Command) => void,
  ) {}

  /** The slider's lower end: below it the detector prefilled nothing. */
  get lowest(): number {
    return this.store.getState().assignment?.prefill?.threshold ?? 0;
  }

  setCutoff(score: number): void {
    this.store.setState({ cutoff: Math.min(Math.max(score, this.lowest), 1) });
  }

  moveCutoff(step: number): void {
    this.setCutoff(this.store.getState().cutoff + step);
  }

  /** One command and one request, however many there are; one undo brings them all back. */
  rejectBelow(): void {
    const { proposals, cutoff, draft } = this.store.getState();
    this.reject(idsBelow(proposals, cutoff, draft));
  }

  reject(proposalIds: readonly number[]): void {
    if (this.isOpen() && proposalIds.length > 0) this.perform({ kind: "reject", proposalIds });
  }

  bringBack(proposalIds: readonly number[]): void {
    if (this.isOpen() && proposalIds.length > 0) this.perform({ kind: "unreject", proposalIds });
  }

  private isOpen(): boolean {
    const { phase, isSubmitting } = this.store.getState();
    return phase === "ready" && !isSubmitting;
  }
}

/** What submitting will make of the prefilled masks, in words; null where there are none. */
export function sayCounts(proposals: Parameters<typeof countsOf>[0]): string | null {
  if (proposals.length === 0) return null;
  const { kept, rejected, corrected } = countsOf(proposals);
  return `${kept} kept, ${rejected} rejected, ${corrected} corrected`;
}
