import type { ApiClient } from "../api/client";
import type { Assignment, Mask } from "../api/types";
import type { MaskAct, ReviewAct } from "./commands";
import { newUuid, serverLocalId } from "./masks";
import type { Posting } from "./outbox";
import { withState } from "./proposals";
import type { LabelStore } from "./store";
import type { Toasts } from "./toasts";

/** Turns acts into requests, and remembers which server id each mask of the page has at the moment. */
export class Poster {
  private readonly maskIds = new Map<string, number>();
  /** Reviews the server refused so far; whoever waits to submit looks whether it grew. */
  nRefusedReviews = 0;

  constructor(
    private readonly api: ApiClient,
    private readonly store: LabelStore,
    private readonly toasts: Toasts,
  ) {}

  begin(assignment: Assignment): void {
    this.maskIds.clear();
    for (const mask of assignment.masks) this.maskIds.set(serverLocalId(mask.id), mask.id);
  }

  /** The server's id of a mask of the page, if it has one by now. */
  idOf(localId: string): number | null {
    return this.maskIds.get(localId) ?? null;
  }

  /** The act under a name of its own, kept through every repetition. */
  postingOf(assignmentId: number, act: Posting["act"]): Posting {
    const clientId = act.kind === "accept" && act.mask.body ? act.mask.body.client_id : newUuid();
    return { assignmentId, clientId, act };
  }

  async send({ assignmentId, clientId, act }: Posting): Promise<void> {
    if ("mask" in act) return this.sendMask(assignmentId, clientId, act);
    await this.api.reviewProposals(assignmentId, { client_id: clientId, act: act.kind, proposal_ids: [...act.proposalIds] });
  }

  private async sendMask(assignmentId: number, clientId: string, act: MaskAct): Promise<void> {
    const maskId = this.maskIds.get(act.mask.localId);
    if (act.kind === "delete") {
      // A mask that never reached the server has nothing to be deleted there.
      if (maskId !== undefined) await this.api.deleteMask(assignmentId, clientId, maskId);
      this.forgive(act.mask.localId);
    } else if (act.kind === "restore" && act.instead && !this.maskIds.has(act.instead.localId)) {
      // The correction never reached the server, so the mask it corrected still stands there.
      this.forgive(act.instead.localId);
    } else if (act.kind === "restore" && maskId !== undefined) {
      this.keep(act, await this.api.restoreMask(assignmentId, clientId, maskId));
    } else if (act.mask.body) {
      const supersedes = act.mask.supersedes === null ? null : this.idOf(act.mask.supersedes);
      this.keep(act, await this.api.acceptMask(assignmentId, { ...act.mask.body, supersedes_id: supersedes }));
    }
  }

  refused({ act }: Posting, error: Error): void {
    if (!("mask" in act)) return this.refusedReview(act, error);
    if (act.kind === "delete") return this.toasts.error(`The mask was not deleted: ${error.message}`);
    const refusals = new Map(this.store.getState().refusals).set(act.mask.localId, error.message);
    this.store.setState({ refusals });
    this.toasts.error(`A mask is not saved: ${error.message}`);
  }

  /** The page goes back to what the server has: what looks rejected must not become a mask. */
  private refusedReview({ kind, proposalIds }: ReviewAct, error: Error): void {
    this.nRefusedReviews += 1;
    const back = kind === "reject" ? "open" : "rejected";
    this.store.setState(({ proposals }) => ({ proposals: withState(proposals, proposalIds, back) }));
    this.toasts.error(`The prefilled masks were not ${kind === "reject" ? "rejected" : "brought back"}: ${error.message}`);
  }

  private keep(act: MaskAct, mask: Mask): void {
    this.maskIds.set(act.mask.localId, mask.id);
    this.forgive(act.mask.localId);
    // What it took the place of is no mask of its own any more, saved or not.
    if (act.instead) this.forgive(act.instead.localId);
    if (mask.second_opinion) {
      this.toasts.info("Someone else has taken this image meanwhile; your mask is kept as a second opinion.");
    }
  }

  private forgive(localId: string): void {
    const refusals = new Map(this.store.getState().refusals);
    if (refusals.delete(localId)) this.store.setState({ refusals });
  }
}
