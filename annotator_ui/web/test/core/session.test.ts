import { afterEach, expect, test } from "vitest";

import { ApiError } from "../../src/api/client";
import { imagePoint } from "../../src/core/geometry";
import { LabelSession } from "../../src/core/session";
import { type LabelState, saveStateOf } from "../../src/core/store";
import { FakeServer } from "./fake_server";

const sessions: LabelSession[] = [];
afterEach(() => {
  sessions.splice(0).forEach((session) => session.stop());
  sessionStorage.clear();
});

const settled = (ms = 5): Promise<void> => new Promise((resolve) => setTimeout(resolve, ms));

async function opened(server = new FakeServer()): Promise<{ server: FakeServer; session: LabelSession; now: () => LabelState }> {
  const image = { width: 40, height: 30, close: () => undefined } as ImageBitmap;
  const session = new LabelSession(server, "demo", () => Promise.resolve(image));
  sessions.push(session);
  session.start();
  await settled();
  return { server, session, now: () => session.store.getState() };
}

async function click(session: LabelSession, x: number, label: 0 | 1 = 1): Promise<void> {
  session.addPoint(imagePoint(x + 0.5, 3.5), label);
  await settled();
}

test("click, cycle and accept post the prompts, the choices and the mask on the screen", async () => {
  const { server, session, now } = await opened();
  await click(session, 4);
  expect(now().shown?.choice).toBe(2);
  session.cycle();
  expect(now().shown?.choice).toBe(0);
  await click(session, 9, 0);
  session.accept();
  await settled();
  const [body] = server.bodies;
  expect(body?.prompts).toMatchObject([{ x: 4, y: 3, label: 1 }, { x: 9, y: 3, label: 0 }]);
  expect(body?.chosen).toEqual([0, 0]);
  expect(server.predictions.at(-1)?.chosen).toEqual([0]);
  expect(body).toMatchObject({ model_version_id: 9, n_undos: 0, supersedes_id: null });
  expect([now().masks.length, now().draft.prompts.length, saveStateOf(now())]).toEqual([1, 0, "saved"]);
});

test("undoing an acceptance deletes the mask and brings its prompts back; redo restores it", async () => {
  const { server, session, now } = await opened();
  await click(session, 4);
  session.accept();
  session.undo();
  expect([now().masks.length, now().draft.prompts.length]).toEqual([0, 1]);
  expect(now().shown?.candidate.area).toBe(2);
  session.redo();
  session.undo();
  await settled();
  expect(server.acts).toEqual(["accept", "delete", "restore", "delete"]);
  expect(server.masks.size).toBe(0);
});

test("a mask tells how often something was undone while it was made", async () => {
  const { server, session } = await opened();
  await click(session, 4);
  await click(session, 9);
  session.undo();
  session.accept();
  session.undo();
  session.accept();
  await settled();
  expect(server.bodies.map((body) => body.n_undos)).toEqual([1, 2]);
});

test("a deleted mask comes back by undo, under the id the server gives it then", async () => {
  const { server, session, now } = await opened();
  await click(session, 4);
  session.accept();
  session.select(now().masks[0]?.localId ?? null);
  session.deleteSelected();
  expect(now().selectedId).toBeNull();
  session.undo();
  session.select(now().masks[0]?.localId ?? null);
  session.deleteSelected();
  await settled();
  expect(server.acts).toEqual(["accept", "delete", "restore", "delete"]);
  expect(server.masks.size).toBe(0);
});

test("an acceptance without a network is kept, shown as unsaved, and saved once", async () => {
  const { server, session, now } = await opened();
  await click(session, 4);
  server.isAway = true;
  session.accept();
  await settled();
  expect([saveStateOf(now()), now().masks.length]).toEqual(["unsaved", 1]);
  server.isAway = false;
  session.retrySaving();
  await settled();
  expect([saveStateOf(now()), server.masks.size, server.bodies.length]).toEqual(["saved", 1, 1]);
});

test("a refused mask stays, says why, and can be saved again", async () => {
  const { server, session, now } = await opened();
  await click(session, 4);
  server.refusal = new ApiError(409, "The model has changed.");
  session.accept();
  await settled();
  expect(saveStateOf(now())).toBe("unsaved");
  expect(now().toasts.at(-1)?.text).toContain("The model has changed.");
  await session.submit();
  expect(server.submitted).toEqual([]);
  server.refusal = null;
  const [mask] = now().masks;
  if (mask) session.saveAgain(mask);
  await settled();
  expect([saveStateOf(now()), server.masks.size]).toEqual(["saved", 1]);
});

test("a refused mask that is deleted no longer counts as unsaved", async () => {
  const { server, session, now } = await opened();
  await click(session, 4);
  server.refusal = new ApiError(422, "The mask is empty.");
  session.accept();
  await settled();
  session.select(now().masks[0]?.localId ?? null);
  session.deleteSelected();
  await settled();
  expect([saveStateOf(now()), server.acts.length]).toEqual(["saved", 0]);
});

test("submitting waits for the last mask, opens the next image, and ends with the server's reason", async () => {
  const { server, session, now } = await opened();
  await click(session, 4);
  session.accept();
  await session.submit();
  expect([server.submitted, server.bodies.length, now().assignment?.id]).toEqual([[1], 1, 2]);
  expect([now().masks.length, now().history.done.length]).toEqual([0, 0]);
  await session.submit();
  expect([now().phase, now().reason]).toEqual(["empty", "Every image of this dataset is done."]);
});

test("an open mask is not lost by submitting", async () => {
  const { server, session } = await opened();
  await click(session, 4);
  await session.submit();
  expect(server.submitted).toEqual([]);
});

test("the class of the next masks is a live one, kept from mask to mask", async () => {
  const { server, session, now } = await opened();
  session.chooseCategory(0);
  expect(now().categoryId).toBe(6);
  for (const x of [4, 8]) {
    await click(session, x);
    session.accept();
  }
  await settled();
  expect(server.bodies.map((body) => body.category_id)).toEqual([6, 6]);
  session.chooseCategory(0);
  expect(now().categoryId).toBeNull();
});

test("masks that the server holds are there after a reload", async () => {
  const { server, session } = await opened();
  await click(session, 4);
  session.accept();
  await settled();
  const { now } = await opened(server);
  expect(now().masks).toHaveLength(1);
});

test("clicks outside the image do nothing, and a second box is explained", async () => {
  const { server, session, now } = await opened();
  await click(session, 400);
  session.addBox({ x: 2, y: 2, w: 10, h: 10 });
  await settled();
  session.addBox({ x: 3, y: 3, w: 10, h: 10 });
  expect(server.predictions).toHaveLength(1);
  expect(now().draft.prompts).toMatchObject([{ kind: "box", x0: 1.5, y0: 1.5, x1: 11.5, y1: 11.5 }]);
  expect(now().toasts.at(-1)?.text).toContain("one box");
});
