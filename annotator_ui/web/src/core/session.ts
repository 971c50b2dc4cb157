/**
 * One person labelling one dataset: the only place where the store, the predictor, the outbox and the clock meet.
 * Every public method is something a person does (see actions.ts for the keys); none of them throws.
 */
import { type ApiClient, ApiError, NetworkError, asSentence, isAbort } from "../api/client";
import type { Assignment, Prompt } from "../api/types";
import { ActiveClock } from "./clock";
import { type Act, type Command, type LocalMask, type Outcome, type Work, apply, revert } from "./commands";
import { chosenOf, hasBox, isBegun, isSettled, nextShown } from "./draft";
import { DraftKeeper } from "./draft_keeper";
import { type ImagePoint, type Rect, isInside, toPixelCentres } from "./geometry";
import { record, stepBack, stepForward } from "./history";
import { keepLease, watchPage } from "./lease";
import { Looks } from "./looks";
import { categoryFor, draftFromMask, localMaskOf, newLocalMask } from "./masks";
import { Outbox } from "./outbox";
import { Painter } from "./painter";
import { Painting } from "./painting";
import { Panels } from "./panels";
import { Poster } from "./poster";
import { Predictor } from "./predictor";
import { draftFrom, localProposalsOf } from "./proposals";
import { Review } from "./review";
import { neighbourOf, objectAt, objectsOf, selectedMask, selectedProposal } from "./selection";
import { FRESH_WORK, type LabelStore, createLabelStore } from "./store";
import { Toasts } from "./toasts";

const ASK_AGAIN_MS = 2000;

export class LabelSession {
  readonly store: LabelStore = createLabelStore();
  readonly clock = new ActiveClock();
  readonly toasts = new Toasts(this.store);
  readonly panels = new Panels(this.store);
  readonly looks = new Looks(this.store);
  readonly review = new Review(this.store, (command) => this.perform(command));
  readonly painter = new Painter(this.store, this.toasts, this.clock, {
    takeUp: () => this.takeUp(), perform: (command) => this.perform(command),
  });
  private readonly predictor: Predictor;
  private readonly outbox: Outbox;
  private readonly poster: Poster;
  private readonly painting = new Painting();
  private readonly keeper: DraftKeeper;
  private life = new AbortController();
  /** Given up when another image is asked for before this one is there. */
  private opening = new AbortController();
  /** Where "next object" goes on from, though it may be gone. */
  private lastSelectedId: string | null = null;
  private readonly timers = new Set<ReturnType<typeof setTimeout>>();

  constructor(
    private readonly api: ApiClient,
    readonly datasetName: string,
    private readonly decodeImage: (blob: Blob) => Promise<ImageBitmap> = (blob) => createImageBitmap(blob),
  ) {
    this.predictor = new Predictor((prompts, chosen, signal) => this.ask(prompts, chosen, signal), {
      draft: () => this.store.getState().draft,
      answered: (roundTripMs) => this.onAnswer(roundTripMs),
      failed: (error) => this.onPredictionFailure(error),
      waiting: (isPredicting) => this.store.setState({ isPredicting }),
    });
    this.poster = new Poster(api, this.store, this.toasts);
    this.keeper = new DraftKeeper(this.store, this.clock, (localId) => this.poster.idOf(localId));
    this.outbox = new Outbox({
      send: (posting) => this.poster.send(posting),
      changed: (outbox) => this.store.setState({ outbox }),
      refused: (posting, error) => this.poster.refused(posting, error),
      signedOut: () => this.store.setState({ isSignedOut: true }),
    });
  }

  /** Begin: load the dataset's settings and the first image, keep the lease and listen for what ends a session. */
  start(): void {
    this.life = new AbortController();
    const signal = this.life.signal;
    window.addEventListener("online", () => this.outbox.kick(), { signal });
    watchPage(this.store, this.clock, signal);
    this.keeper.watch(signal);
    keepLease(this.api, this.store, this.clock, (error) => this.fail(error), signal);
    void this.loadDataset();
    void this.next();
  }

  stop(): void {
    this.life.abort();
    this.opening.abort();
    this.predictor.reset();
    this.timers.forEach(clearTimeout);
    this.toasts.stop();
  }

  // --- prompts ------------------------------------------------------------------------------------------

  addPoint(at: ImagePoint, label: 0 | 1): void {
    const { assignment } = this.store.getState();
    if (!assignment || !isInside(at, assignment.image)) return;
    const { x, y } = toPixelCentres(at, assignment.image);
    this.addPrompt({ kind: "point", x, y, label, at_ms: this.clock.readMs() });
  }

  addBox(rect: Rect): void {
    const { assignment, draft } = this.store.getState();
    if (!assignment) return;
    if (hasBox(draft)) return this.toasts.info("A mask takes one box. Add points, or clear it with Esc.");
    const from = toPixelCentres({ x: rect.x, y: rect.y }, assignment.image);
    const to = toPixelCentres({ x: rect.x + rect.w, y: rect.y + rect.h }, assignment.image);
    if (to.x <= from.x || to.y <= from.y) return;
    this.addPrompt({ kind: "box", x0: from.x, y0: from.y, x1: to.x, y1: to.y, at_ms: this.clock.readMs() });
  }

  private addPrompt(prompt: Prompt): void {
    const state = this.store.getState();
    if (state.isSubmitting) return;
    if (prompt.kind === "point" && selectedProposal(state)) this.takeUp();
    this.store.setState({ selectedId: null });
    this.perform({ kind: "prompt", prompt });
  }

  /** Take the next of the candidates, or the one at `index`. */
  cycle(index?: number): void {
    const { draft, shown } = this.store.getState();
    if (!isSettled(draft, shown)) return;
    const n = shown.prediction.candidates.length;
    const to = index ?? (shown.choice + 1) % n;
    if (to === shown.choice || to >= n) return;
    this.perform({ kind: "cycle", from: draft.picks.at(-1) ?? null, to });
  }

  /** Take the selected mask up where it ended, prefilled or accepted: clicks and strokes go on, accepting replaces it. */
  private takeUp(): void {
    const state = this.store.getState();
    const [proposal, mask] = [selectedProposal(state), selectedMask(state)];
    if (isBegun(state.draft) || (!proposal && !mask)) return;
    const after = proposal ? draftFrom(proposal, state.draft) : mask ? draftFromMask(mask, state.draft) : state.draft;
    this.store.setState({ selectedId: null });
    this.perform({ kind: "correct", after, before: state.draft });
  }

  clear(): void {
    const { draft } = this.store.getState();
    if (isBegun(draft)) this.perform({ kind: "clear", draft });
  }

  // --- masks --------------------------------------------------------------------------------------------

  accept(): void {
    const { draft, shown, drawn, assignment, masks } = this.store.getState();
    if (!isBegun(draft)) return this.takeUp();
    if (!assignment) return;
    const chosen = chosenOf(draft, this.predictor.known, draft.prompts.length);
    if ((draft.prompts.length > 0 && !isSettled(draft, shown)) || !chosen) return this.toasts.info("The mask is still on its way.");
    if (!drawn || drawn.area === 0) return this.toasts.info("This mask is empty. Add a click, or clear it with Esc.");
    const replaced = masks.find((mask) => mask.localId === draft.supersedes) ?? null;
    if (replaced?.segmentation.counts === drawn.segmentation.counts) {
      return this.toasts.info("This mask is as it was. Click or paint to change it, or leave it with Esc.");
    }
    const finished = { ...draft, supersedes: replaced?.localId ?? null, activeMs: this.clock.readMs() };
    const made = { drawn, shown, chosen, modelVersionId: assignment.model.id, categoryId: categoryFor(this.store.getState(), replaced) };
    const mask = newLocalMask(finished, made, replaced, masks.length);
    this.perform({ kind: "accept", mask, draft: finished, replaced });
    this.clock.restart();
  }

  deleteSelected(): void {
    const { masks, selectedId } = this.store.getState();
    const proposal = selectedProposal(this.store.getState());
    if (proposal) return this.review.reject([proposal.id]);
    const index = masks.findIndex((mask) => mask.localId === selectedId);
    const mask = masks[index];
    if (mask) this.perform({ kind: "delete", mask, index });
  }

  select(localId: string | null): void {
    this.lastSelectedId = localId ?? this.lastSelectedId;
    this.store.setState({ selectedId: localId });
  }

  /** Select the smallest object under `at`; with none there, nothing is selected. */
  selectAt(at: ImagePoint): void {
    this.select(objectAt(this.store.getState(), at));
  }

  /** Step through accepted and prefilled masks; after a deletion, on from where it was. */
  selectNeighbour(step: 1 | -1): void {
    const state = this.store.getState();
    this.select(neighbourOf(state, state.selectedId ?? this.lastSelectedId, step));
  }

  /** Post a refused mask once more, as a new act. */
  saveAgain(mask: LocalMask): void {
    const refusals = new Map(this.store.getState().refusals);
    refusals.delete(mask.localId);
    this.store.setState({ refusals });
    this.post({ kind: "accept", mask });
  }

  undo(): void {
    this.travel(stepBack(this.store.getState().history), (command) => revert(this.work(), command));
  }

  redo(): void {
    this.travel(stepForward(this.store.getState().history), (command) => apply(this.work(), command, true));
  }

  // --- the image ----------------------------------------------------------------------------------------

  async submit(): Promise<void> {
    const { assignment, draft, isSubmitting, phase } = this.store.getState();
    if (!assignment || isSubmitting || phase !== "ready") return;
    if (isBegun(draft)) {
      this.toasts.info("A mask is still open: N accepts it, Esc clears it. Then submit."); return;
    }
    this.store.setState({ isSubmitting: true });
    const { nRefusedReviews } = this.poster;
    try {
      await this.outbox.flushed();
      // What was not rejected would become a mask: the person looks again first.
      if (this.poster.nRefusedReviews > nRefusedReviews) return;
      if (this.store.getState().refusals.size > 0) {
        this.toasts.error("Some masks are not saved. Save them again or delete them, then submit."); return;
      }
      await this.api.submit(assignment.id);
      await this.next();
    } catch (error) {
      this.fail(error);
    } finally {
      this.store.setState({ isSubmitting: false });
    }
  }

  async skip(reason: string): Promise<void> {
    const { assignment } = this.store.getState();
    if (!assignment) return;
    this.store.setState({ isSkipOpen: false });
    try {
      await this.outbox.flushed();
      await this.api.skip(assignment.id, reason);
      await this.next();
    } catch (error) {
      this.fail(error);
    }
  }

  /** Ask for the next image (or the one whose lease is still held) and show it. */
  async next(): Promise<void> {
    this.predictor.reset();
    this.opening.abort();
    this.opening = new AbortController();
    const { signal } = this.opening;
    this.store.setState({ phase: "loading", reason: null });
    try {
      const answer = await this.api.nextAssignment(this.datasetName);
      if (signal.aborted) return;
      if (answer.assignment) {
        await this.open(answer.assignment, signal);
        return;
      }
      this.store.setState({ ...FRESH_WORK, phase: "empty", reason: answer.reason && asSentence(answer.reason), assignment: null, image: null });
      if (answer.retry_after_s) this.after(answer.retry_after_s * 1000, () => void this.next());
    } catch (error) {
      if (signal.aborted) return;
      this.store.setState({ phase: "failed", reason: error instanceof Error ? error.message : String(error) });
      this.fail(error);
    }
  }

  private async open(assignment: Assignment, signal: AbortSignal): Promise<void> {
    const blob = await this.api.pixels(assignment.image.url, signal);
    const image = await this.decodeImage(blob);
    if (signal.aborted) {
      image.close();
      return;
    }
    this.poster.begin(assignment);
    this.store.getState().image?.close();
    const masks = assignment.masks.map((mask, i) => localMaskOf(mask, i, assignment.model.name));
    const proposals = localProposalsOf(assignment.proposals);
    this.lastSelectedId = null;
    this.painting.forget();
    const kept = this.keeper.read(assignment);
    this.store.setState({ ...FRESH_WORK, phase: "ready", assignment, image, masks, proposals, ...kept });
    this.review.setCutoff(0);
    this.clock.restart(kept?.draft.activeMs);
    this.updateShown();
    this.predictor.refresh();
  }

  // --- classes and saving -------------------------------------------------------------------------------------

  setCategory(categoryId: number | null): void {
    this.store.setState({ categoryId });
  }

  /** Choose the `n`-th live category (from 0); choosing it again takes it off. */
  chooseCategory(n: number): void {
    const { dataset, categoryId } = this.store.getState();
    const category = dataset?.categories.filter((one) => !one.retired)[n];
    if (category) this.setCategory(category.id === categoryId ? null : category.id);
  }

  /** Signed in again: what waited goes out, and what could not be loaded is asked for. */
  signedInAgain(): void {
    this.store.setState({ isSignedOut: false });
    this.outbox.kick();
    this.predictor.refresh();
    if (this.store.getState().phase === "failed") void this.next();
    if (!this.store.getState().dataset) void this.loadDataset();
  }

  retrySaving(): void {
    this.outbox.kick();
  }

  // --- inside -------------------------------------------------------------------------------------------

  private work(): Work {
    const { draft, masks, proposals } = this.store.getState();
    return { draft, masks, proposals };
  }

  private perform(command: Command): void {
    const history = record(this.store.getState().history, command);
    this.settle(apply(this.work(), command, false), history);
  }

  private travel(
    step: { command: Command; history: ReturnType<typeof record<Command>> } | null,
    outcomeOf: (command: Command) => Outcome,
  ): void {
    if (!step || this.store.getState().isSubmitting) return;
    const outcome = outcomeOf(step.command);
    this.settle(outcome, step.history);
    if (step.command.kind === "accept") this.clock.restart(outcome.work.draft.activeMs);
  }

  private settle(outcome: Outcome, history: ReturnType<typeof record<Command>>): void {
    const { selectedId } = this.store.getState();
    const isSelectedGone = !objectsOf(outcome.work).some((one) => one.localId === selectedId);
    this.store.setState({ ...outcome.work, history, ...(isSelectedGone ? { selectedId: null } : {}) });
    this.updateShown();
    this.predictor.refresh();
    outcome.acts.forEach((act) => this.post(act));
  }

  private post(act: Act): void {
    const { assignment } = this.store.getState();
    if (assignment) this.outbox.push(this.poster.postingOf(assignment.id, act));
  }

  private updateShown(): void {
    const { draft, shown: before, assignment } = this.store.getState();
    const shown = nextShown(draft, this.predictor.known, before);
    const under = shown?.candidate ?? draft.base;
    const isPainted = assignment !== null && draft.strokes.length > 0;
    const drawn = isPainted ? this.painting.over(under?.segmentation ?? null, draft.strokes, assignment.image) : under;
    this.store.setState({ shown, drawn });
  }

  private ask(prompts: Prompt[], chosen: number[], signal: AbortSignal): ReturnType<ApiClient["predict"]> {
    const { assignment } = this.store.getState();
    if (!assignment) return Promise.reject(new Error("No image is open."));
    return this.api.predict(assignment.id, prompts, chosen, signal);
  }

  private onAnswer(roundTripMs: number): void {
    this.store.setState({ latencyMs: Math.round(roundTripMs) });
    this.updateShown();
  }

  private onPredictionFailure(error: unknown): void {
    this.fail(error);
    const mayHelp = error instanceof NetworkError || (error instanceof ApiError && error.isTransient);
    if (mayHelp) this.after(ASK_AGAIN_MS, () => this.predictor.refresh());
  }

  private async loadDataset(): Promise<void> {
    try {
      this.store.setState({ dataset: await this.api.dataset(this.datasetName) });
    } catch (error) {
      this.fail(error);
    }
  }

  private fail(error: unknown): void {
    if (isAbort(error) || this.life.signal.aborted) return;
    if (error instanceof ApiError && error.status === 401) return this.store.setState({ isSignedOut: true });
    this.toasts.error(error instanceof Error ? error.message : String(error));
  }

  private after(ms: number, then: () => void): void {
    const timer = setTimeout(() => {
      this.timers.delete(timer);
      then();
    }, ms);
    this.timers.add(timer);
  }
}
