import { afterEach, expect, test } from "vitest";

import type { Mask, PathStroke, Stroke } from "../../src/api/types";
import { actionById } from "../../src/core/actions";
import { bitmapFor } from "../../src/core/bitmaps";
import { imagePoint } from "../../src/core/geometry";
import { covers } from "../../src/core/mask";
import { encodeMask } from "../../src/core/rle";
import { LabelSession } from "../../src/core/session";
import { type LabelState, saveStateOf } from "../../src/core/store";
import { adds, coverOf } from "../../src/core/strokes";
import { ApiError } from "../../src/api/client";
import { FakeServer } from "./fake_server";

const SIZE = { width: 40, height: 30 };
const sessions: LabelSession[] = [];
afterEach(() => {
  sessions.splice(0).forEach((session) => session.stop());
  sessionStorage.clear();
});

const settled = (ms = 5): Promise<void> => new Promise((resolve) => setTimeout(resolve, ms));

/** Answers to n prompts are a block that grows with n. */
class BlockServer extends FakeServer {
  override async predict(...asked: Parameters<FakeServer["predict"]>): ReturnType<FakeServer["predict"]> {
    const prediction = await super.predict(...asked);
    const width = 6 + 3 * asked[1].length;
    const candidates = prediction.candidates.map((one) => ({ ...one, segmentation: block(4, 4, width, 9), area: 9 * width }));
    return { ...prediction, candidates };
  }
}

function block(x: number, y: number, w: number, h: number): Mask["segmentation"] {
  const pixels = Array.from({ length: SIZE.width * SIZE.height }, (_, i) => {
    const [column, row] = [i % SIZE.width, Math.floor(i / SIZE.width)];
    return column >= x && column < x + w && row >= y && row < y + h ? 1 : 0;
  });
  return encodeMask(pixels, SIZE.height, SIZE.width);
}

function imported(id: number): Mask {
  return {
    id, segmentation: block(20, 15, 8, 8), bbox: [20, 15, 8, 8], area: 64, stage: null, source: "imported", predicted_iou: null,
    stability_score: null, category_id: null, author: null, model_version: null, prompts: [], chosen: [], strokes: [], created_at: "",
  };
}

async function opened(server: FakeServer = new BlockServer()): Promise<{ server: FakeServer; session: LabelSession; now: () => LabelState }> {
  const image = { ...SIZE, close: () => undefined } as ImageBitmap;
  const session = new LabelSession(server, "demo", () => Promise.resolve(image));
  sessions.push(session);
  session.start();
  await settled();
  return { server, session, now: () => session.store.getState() };
}

async function click(session: LabelSession, x: number): Promise<void> {
  session.addPoint(imagePoint(x + 0.5, 6.5), 1);
  await settled();
}

const brush = (...points: number[]): PathStroke => ({ kind: "brush", size: 4, points });
const erase = (...points: number[]): PathStroke => ({ kind: "erase", size: 4, points });
const lasso = (label: 0 | 1, ...points: number[]): PathStroke => ({ kind: "lasso", label, points });

function stroke(session: LabelSession, one: PathStroke): void {
  if (session.painter.begin({ ...one, points: [] })) session.painter.add(one);
}

const countsNow = (now: () => LabelState): string | undefined => now().drawn?.segmentation.counts;

/** Whether each pixel shows the last stroke that covers it. */
function obeys(now: () => LabelState): boolean {
  const { drawn, draft } = now();
  const last = new Map<string, boolean>();
  for (const one of draft.strokes) {
    const cover = coverOf(one, SIZE);
    cover.pixels.forEach((pixel, i) => {
      if (pixel) last.set(`${cover.x + (i % cover.w)},${cover.y + Math.floor(i / cover.w)}`, adds(one));
    });
  }
  return [...last].every(([at, isIn]) => {
    const [x = 0, y = 0] = at.split(",").map(Number);
    return (drawn !== null && covers(bitmapFor(drawn.segmentation), x, y)) === isIn;
  });
}

test("strokes alone make a mask, saved without prompts and without the model's scores", async () => {
  const { server, session, now } = await opened();
  stroke(session, brush(10, 10, 20, 10));
  stroke(session, erase(14, 10));
  session.accept();
  await settled();
  const [body] = server.bodies;
  expect(body).toMatchObject({ prompts: [], chosen: [], predicted_iou: null, stability_score: null, model_version_id: 9 });
  expect(body?.strokes).toMatchObject([{ kind: "brush", points: [10, 10, 20, 10] }, { kind: "erase" }]);
  expect([now().masks.length, now().draft.strokes.length, saveStateOf(now())]).toEqual([1, 0, "saved"]);
});

test("clicks and strokes are undone one by one to the very bytes, and done again", async () => {
  const { session, now } = await opened();
  const acts: (() => void | Promise<void>)[] = [
    () => stroke(session, brush(2, 2, 30, 25)), () => click(session, 6), () => stroke(session, erase(5, 5, 12, 9)),
    () => click(session, 9), () => stroke(session, lasso(1, 25, 3, 38, 3, 30, 12)), () => stroke(session, lasso(0, 6, 6, 10, 6, 8, 9)),
    () => session.painter.fillHoles(), () => session.painter.removeSpecks(), () => click(session, 12),
  ];
  const seen: (string | undefined)[] = [countsNow(now)];
  for (const act of acts) {
    await act();
    expect(obeys(now)).toBe(true);
    if (countsNow(now) !== seen.at(-1) || now().history.done.length === seen.length) seen.push(countsNow(now));
  }
  const n = now().history.done.length;
  expect(seen).toHaveLength(n + 1);
  for (let i = n - 1; i >= 0; i--) {
    session.undo();
    await settled();
    expect(countsNow(now)).toBe(seen[i]);
  }
  for (let i = 1; i <= n; i++) {
    session.redo();
    await settled();
    expect(countsNow(now)).toBe(seen[i]);
  }
});

test("a reload keeps clicks, strokes and the steps back", async () => {
  const { server, session, now } = await opened();
  for (const y of [5, 12, 20]) stroke(session, y === 12 ? erase(3, y, 30, y) : brush(3, y, 30, y));
  await click(session, 6);
  await click(session, 9);
  const before = countsNow(now);
  session.stop();
  const again = await opened(server);
  await settled();
  expect(countsNow(again.now)).toBe(before);
  await click(again.session, 12);
  expect([obeys(again.now), again.now().draft.prompts.length]).toEqual([true, 3]);
  for (let i = 0; i < 6; i++) again.session.undo();
  expect([again.now().draft.prompts.length, again.now().draft.strokes.length, again.now().drawn]).toEqual([0, 0, null]);
  again.session.stop();
  expect(sessionStorage.length).toBe(0);
});

test("a stroke with an imported mask selected corrects it, in its place; undo brings it back on the server", async () => {
  const server = new BlockServer();
  server.masks.set(7, imported(7));
  const { session, now } = await opened(server);
  const old = now().masks[0]?.segmentation.counts;
  session.select("server-7");
  stroke(session, brush(10, 18, 20, 18));
  expect([now().draft.supersedes, now().selectedId, obeys(now)]).toEqual(["server-7", null, true]);
  expect(now().drawn?.area).toBeGreaterThan(64);
  session.accept();
  await settled();
  expect(server.bodies[0]).toMatchObject({ supersedes_id: 7, prompts: [] });
  expect(now().masks).toHaveLength(1);
  session.undo();
  await settled();
  expect([now().masks[0]?.segmentation.counts, server.acts]).toEqual([old, ["accept", "restore"]]);
  session.redo();
  await settled();
  expect([server.acts, saveStateOf(now()), server.masks.size]).toEqual([["accept", "restore", "restore"], "saved", 1]);
});

test("a mask taken up again keeps its clicks and strokes, and a click refines it", async () => {
  const { server, session, now } = await opened();
  await click(session, 6);
  stroke(session, erase(6, 6));
  session.accept();
  await settled();
  const made = now().masks[0]?.segmentation.counts;
  session.select(now().masks[0]?.localId ?? null);
  session.accept();
  await settled();
  expect([now().draft.prompts.length, now().draft.strokes.length, countsNow(now)]).toEqual([1, 1, made]);
  session.accept();
  expect(now().toasts.at(-1)?.text).toContain("as it was");
  await click(session, 9);
  expect(obeys(now)).toBe(true);
  session.accept();
  await settled();
  expect(server.bodies[1]).toMatchObject({ supersedes_id: 100, prompts: [{ x: 6 }, { x: 9 }], chosen: [2, 0] });
  expect(now().masks).toHaveLength(1);
});

test("a stroke on a prefilled mask corrects it; corrected once more it still stands for the proposal", async () => {
  const server = new BlockServer();
  server.proposals = [{
    id: 5, score: 0.9, segmentation: block(4, 4, 9, 9), bbox: [4, 4, 9, 9], area: 81, predicted_iou: 0.9, stability_score: 0.9,
    prompts: [{ kind: "box", x0: 4, y0: 4, x1: 12, y1: 12 }], chosen: [1], state: "open",
  }];
  const { session, now } = await opened(server);
  session.select("proposal-5");
  stroke(session, brush(20, 20));
  expect([now().draft.proposalId, obeys(now)]).toEqual([5, true]);
  await settled();
  session.accept();
  await settled();
  session.select(now().masks[0]?.localId ?? null);
  stroke(session, brush(30, 20));
  await settled();
  session.accept();
  await settled();
  expect(server.bodies).toMatchObject([{ proposal_id: 5, supersedes_id: null }, { supersedes_id: 100 }]);
  expect(server.bodies[1]).not.toHaveProperty("proposal_id");
  session.undo();
  expect(now().proposals[0]?.state).toBe("corrected");
  session.redo();
  session.select(now().masks[0]?.localId ?? null);
  session.deleteSelected();
  await settled();
  expect([now().proposals[0]?.state, server.acts.slice(-2)]).toEqual(["rejected", ["delete", "reject"]]);
});

test("a refused correction can be undone without a word to the server", async () => {
  const server = new BlockServer();
  server.masks.set(7, imported(7));
  const { session, now } = await opened(server);
  session.select("server-7");
  stroke(session, brush(10, 18));
  server.refusal = new ApiError(422, "The mask does not show its strokes.");
  session.accept();
  await settled();
  expect(saveStateOf(now())).toBe("unsaved");
  server.refusal = null;
  session.undo();
  await settled();
  expect([saveStateOf(now()), server.acts, now().masks[0]?.localId]).toEqual(["saved", [], "server-7"]);
});

test("the eraser with nothing to take away says so, and an emptied mask is not accepted", async () => {
  const { server, session, now } = await opened();
  stroke(session, erase(10, 10));
  expect([now().draft.strokes.length, now().toasts.at(-1)?.text]).toEqual([0, expect.stringContaining("nothing to take away")]);
  stroke(session, brush(10, 10));
  stroke(session, erase(8, 10, 12, 10));
  session.accept();
  expect([server.bodies.length, now().toasts.at(-1)?.text]).toEqual([0, expect.stringContaining("empty")]);
  session.clear();
  session.undo();
  expect(now().draft.strokes).toHaveLength(2);
});

test("filled pixels and removed specks stay so whatever is clicked later", async () => {
  const { session, now } = await opened();
  stroke(session, brush(6, 20, 30, 20));
  stroke(session, { kind: "brush", size: 1, points: [36, 3] });
  actionById("remove-specks").run(session);
  expect(now().draft.strokes.map(({ kind }) => kind)).toEqual(["brush", "brush", "remove_specks"]);
  session.painter.removeSpecks();
  expect(now().toasts.at(-1)?.text).toContain("no specks");
  await click(session, 6);
  expect(obeys(now)).toBe(true);
});

test("a mask that holds too many strokes begins again from its pixels", async () => {
  const many: Stroke[] = Array.from({ length: 600 }, () => brush(22, 18));
  const server = new BlockServer();
  server.masks.set(7, { ...imported(7), strokes: many });
  const { session, now } = await opened(server);
  session.select("server-7");
  stroke(session, brush(10, 18));
  expect(now().draft.strokes).toHaveLength(1);
});

test("the brush grows and shrinks within its bounds, by at least a pixel", async () => {
  const { session, now } = await opened();
  session.looks.setBrushSize(2);
  actionById("larger").run(session);
  expect(now().brushSize).toBe(3);
  for (let i = 0; i < 60; i++) session.looks.stepBrushSize(1);
  expect(now().brushSize).toBe(500);
  for (let i = 0; i < 60; i++) session.looks.stepBrushSize(-1);
  expect(now().brushSize).toBe(1);
});
