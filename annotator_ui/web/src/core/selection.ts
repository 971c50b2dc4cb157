import { bitmapFor } from "./bitmaps";
import type { LocalMask } from "./commands";
import type { ImagePoint } from "./geometry";
import { covers } from "./mask";
import type { LocalProposal } from "./proposals";
import type { LabelState } from "./store";

type Objects = Pick<LabelState, "masks" | "proposals">;

export function selectedProposal({ proposals, selectedId }: LabelState): LocalProposal | null {
  if (selectedId === null) return null;
  return proposals.find((one) => one.localId === selectedId && one.state === "open") ?? null;
}

export function selectedMask({ masks, selectedId }: LabelState): LocalMask | null {
  return masks.find((one) => one.localId === selectedId) ?? null;
}

/** The masks and open proposals, as a person sees them. */
export function objectsOf({ masks, proposals }: Objects): (LocalMask | LocalProposal)[] {
  return [...masks, ...proposals.filter((one) => one.state === "open")];
}

/** The smallest object under `at`. */
export function objectAt(state: Objects, at: ImagePoint): string | null {
  const hits = objectsOf(state).filter((one) => covers(bitmapFor(one.segmentation), at.x, at.y));
  return hits.sort((a, b) => a.area - b.area)[0]?.localId ?? null;
}

/**
 * The next object (or the one before) after `from`, all around: accepted masks, then prefilled ones. A proposal that was
 * rejected meanwhile still marks the place to go on from.
 */
export function neighbourOf(state: Objects, from: string | null, step: 1 | -1): string | null {
  const ring = [...state.masks, ...state.proposals];
  const open = new Set(objectsOf(state));
  const start = ring.findIndex((one) => one.localId === from);
  for (let k = 1; k <= ring.length; k++) {
    const at = start < 0 && step < 0 ? -k : start + k * step;
    const one = ring[((at % ring.length) + ring.length) % ring.length];
    if (one && open.has(one)) return one.localId;
  }
  return null;
}
