/** Undo and redo as a log of commands: what was done, and what was taken back since. */
export interface History<C> {
  readonly done: readonly C[];
  readonly undone: readonly C[];
}

const MAX_STEPS = 500;

export function emptyHistory<C>(): History<C> {
  return { done: [], undone: [] };
}

/** Record a new command; whatever had been taken back can no longer be redone. */
export function record<C>(history: History<C>, command: C): History<C> {
  return { done: [...history.done, command].slice(-MAX_STEPS), undone: [] };
}

/** The command to revert and the log without it, or null when there is nothing to undo. */
export function stepBack<C>(history: History<C>): { command: C; history: History<C> } | null {
  const command = history.done.at(-1);
  if (command === undefined) return null;
  return { command, history: { done: history.done.slice(0, -1), undone: [...history.undone, command] } };
}

/** The command to do again and the log with it, or null when there is nothing to redo. */
export function stepForward<C>(history: History<C>): { command: C; history: History<C> } | null {
  const command = history.undone.at(-1);
  if (command === undefined) return null;
  return { command, history: { done: [...history.done, command], undone: history.undone.slice(0, -1) } };
}
