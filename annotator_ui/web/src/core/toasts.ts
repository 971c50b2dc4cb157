import type { LabelStore, Toast } from "./store";

const SHOW_MS = { info: 4000, error: 9000 } as const;
const MAX_TOASTS = 4;

/** Short sentences that appear over the page and leave by themselves; the same sentence never stands twice. */
export class Toasts {
  private nextId = 1;
  private readonly timers = new Set<ReturnType<typeof setTimeout>>();

  constructor(private readonly store: LabelStore) {}

  info(text: string): void {
    this.show("info", text);
  }

  error(text: string): void {
    this.show("error", text);
  }

  dismiss(id: number): void {
    this.store.setState((state) => ({ toasts: state.toasts.filter((toast) => toast.id !== id) }));
  }

  stop(): void {
    this.timers.forEach(clearTimeout);
  }

  private show(tone: Toast["tone"], text: string): void {
    const id = this.nextId++;
    this.store.setState((state) => ({
      toasts: [...state.toasts.filter((toast) => toast.text !== text), { id, tone, text }].slice(-MAX_TOASTS),
    }));
    const timer = setTimeout(() => {
      this.timers.delete(timer);
      this.dismiss(id);
    }, SHOW_MS[tone]);
    this.timers.add(timer);
  }
}
