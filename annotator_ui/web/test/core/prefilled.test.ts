import { afterEach, expect, test } from "vitest";

import { ApiError } from "../../src/api/client";
import type { Proposal } from "../../src/api/types";
import { actionById } from "../../src/core/actions";
import { EMPTY_DRAFT } from "../../src/core/draft";
import { imagePoint } from "../../src/core/geometry";
import { bitmapOf, loopsOf } from "../../src/core/mask";
import { draftFrom, idsBelow, localProposalsOf, withState } from "../../src/core/proposals";
import { sayCounts } from "../../src/core/review";
import { LabelSession } from "../../src/core/session";
import { type LabelState, saveStateOf } from "../../src/core/store";
import { encodeMask } from "../../src/core/rle";
import { FakeServer } from "./fake_server";

const sessions: LabelSession[] = [];
afterEach(() => {
  sessions.splice(0).forEach((session) => session.stop());
  sessionStorage.clear();
});

const settled = (ms = 5): Promise<void> => new Promise((resolve) => setTimeout(resolve, ms));

function proposal(id: number, score: number): Proposal {
  return {
    id, score, segmentation: { size: [2, 2], counts: "022" }, bbox: [0, 0, 1, 2], area: 2, predicted_iou: 0.9,
    stability_score: 0.9, prompts: [{ kind: "box", x0: 0, y0: 0, x1: 1, y1: 2 }], chosen: [1], state: "open",
  };
}

const SCORES = [0.9, 0.35, 0.7, 0.5, 0.31];

async function opened(server = new FakeServer()): Promise<{ server: FakeServer; session: LabelSession; now: () => LabelState }> {
  if (server.proposals.length === 0) server.proposals = SCORES.map((score, i) => proposal(i + 1, score));
  const image = { width: 40, height: 30, close: () => undefined } as ImageBitmap;
  const session = new LabelSession(server, "demo", () => Promise.resolve(image));
  sessions.push(session);
  session.start();
  await settled();
  return { server, session, now: () => session.store.getState() };
}

const said = (now: () => LabelState): string | null => sayCounts(now().proposals);

test("prefilled masks are listed best score first, and none is anything until the image is submitted", async () => {
  const { server, now } = await opened();
  expect(now().proposals.map((one) => one.score)).toEqual([0.9, 0.7, 0.5, 0.35, 0.31]);
  expect([said(now), now().masks.length, server.acts]).toEqual(["5 kept, 0 rejected, 0 corrected", 0, []]);
});

test("the slider moves between the detector's threshold and 1, and only shows what it would reject", async () => {
  const { server, session, now } = await opened();
  expect(now().cutoff).toBe(0.3);
  session.review.setCutoff(0.6);
  expect(idsBelow(now().proposals, now().cutoff, now().draft).sort()).toEqual([2, 4, 5]);
  expect([said(now), server.acts]).toEqual(["5 kept, 0 rejected, 0 corrected", []]);
  session.review.setCutoff(7);
  expect(now().cutoff).toBe(1);
  session.review.moveCutoff(-3);
  expect(now().cutoff).toBe(0.3);
});

test("rejecting all below is one request, and one undo brings them all back", async () => {
  const { server, session, now } = await opened();
  session.review.setCutoff(0.6);
  actionById("reject-below").run(session);
  await settled();
  expect(server.reviews).toMatchObject([{ act: "reject", proposal_ids: [4, 2, 5] }]);
  expect([said(now), saveStateOf(now())]).toEqual(["2 kept, 3 rejected, 0 corrected", "saved"]);
  session.undo();
  await settled();
  expect(server.reviews[1]).toMatchObject({ act: "unreject", proposal_ids: [4, 2, 5] });
  expect(server.reviews[1]?.client_id).not.toBe(server.reviews[0]?.client_id);
  expect(said(now)).toBe("5 kept, 0 rejected, 0 corrected");
  session.redo();
  await settled();
  expect(said(now)).toBe("2 kept, 3 rejected, 0 corrected");
});

test("more proposals than a request takes are rejected in several, and undone in one step", async () => {
  const server = new FakeServer();
  server.proposals = Array.from({ length: 501 }, (_, i) => proposal(i + 1, 0.4));
  const { session, now } = await opened(server);
  session.review.setCutoff(0.5);
  session.review.rejectBelow();
  await settled();
  expect(server.reviews.map((body) => body.proposal_ids.length)).toEqual([500, 1]);
  session.undo();
  expect(said(now)).toBe("501 kept, 0 rejected, 0 corrected");
});

test("a selected proposal is rejected like a mask, and stepping on goes on from there", async () => {
  const { server, session, now } = await opened();
  session.selectNeighbour(1);
  session.selectNeighbour(1);
  expect(now().selectedId).toBe("proposal-3");
  session.deleteSelected();
  expect(now().selectedId).toBeNull();
  session.selectNeighbour(1);
  expect(now().selectedId).toBe("proposal-4");
  session.review.bringBack([3]);
  await settled();
  expect(server.acts).toEqual(["reject", "unreject"]);
  expect(said(now)).toBe("5 kept, 0 rejected, 0 corrected");
});

test("a click with a proposal selected refines it, and accepting names the proposal", async () => {
  const { server, session, now } = await opened();
  session.select("proposal-1");
  session.addPoint(imagePoint(4.5, 3.5), 0);
  await settled();
  expect(server.predictions.at(-1)).toMatchObject({ prompts: [{ kind: "box" }, { x: 4, y: 3, label: 0 }], chosen: [1] });
  session.accept();
  await settled();
  expect(server.bodies[0]).toMatchObject({ proposal_id: 1, prompts: [{ kind: "box" }, { kind: "point" }], chosen: [1, 0] });
  expect([said(now), now().masks.length]).toEqual(["4 kept, 0 rejected, 1 corrected", 1]);
  session.undo();
  await settled();
  expect([said(now), now().draft.prompts.length, now().draft.proposalId]).toEqual(["5 kept, 0 rejected, 0 corrected", 2, 1]);
  session.undo();
  session.undo();
  expect([now().draft.prompts.length, now().draft.proposalId]).toEqual([0, null]);
});

test("Enter takes the selected proposal up as it is, with the candidate it was made of", async () => {
  const { session, now } = await opened();
  session.select("proposal-1");
  expect(actionById("accept").when?.(now())).toBe(true);
  session.accept();
  await settled();
  expect([now().draft.prompts.length, now().shown?.choice, now().masks.length]).toEqual([1, 1, 0]);
  session.clear();
  expect(said(now)).toBe("5 kept, 0 rejected, 0 corrected");
});

test("a new mask does not name the proposal that was corrected before", async () => {
  const { server, session } = await opened();
  session.select("proposal-1");
  session.accept();
  await settled();
  session.accept();
  session.addPoint(imagePoint(8.5, 3.5), 1);
  await settled();
  session.accept();
  await settled();
  expect(server.bodies.map((body) => body.proposal_id)).toEqual([1, undefined]);
});

test("whoever deletes a correction gets neither the mask nor the proposal, until it is undone", async () => {
  const { server, session, now } = await opened();
  session.select("proposal-1");
  session.accept();
  await settled();
  session.accept();
  session.select(now().masks[0]?.localId ?? null);
  session.deleteSelected();
  await settled();
  expect([said(now), now().masks.length]).toEqual(["4 kept, 1 rejected, 0 corrected", 0]);
  session.undo();
  await settled();
  expect([said(now), now().masks.length]).toEqual(["4 kept, 0 rejected, 1 corrected", 1]);
  expect(server.acts).toEqual(["accept", "delete", "reject", "unreject", "restore"]);
});

test("the proposal being corrected is not rejected with those below the slider", async () => {
  const { session, now } = await opened();
  session.select("proposal-5");
  session.accept();
  session.review.setCutoff(1);
  session.review.rejectBelow();
  expect(said(now)).toBe("1 kept, 4 rejected, 0 corrected");
});

test("a rejection without a network is kept and sent once it is back", async () => {
  const { server, session, now } = await opened();
  server.isAway = true;
  session.review.reject([1]);
  await settled();
  expect([saveStateOf(now()), said(now)]).toEqual(["unsaved", "4 kept, 1 rejected, 0 corrected"]);
  server.isAway = false;
  session.retrySaving();
  await settled();
  expect([saveStateOf(now()), server.reviews.length]).toEqual(["saved", 1]);
});

test("a refused rejection shows the masks again and stops the submission that waited for it", async () => {
  const { server, session, now } = await opened();
  server.refusal = new ApiError(409, "The lease ran out.");
  session.review.reject([1, 2]);
  await session.submit();
  expect([said(now), server.submitted]).toEqual(["5 kept, 0 rejected, 0 corrected", []]);
  expect(now().toasts.at(-1)?.text).toContain("The lease ran out.");
});

test("a reload shows what was rejected and corrected", async () => {
  const server = new FakeServer();
  server.proposals = [proposal(1, 0.9), { ...proposal(2, 0.8), state: "rejected" }, { ...proposal(3, 0.7), state: "corrected" }];
  const { now } = await opened(server);
  expect(said(now)).toBe("1 kept, 1 rejected, 1 corrected");
});

test("a draft takes the proposal's prompts and choices up, and keeps what the draft has counted", () => {
  const [one] = localProposalsOf([proposal(7, 0.9)]);
  if (!one) throw new Error("no proposal");
  expect(draftFrom(one, { ...EMPTY_DRAFT, nUndos: 3 })).toMatchObject({ picks: [1], proposalId: 7, nUndos: 3 });
  expect(withState([one], [8], "rejected")[0]).toBe(one);
});

test("an outline's loops are closed, one for each hole, and corners only", () => {
  // A ring of 3 x 3 with a hole, and a single pixel that touches it by a corner.
  const rows = [[1, 1, 1, 0, 0], [1, 0, 1, 0, 0], [1, 1, 1, 0, 0], [0, 0, 0, 1, 0]];
  const loops = loopsOf(bitmapOf(encodeMask(rows.flat(), 4, 5)));
  const area = (loop: Float32Array): number => {
    let twice = 0;
    for (let i = 0; i < loop.length; i += 2) {
      const j = (i + 2) % loop.length;
      twice += (loop[i] ?? 0) * (loop[j + 1] ?? 0) - (loop[j] ?? 0) * (loop[i + 1] ?? 0);
    }
    return twice / 2;
  };
  expect(loops.map(area).reduce((a, b) => a + b)).toBe(9);
  expect(loops.map(area).filter((one) => one < 0)).toEqual([-1]);
});
