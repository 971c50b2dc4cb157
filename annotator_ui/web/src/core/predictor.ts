/**
 * Asks the server for masks, one question at a time. A newer prompt gives up the question before it, and an answer
 * is filed under the exact prompts it answers, so that no answer to an old click is ever drawn.
 */
import { isAbort } from "../api/client";
import type { Prediction, Prompt } from "../api/types";
import { type Draft, type Predictions, keyOf, requestFor } from "./draft";

export type Ask = (prompts: Prompt[], chosen: number[], signal: AbortSignal) => Promise<Prediction>;

export interface PredictorEvents {
  /** The draft as it is now: prompts may have come or gone while a question was out. */
  draft(): Draft;
  answered(roundTripMs: number): void;
  failed(error: unknown): void;
  waiting(isWaiting: boolean): void;
}

export class Predictor {
  private readonly answers = new Map<string, Prediction>();
  private flight: { key: string; controller: AbortController } | null = null;

  constructor(
    private readonly ask: Ask,
    private readonly events: PredictorEvents,
    private readonly now: () => number = () => performance.now(),
  ) {}

  get known(): Predictions {
    return this.answers;
  }

  /** See to it that the last prompt of the draft gets its answer. Call after every change of the draft. */
  refresh(): void {
    const draft = this.events.draft();
    const n = draft.prompts.length;
    // Later prompts need the first one's choice, so the first answer is waited for, though not drawn.
    const request = requestFor(draft, this.answers, n) ?? requestFor(draft, this.answers, 1);
    const key = request && keyOf(request.prompts, request.chosen);
    if (!request || key === null || this.answers.has(key)) return this.cancel();
    if (this.flight?.key === key) return;
    this.cancel();
    void this.fly(key, request.prompts, request.chosen);
  }

  /** Forget every answer: another image, or another model. */
  reset(): void {
    this.cancel();
    this.answers.clear();
  }

  private cancel(): void {
    this.flight?.controller.abort();
    this.flight = null;
    this.events.waiting(false);
  }

  private async fly(key: string, prompts: Prompt[], chosen: number[]): Promise<void> {
    const flight = { key, controller: new AbortController() };
    this.flight = flight;
    this.events.waiting(true);
    const startedAt = this.now();
    try {
      const prediction = await this.ask(prompts, chosen, flight.controller.signal);
      if (this.flight !== flight) return;
      this.answers.set(key, prediction);
      this.land();
      this.events.answered(this.now() - startedAt);
      this.refresh();
    } catch (error) {
      if (this.flight !== flight) return;
      this.land();
      if (!isAbort(error)) this.events.failed(error);
    }
  }

  private land(): void {
    this.flight = null;
    this.events.waiting(false);
  }
}
