import type { Mask } from "../api/types";
import type { LocalMask } from "./commands";
import type { Draft, Shown } from "./draft";
import type { Region } from "./painting";
import type { LabelState } from "./store";
import { MAX_POINTS, MAX_STROKES, nPointsOf } from "./strokes";

/** A random UUID; crypto.randomUUID exists only on https and localhost, and people label over plain LANs too. */
export function newUuid(): string {
  if (typeof crypto.randomUUID === "function") return crypto.randomUUID();
  const bytes = crypto.getRandomValues(new Uint8Array(16));
  bytes[6] = ((bytes[6] ?? 0) & 0x0f) | 0x40;
  bytes[8] = ((bytes[8] ?? 0) & 0x3f) | 0x80;
  const hex = Array.from(bytes, (byte) => byte.toString(16).padStart(2, "0")).join("");
  return [hex.slice(0, 8), hex.slice(8, 12), hex.slice(12, 16), hex.slice(16, 20), hex.slice(20)].join("-");
}

/** A mask the server sent with the image; only people's masks of the same model are what their prompts give. */
export function localMaskOf(mask: Mask, index: number, modelName: string): LocalMask {
  const isReplayed = mask.source === "human" && mask.model_version === modelName;
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
    making: { prompts: isReplayed ? mask.prompts : [], chosen: isReplayed ? mask.chosen : [], strokes: mask.strokes },
    supersedes: null,
    body: null,
  };
}

export function serverLocalId(maskId: number): string {
  return `server-${maskId}`;
}

/**
 * An accepted mask taken up again: its prompts, choices and strokes, so that a click refines it and strokes go on.
 * One that has nearly all the strokes a mask can hold begins again from its pixels.
 */
export function draftFromMask(mask: LocalMask, before: Draft): Draft {
  const { prompts, chosen, strokes } = mask.making;
  const { segmentation, bbox, area } = mask;
  const draft: Draft = { ...before, base: { segmentation, bbox, area }, supersedes: mask.localId };
  if (strokes.length > MAX_STROKES / 2 || nPointsOf(strokes) > MAX_POINTS / 2) return draft;
  return { ...draft, prompts, picks: prompts.map((_, i) => chosen[i] ?? null), strokes };
}

/** A corrected mask keeps its class as long as the dataset has it. */
export function categoryFor({ categoryId, dataset }: LabelState, replaced: LocalMask | null): number | null {
  const isRetired = dataset?.categories.some((one) => one.id === replaced?.categoryId && one.retired) ?? false;
  return replaced && !isRetired ? replaced.categoryId : categoryId;
}

export interface Made {
  readonly drawn: Region;
  /** What the model answered to the prompts; null for a mask without prompts. */
  readonly shown: Shown | null;
  readonly chosen: number[];
  readonly modelVersionId: number;
  readonly categoryId: number | null;
}

/** The mask on the screen as an accepted one, with the body that will tell the server of it. */
export function newLocalMask(draft: Draft, made: Made, replaced: LocalMask | null, colour: number): LocalMask {
  const { drawn: { segmentation, bbox, area }, shown, chosen, modelVersionId, categoryId } = made;
  const localId = newUuid();
  // The model's scores speak of the mask it drew, not of what a person made of it.
  const scored = draft.strokes.length === 0 && shown ? shown.candidate : null;
  const predictedIou = scored?.predicted_iou ?? null;
  const stabilityScore = scored?.stability_score ?? null;
  return {
    localId, segmentation, bbox, area, predictedIou, stabilityScore, categoryId,
    colour: replaced?.colour ?? colour,
    author: null,
    // Whoever corrects a correction still stands for the prefilled mask; the server knows that from the mask itself.
    proposalId: draft.proposalId ?? replaced?.proposalId ?? null,
    making: { prompts: draft.prompts, chosen, strokes: draft.strokes },
    supersedes: draft.supersedes,
    body: {
      client_id: localId,
      prompts: [...draft.prompts],
      chosen,
      strokes: [...draft.strokes],
      segmentation,
      model_version_id: modelVersionId,
      predicted_iou: predictedIou,
      stability_score: stabilityScore,
      category_id: categoryId,
      active_ms: draft.activeMs,
      n_undos: draft.nUndos,
      supersedes_id: null,
      ...(draft.proposalId !== null && { proposal_id: draft.proposalId }),
    },
  };
}
