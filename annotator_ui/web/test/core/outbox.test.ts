import { expect, test } from "vitest";

import { ApiError, NetworkError } from "../../src/api/client";
import type { LocalMask } from "../../src/core/commands";
import { Outbox, type OutboxState, type Posting } from "../../src/core/outbox";

const MASK: LocalMask = {
  localId: "m", segmentation: { size: [1, 1], counts: "01" }, bbox: [0, 0, 1, 1], area: 1, colour: 0,
  predictedIou: null, stabilityScore: null, categoryId: null, author: null, proposalId: null, making: { prompts: [], chosen: [], strokes: [] }, supersedes: null, body: null,
};

const posting = (clientId: string): Posting => ({ assignmentId: 1, clientId, act: { kind: "accept", mask: MASK } });

/** An outbox towards a server that answers from a script: an error, or null for "done". */
function boxTowards(script: (Error | null)[]): {
  box: Outbox; sent: string[]; states: OutboxState[]; refused: string[]; nSignedOut: () => number;
} {
  const [sent, states, refused]: [string[], OutboxState[], string[]] = [[], [], []];
  let nSignedOut = 0;
  const box = new Outbox(
    {
      send: (one) => {
        sent.push(one.clientId);
        const answer = script.shift() ?? null;
        return answer ? Promise.reject(answer) : Promise.resolve();
      },
      changed: (state) => states.push(state),
      refused: (one, error) => refused.push(`${one.clientId}: ${error.message}`),
      signedOut: () => (nSignedOut += 1),
    },
    2,
  );
  return { box, sent, states, refused, nSignedOut: () => nSignedOut };
}

test("acts are sent one after another in their order", async () => {
  const { box, sent, states } = boxTowards([]);
  box.push(posting("a"));
  box.push(posting("b"));
  await box.flushed();
  expect(sent).toEqual(["a", "b"]);
  expect(states.at(-1)).toEqual({ nPending: 0, isStuck: false });
});

test("an act without an answer is sent again under the same client_id, before the next", async () => {
  const { box, sent, states } = boxTowards([new NetworkError(), new ApiError(503, "busy"), null]);
  box.push(posting("a"));
  box.push(posting("b"));
  await box.flushed();
  expect(sent).toEqual(["a", "a", "a", "b"]);
  expect(states.some((state) => state.isStuck)).toBe(true);
  expect(states.at(-1)).toEqual({ nPending: 0, isStuck: false });
});

test("a refused act is handed back with the server's sentence and does not hold up the others", async () => {
  const { box, sent, refused } = boxTowards([new ApiError(409, "The model has changed."), null]);
  box.push(posting("a"));
  box.push(posting("b"));
  await box.flushed();
  expect(sent).toEqual(["a", "b"]);
  expect(refused).toEqual(["a: The model has changed."]);
});

test("an ended sign-in keeps the act until the person is back", async () => {
  const { box, sent, refused, nSignedOut } = boxTowards([new ApiError(401, "Sign in first.", 60)]);
  box.push(posting("a"));
  await new Promise((resolve) => setTimeout(resolve, 10));
  expect([nSignedOut(), box.nPending]).toEqual([1, 1]);
  box.kick();
  await box.flushed();
  expect(sent).toEqual(["a", "a"]);
  expect(refused).toEqual([]);
});
