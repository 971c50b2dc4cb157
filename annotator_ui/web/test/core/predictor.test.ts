import { expect, test } from "vitest";

import { NetworkError } from "../../src/api/client";
import type { Prediction, Prompt } from "../../src/api/types";
import { type Draft, EMPTY_DRAFT, type Shown, nextShown, withPick, withPrompt, withoutLastPrompt } from "../../src/core/draft";
import { Predictor } from "../../src/core/predictor";

const point = (x: number): Prompt => ({ kind: "point", x, y: 0, label: 1 });

function prediction(n: number, best: number, area: number): Prediction {
  const candidate = {
    segmentation: { size: [1, 1] as [number, number], counts: "01" }, predicted_iou: 0.9, stability_score: 0.9, area,
    bbox: [0, 0, 1, 1] as [number, number, number, number],
  };
  return { candidates: Array.from({ length: n }, () => candidate), best, model_version_id: 1, latency_ms: 5 };
}

interface Question {
  prompts: Prompt[];
  chosen: number[];
  signal: AbortSignal;
  answer(prediction: Prediction): Promise<void>;
  fail(error: Error): Promise<void>;
}

/** A predictor with a draft, whose questions are answered by hand. */
class Bench {
  draft: Draft = EMPTY_DRAFT;
  shown: Shown | null = null;
  readonly questions: Question[] = [];
  readonly failures: unknown[] = [];
  isWaiting = false;
  readonly predictor = new Predictor(
    (prompts, chosen, signal) =>
      new Promise((resolve, reject) => {
        signal.addEventListener("abort", () => reject(new DOMException("given up", "AbortError")));
        const settled = (): Promise<void> => new Promise((done) => setTimeout(done));
        this.questions.push({
          prompts, chosen, signal,
          answer: (value) => (resolve(value), settled()),
          fail: (error) => (reject(error), settled()),
        });
      }),
    {
      draft: () => this.draft,
      answered: () => this.look(),
      failed: (error) => this.failures.push(error),
      waiting: (isWaiting) => (this.isWaiting = isWaiting),
    },
    () => 0,
  );

  set(draft: Draft): void {
    this.draft = draft;
    this.look();
    this.predictor.refresh();
  }

  get last(): Question {
    const question = this.questions.at(-1);
    if (!question) throw new Error("nothing was asked");
    return question;
  }

  private look(): void {
    this.shown = nextShown(this.draft, this.predictor.known, this.shown);
  }
}

async function clickedOnce(): Promise<Bench> {
  const bench = new Bench();
  bench.set(withPrompt(EMPTY_DRAFT, point(1)));
  await bench.last.answer(prediction(3, 1, 10));
  return bench;
}

test("the first click shows the best of three candidates", async () => {
  const bench = await clickedOnce();
  expect(bench.last.chosen).toEqual([]);
  expect(bench.shown?.choice).toBe(1);
  expect(bench.isWaiting).toBe(false);
});

test("the second click is asked with the candidate in force, chosen or best", async () => {
  const best = await clickedOnce();
  best.set(withPrompt(best.draft, point(2)));
  expect(best.last.chosen).toEqual([1]);
  const picked = await clickedOnce();
  picked.set(withPrompt(withPick(picked.draft, 2), point(2)));
  expect(picked.last.chosen).toEqual([2]);
});

test("a newer click cancels the older question, and its answer is never drawn", async () => {
  const bench = await clickedOnce();
  bench.set(withPrompt(bench.draft, point(2)));
  const old = bench.last;
  bench.set(withPrompt(bench.draft, point(3)));
  expect(old.signal.aborted).toBe(true);
  expect(bench.last.prompts).toHaveLength(3);
  await old.answer(prediction(1, 0, 22));
  expect(bench.shown?.candidate.area).toBe(10);
  await bench.last.answer(prediction(1, 0, 33));
  expect(bench.shown?.candidate.area).toBe(33);
});

test("a second click before the first answer waits for it, but does not draw it", async () => {
  const bench = new Bench();
  bench.set(withPrompt(EMPTY_DRAFT, point(1)));
  bench.set(withPrompt(bench.draft, point(2)));
  expect(bench.questions).toHaveLength(1);
  expect(bench.last.signal.aborted).toBe(false);
  await bench.last.answer(prediction(3, 2, 10));
  expect(bench.shown).toBeNull();
  expect(bench.last.chosen).toEqual([2]);
  await bench.last.answer(prediction(1, 0, 20));
  expect(bench.shown?.candidate.area).toBe(20);
});

test("undo shows the earlier answer at once, without asking again", async () => {
  const bench = await clickedOnce();
  bench.set(withPrompt(bench.draft, point(2)));
  await bench.last.answer(prediction(1, 0, 20));
  const asked = bench.questions.length;
  bench.set(withoutLastPrompt(bench.draft));
  expect(bench.shown?.candidate.area).toBe(10);
  expect(bench.questions).toHaveLength(asked);
});

test("clearing gives up the question and shows nothing", async () => {
  const bench = new Bench();
  bench.set(withPrompt(EMPTY_DRAFT, point(1)));
  const question = bench.last;
  bench.set(EMPTY_DRAFT);
  expect(question.signal.aborted).toBe(true);
  await question.answer(prediction(3, 1, 10));
  expect(bench.shown).toBeNull();
  expect(bench.failures).toEqual([]);
  expect(bench.questions).toHaveLength(1);
});

test("a failure is told once and the same question may be asked again", async () => {
  const bench = new Bench();
  bench.set(withPrompt(EMPTY_DRAFT, point(1)));
  await bench.last.fail(new NetworkError());
  expect(bench.failures).toHaveLength(1);
  bench.predictor.refresh();
  expect(bench.questions).toHaveLength(2);
});
