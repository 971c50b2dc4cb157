import type { Mask } from "../api/types";
import type { LocalMask } from "./commands";
import type { Draft, Shown } from "./draft";

/** A random UUID; crypto.randomUUID exists only on https and localhost, and people label over plain LANs too. */
export function newUuid(): string {
  if (typeof crypto.randomUUID === "function") return crypto.randomUUID();
  const bytes = crypto.getRandomValues(new Uint8Array(16));
  bytes[6] = ((bytes[6] ?? 0) & 0x0f) | 0x40;
  bytes[8] = ((bytes[8] ?? 0) & 0x3f) | 0x80;
  const hex = Array.from(bytes, (byte) => byte.toString(16).padStart(2, "0")).join("");
  return [hex.slice(0, 8), hex.slice(8, 12), hex.slice(12, 16), hex.slice(16, 20), hex.slice(20)].join("-");
}

/** A mask the server sent with the image. */
export function localMaskOf(mask: Mask, index: number): LocalMask {
  return {
    localId: serverLocalId(mask.id),
    segmentation: mask.segmentation,
    bbox: mask.bbox,
    area: mask.area,
    colour: index,
    predictedIou: mask.predicted_iou,
    stabilityScore: mask.stability_score,
    categoryId: mask.category_id,
    author: mask.author,
    proposalId: mask.proposal_id ?? null,
    body: null,
  };
}

export function serverLocalId(maskId: number): string {
  return `server-${maskId}`;
}

/** The candidate on the screen as an accepted mask, with the body that will tell the server of it. */
export function newLocalMask(
  draft: Draft,
  shown: Shown,
  chosen: number[],
  categoryId: number | null,
  colour: number,
): LocalMask {
  const { candidate, prediction } = shown;
  const localId = newUuid();
  return {
    localId,
    segmentation: candidate.segmentation,
    bbox: candidate.bbox,
    area: candidate.area,
    colour,
    predictedIou: candidate.predicted_iou,
    stabilityScore: candidate.stability_score,
    categoryId,
    author: null,
    proposalId: draft.proposalId,
    body: {
      client_id: localId,
      prompts: [...draft.prompts],
      chosen,
      segmentation: candidate.segmentation,
      model_version_id: prediction.model_version_id,
      predicted_iou: candidate.predicted_iou,
      stability_score: candidate.stability_score,
      category_id: categoryId,
      active_ms: draft.activeMs,
      n_undos: draft.nUndos,
      supersedes_id: null,
      ...(draft.proposalId !== null && { proposal_id: draft.proposalId }),
    },
  };
}
