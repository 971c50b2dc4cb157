import { createContext, useContext } from "react";
import { useStore } from "zustand";

import type { LabelSession } from "../core/session";
import type { LabelState } from "../core/store";

export const LabelContext = createContext<LabelSession | null>(null);

/** A part of the labelling state, kept up to date, together with the session to act on. */
export function useLabel<T>(select: (state: LabelState) => T): [T, LabelSession] {
  const session = useContext(LabelContext);
  if (!session) throw new Error("useLabel belongs inside the labelling page.");
  return [useStore(session.store, select), session];
}
