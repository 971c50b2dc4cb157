import { ApiClient, type ApiError, NetworkError } from "../../src/api/client";
import type {
  AcceptBody, Assignment, DatasetDetail, Mask, NextAssignment, Prediction, Prompt, Proposal, ReviewBody,
} from "../../src/api/types";

const SEGMENTATION = { size: [2, 2] as [number, number], counts: "022" };

/** The server's rules that the page relies on, in memory: ids, one reply per client_id, deletion and restoration. */
export class FakeServer extends ApiClient {
  readonly masks = new Map<number, Mask>();
  readonly acts: string[] = [];
  readonly bodies: AcceptBody[] = [];
  readonly predictions: { prompts: Prompt[]; chosen: number[] }[] = [];
  readonly submitted: number[] = [];
  readonly reviews: ReviewBody[] = [];
  /** What the next assignments have drawn beforehand. */
  proposals: Proposal[] = [];
  isAway = false;
  refusal: ApiError | null = null;
  private readonly gone = new Map<number, Mask>();
  private readonly replies = new Map<string, Mask>();
  /** The mask that took another one's place, by id. */
  private readonly after = new Map<number, number>();
  private nextId = 100;

  override dataset(): Promise<DatasetDetail> {
    return Promise.resolve({
      id: 1, name: "demo", open_stage: "assisted_manual", n_images: 2, n_done: 0, n_masks: 0, guideline: "", model: null,
      categories: [{ id: 5, name: "old", retired: true }, { id: 6, name: "cell", retired: false }],
    });
  }

  override nextAssignment(): Promise<NextAssignment> {
    const id = this.submitted.length + 1;
    if (id > 2) return Promise.resolve({ assignment: null, reason: "Every image of this dataset is done." });
    const assignment: Assignment = {
      id, stage: "assisted_manual", state: "open", lease_until: "", embedding_ready: true,
      image: { id, width: 40, height: 30, name: `${id}.png`, url: "" },
      model: { id: 9, name: "tiny", weights_sha256: "" }, masks: [...this.masks.values()], order: { position: id, total: 2 },
      proposals: this.proposals, prefill: { threshold: 0.3, detector_version: "d1", false_prefill_rate: 0.2 },
    };
    return Promise.resolve({ assignment, reason: null });
  }

  override pixels(): Promise<Blob> {
    return Promise.resolve(new Blob());
  }

  override predict(_: number, prompts: Prompt[], chosen: number[]): Promise<Prediction> {
    this.predictions.push({ prompts, chosen });
    const n = prompts.length === 1 ? 3 : 1;
    const candidates = Array.from({ length: n }, (__, i) => ({
      segmentation: { ...SEGMENTATION }, predicted_iou: 0.5 + i / 10, stability_score: 0.9, area: 2,
      bbox: [0, 0, 1, 2] as [number, number, number, number],
    }));
    return Promise.resolve({ candidates, best: n - 1, model_version_id: 9, latency_ms: 1 });
  }

  override acceptMask(_: number, body: AcceptBody): Promise<Mask> {
    return this.act("accept", () => {
      const known = this.replies.get(body.client_id);
      if (known) return known;
      this.bodies.push(body);
      const mask = this.add(body);
      if (body.supersedes_id !== null) this.replace(body.supersedes_id, mask.id);
      this.replies.set(body.client_id, mask);
      return mask;
    });
  }

  override deleteMask(_: number, __: string, maskId: number): Promise<{ mask_id: number }> {
    return this.act("delete", () => {
      const mask = this.masks.get(maskId);
      if (!mask) throw new Error(`there is no mask ${maskId}`);
      this.masks.delete(maskId);
      this.gone.set(maskId, mask);
      return { mask_id: maskId };
    });
  }

  override restoreMask(_: number, __: string, maskId: number): Promise<Mask> {
    return this.act("restore", () => {
      const mask = this.gone.get(maskId);
      if (!mask) throw new Error(`mask ${maskId} was not deleted`);
      let end = maskId;
      for (let next = this.after.get(end); next !== undefined; next = this.after.get(end)) end = next;
      const back = this.keep({ ...mask, id: this.nextId++ });
      this.replace(end, back.id);
      return back;
    });
  }

  override reviewProposals(_: number, body: ReviewBody): Promise<void> {
    return this.act(body.act, () => void this.reviews.push(body));
  }

  override submit(id: number): Promise<{ state: string }> {
    this.submitted.push(id);
    this.masks.clear();
    return Promise.resolve({ state: "submitted" });
  }

  private act<T>(name: string, reply: () => T): Promise<T> {
    if (this.isAway) return Promise.reject(new NetworkError());
    if (this.refusal) return Promise.reject(this.refusal);
    this.acts.push(name);
    return new Promise((resolve) => resolve(reply()));
  }

  private replace(oldId: number, newId: number): void {
    const old = this.masks.get(oldId);
    if (old) this.gone.set(oldId, old);
    this.masks.delete(oldId);
    this.after.set(oldId, newId);
  }

  private add(body: AcceptBody): Mask {
    return this.keep({
      id: this.nextId++, segmentation: body.segmentation, bbox: [0, 0, 1, 2], area: 2, stage: "assisted_manual",
      source: "human", predicted_iou: body.predicted_iou, stability_score: 0.9, category_id: body.category_id,
      author: "ada", model_version: "tiny", prompts: body.prompts, chosen: body.chosen, strokes: body.strokes, created_at: "",
    });
  }

  private keep(mask: Mask): Mask {
    this.masks.set(mask.id, mask);
    return mask;
  }
}
