import type { NewSchedule, Schedule, ScheduleRun } from "../api/types";
import { formatNumber } from "./parts";

/** When it is due, in words. */
export function saySchedule({ nightly_at, every_new_masks }: NewSchedule): string {
  const nightly = nightly_at === null ? null : `nightly at ${nightly_at} UTC`;
  const masks = every_new_masks === null ? null : `every ${formatNumber(every_new_masks)} new masks`;
  const words = [nightly, masks].filter((part) => part !== null).join(" or ");
  return words.charAt(0).toUpperCase() + words.slice(1);
}

/** What it waits for next; the night in the reader's own time. */
export function sayNext({ next_due_at, masks_to_go }: Schedule): string {
  const night = next_due_at === null ? null : sayTime(next_due_at);
  const count = masks_to_go === null ? null : masks_to_go === 0 ? "now" : `after ${formatNumber(masks_to_go)} more masks`;
  return [night, count].filter((part) => part !== null).join(" or ");
}

/** The state that says most of a due time: of its round where one was started. */
export function stateOf(run: ScheduleRun): string {
  return run.round_state ?? run.state;
}

export function sayTime(at: string): string {
  return new Date(at).toLocaleString(undefined, { weekday: "short", day: "numeric", month: "short", hour: "2-digit", minute: "2-digit" });
}

/** What the form asks for, or the sentence that says what is missing. */
export function scheduleFrom(nightlyAt: string, everyNewMasks: string): NewSchedule | string {
  const every = everyNewMasks.trim() === "" ? null : Number(everyNewMasks);
  if (every !== null && !(Number.isInteger(every) && every > 0)) return "The number of new masks must be a whole number from 1.";
  if (nightlyAt === "" && every === null) return "Give a time, a number of new masks, or both.";
  return { nightly_at: nightlyAt === "" ? null : nightlyAt, every_new_masks: every };
}
