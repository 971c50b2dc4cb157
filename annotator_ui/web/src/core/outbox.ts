/**
 * Acts on their way to the server, one after another in the order they were done. An act that gets no answer is sent
 * again under the same client_id until it does; one that the server refuses is handed back with its sentence.
 */
import { ApiError, NetworkError } from "../api/client";
import type { Act } from "./commands";

export interface Posting {
  readonly assignmentId: number;
  readonly clientId: string;
  readonly act: Act;
}

export interface OutboxState {
  readonly nPending: number;
  /** The last attempt got no answer and the next one is waiting. */
  readonly isStuck: boolean;
}

export interface OutboxEvents {
  send(posting: Posting): Promise<void>;
  changed(state: OutboxState): void;
  refused(posting: Posting, error: Error): void;
  signedOut(): void;
}

const FIRST_DELAY_MS = 800;
const LAST_DELAY_MS = 15_000;

export class Outbox {
  private readonly queue: Posting[] = [];
  private isSending = false;
  private isStuck = false;
  private wake: (() => void) | null = null;
  private readonly idle: (() => void)[] = [];

  constructor(
    private readonly events: OutboxEvents,
    private readonly firstDelayMs = FIRST_DELAY_MS,
  ) {}

  get nPending(): number {
    return this.queue.length;
  }

  push(posting: Posting): void {
    this.queue.push(posting);
    this.tell();
    if (!this.isSending) void this.run();
  }

  /** Try again now rather than when the delay is over (back online, signed in again, or asked by hand). */
  kick(): void {
    this.wake?.();
  }

  /** Resolves when every act has been answered. */
  flushed(): Promise<void> {
    if (this.queue.length === 0) return Promise.resolve();
    return new Promise((resolve) => this.idle.push(resolve));
  }

  private async run(): Promise<void> {
    this.isSending = true;
    let delayMs = this.firstDelayMs;
    for (let posting = this.queue[0]; posting; posting = this.queue[0]) {
      const again = await this.attempt(posting);
      if (again) {
        await this.sleep(Math.max(delayMs, again.atLeastMs));
        delayMs = Math.min(delayMs * 2, LAST_DELAY_MS);
      } else {
        delayMs = this.firstDelayMs;
        this.queue.shift();
        this.tell();
      }
    }
    this.isSending = false;
    this.idle.splice(0).forEach((resolve) => resolve());
  }

  private async attempt(posting: Posting): Promise<{ atLeastMs: number } | null> {
    try {
      await this.events.send(posting);
      this.isStuck = false;
      return null;
    } catch (error) {
      return this.judge(posting, error instanceof Error ? error : new Error(String(error)));
    }
  }

  private judge(posting: Posting, error: Error): { atLeastMs: number } | null {
    const isSignedOut = error instanceof ApiError && error.status === 401;
    if (isSignedOut) this.events.signedOut();
    if (isSignedOut || error instanceof NetworkError || (error instanceof ApiError && error.isTransient)) {
      this.isStuck = true;
      this.tell();
      return { atLeastMs: error instanceof ApiError ? (error.retryAfterS ?? 0) * 1000 : 0 };
    }
    this.isStuck = false;
    this.events.refused(posting, error);
    return null;
  }

  private sleep(ms: number): Promise<void> {
    return new Promise((resolve) => {
      const done = (): void => {
        clearTimeout(timer);
        this.wake = null;
        resolve();
      };
      const timer = setTimeout(done, ms);
      this.wake = done;
    });
  }

  private tell(): void {
    this.events.changed({ nPending: this.queue.length, isStuck: this.isStuck });
  }
}
