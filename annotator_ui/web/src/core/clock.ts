/**
 * Milliseconds a person really worked on a mask. Time counts from one input to the next, but a pause longer than
 * five seconds counts as five, and a hidden tab counts as nothing.
 */
const IDLE_AFTER_MS = 5000;

export class ActiveClock {
  private totalMs = 0;
  private lastInputAt: number;
  private isHidden = false;

  constructor(private readonly now: () => number = () => performance.now()) {
    this.lastInputAt = now();
  }

  /** Begin a mask, or take one up again that had `totalMs` on it. */
  restart(totalMs = 0): void {
    this.totalMs = totalMs;
    this.lastInputAt = this.now();
  }

  /** Any input: a key, a click, a move of the pointer. */
  input(): void {
    this.totalMs = this.readMs();
    this.lastInputAt = this.now();
  }

  hide(): void {
    this.input();
    this.isHidden = true;
  }

  show(): void {
    this.isHidden = false;
    this.lastInputAt = this.now();
  }

  readMs(): number {
    if (this.isHidden) return this.totalMs;
    return this.totalMs + Math.round(Math.min(this.now() - this.lastInputAt, IDLE_AFTER_MS));
  }

  /** Milliseconds since the last input, hidden or not. */
  idleMs(): number {
    return this.now() - this.lastInputAt;
  }
}
