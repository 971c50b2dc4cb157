import { expect, test } from "vitest";

import { type Command, type LocalMask, type Work, apply, revert } from "../../src/core/commands";
import { EMPTY_DRAFT } from "../../src/core/draft";
import { emptyHistory, record, stepBack, stepForward } from "../../src/core/history";

const POINT = { kind: "point", x: 3, y: 4, label: 1 } as const;

function mask(localId: string): LocalMask {
  return {
    localId, segmentation: { size: [2, 2], counts: "04" }, bbox: [0, 0, 2, 2], area: 4, colour: 0,
    predictedIou: 0.9, stabilityScore: 0.9, categoryId: null, author: null, proposalId: null, making: { prompts: [], chosen: [], strokes: [] }, supersedes: null, body: null,
  };
}

const EMPTY: Work = { draft: EMPTY_DRAFT, masks: [], proposals: [] };
const DRAFT = { ...EMPTY_DRAFT, prompts: [POINT], picks: [2], activeMs: 4200 };

test("undo and redo walk the log back and forth, and a new command forgets what was undone", () => {
  let history = record(record(emptyHistory<string>(), "a"), "b");
  const back = stepBack(history);
  expect(back?.command).toBe("b");
  history = back?.history ?? history;
  expect(stepForward(history)?.command).toBe("b");
  expect(stepForward(record(history, "c"))).toBeNull();
  expect(stepBack(emptyHistory())).toBeNull();
});

const COMMANDS: readonly (readonly [string, Work, Command])[] = [
  ["a prompt", EMPTY, { kind: "prompt", prompt: POINT }],
  ["cycling", { draft: DRAFT, masks: [], proposals: [] }, { kind: "cycle", from: 2, to: 0 }],
  ["clearing", { draft: DRAFT, masks: [], proposals: [] }, { kind: "clear", draft: DRAFT }],
  ["accepting", { draft: DRAFT, masks: [mask("a")], proposals: [] }, { kind: "accept", mask: mask("b"), draft: DRAFT, replaced: null }],
  ["correcting", { draft: DRAFT, masks: [mask("a"), mask("c")], proposals: [] },
    { kind: "accept", mask: mask("b"), draft: DRAFT, replaced: mask("a") }],
  ["a stroke", { draft: DRAFT, masks: [], proposals: [] }, { kind: "stroke", stroke: { kind: "brush", size: 3, points: [1, 2] } }],
  ["deleting", { draft: EMPTY_DRAFT, masks: [mask("a"), mask("b"), mask("c")], proposals: [] },
    { kind: "delete", mask: mask("b"), index: 1 }],
];

test.each(COMMANDS)("undoing %s restores what was, and counts one undo", (_, before, command) => {
  const { work } = revert(apply(before, command, false).work, command);
  expect(work).toEqual({ ...before, draft: { ...before.draft, nUndos: before.draft.nUndos + 1 } });
});

test("undoing an acceptance deletes on the server, redoing it restores", () => {
  const accept: Command = { kind: "accept", mask: mask("a"), draft: DRAFT, replaced: null };
  const done = apply({ draft: DRAFT, masks: [], proposals: [] }, accept, false);
  expect(done.acts[0]?.kind).toBe("accept");
  expect(done.work.draft).toBe(EMPTY_DRAFT);
  const undone = revert(done.work, accept);
  expect(undone.acts[0]?.kind).toBe("delete");
  expect(undone.work.draft.prompts).toEqual([POINT]);
  expect(apply(undone.work, accept, true).acts[0]?.kind).toBe("restore");
});

test("undoing a correction restores the mask it corrected, and redoing it the correction", () => {
  const correct: Command = { kind: "accept", mask: mask("b"), draft: DRAFT, replaced: mask("a") };
  const done = apply({ draft: DRAFT, masks: [mask("a")], proposals: [] }, correct, false);
  expect(done.work.masks.map((one) => one.localId)).toEqual(["b"]);
  const undone = revert(done.work, correct);
  expect(undone.acts).toMatchObject([{ kind: "restore", mask: { localId: "a" } }]);
  expect(apply(undone.work, correct, true).acts).toMatchObject([{ kind: "restore", mask: { localId: "b" } }]);
});

test("undoing a deletion restores on the server", () => {
  const command: Command = { kind: "delete", mask: mask("a"), index: 0 };
  expect(revert(apply({ draft: EMPTY_DRAFT, masks: [mask("a")], proposals: [] }, command, false).work, command).acts[0]?.kind).toBe("restore");
});
