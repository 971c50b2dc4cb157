import type { ApiClient } from "../api/client";
import type { ActiveClock } from "./clock";
import type { LabelStore } from "./store";

const RENEW_EVERY_MS = 4 * 60_000;

/**
 * Keep the image's lease alive while somebody works on it. Somebody who left gives the image back by letting the lease
 * run out, so nothing is renewed after a stretch without input. Ends when `signal` aborts.
 */
export function keepLease(
  api: ApiClient, store: LabelStore, clock: ActiveClock, failed: (error: unknown) => void, signal: AbortSignal,
): void {
  const timer = setInterval(() => {
    const { assignment } = store.getState();
    if (assignment && clock.idleMs() <= RENEW_EVERY_MS) api.renew(assignment.id).catch(failed);
  }, RENEW_EVERY_MS);
  signal.addEventListener("abort", () => clearInterval(timer));
}

/** Stop the clock while the tab is hidden, and warn before a page with unsaved masks is closed. */
export function watchPage(store: LabelStore, clock: ActiveClock, signal: AbortSignal): void {
  document.addEventListener("visibilitychange", () => (document.hidden ? clock.hide() : clock.show()), { signal });
  window.addEventListener("beforeunload", (event) => {
    const { outbox, refusals } = store.getState();
    if (outbox.nPending > 0 || refusals.size > 0) event.preventDefault();
  }, { signal });
}
