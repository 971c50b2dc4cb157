import { expect, test } from "vitest";

import { asSentence } from "../../src/api/client";
import { lineChart, niceCeiling } from "../../src/ui/chart_geometry";
import { parseRoute, pathOf } from "../../src/ui/router";
import { sayNext, saySchedule, scheduleFrom } from "../../src/ui/schedule_words";

test.each(["/", "/sign-in", "/label/my%20set", "/progress/demo"])("the address %s names a page and is named by it", (path) => {
  expect(pathOf(parseRoute(path))).toBe(path);
});

test("an unknown address shows the datasets", () => {
  expect(parseRoute("/label")).toEqual({ page: "datasets" });
  expect(parseRoute("/x/%E0%A4%A")).toEqual({ page: "datasets" });
});

test("a chart leaves out what was not measured", () => {
  const { lines, ticks } = lineChart([{ name: "a", values: [1, null, 3] }], 3, { width: 400, height: 150 });
  expect(lines[0]?.dots.map(({ column }) => column)).toEqual([0, 2]);
  expect(ticks.map(({ value }) => value)).toEqual([0, 2.5, 5]);
});

test("a scale ends at a round number", () => {
  expect([0, 0.7, 1, 3.2, 11].map(niceCeiling)).toEqual([1, 1, 1, 5, 20]);
});

test("the server's words become a sentence", () => {
  expect(asSentence("this link has run out: ask for a new one")).toBe("This link has run out: ask for a new one.");
  expect(asSentence("Every image is done.")).toBe("Every image is done.");
});

test("a schedule says when it is due, by time, by masks, or by whichever comes first", () => {
  expect(saySchedule({ nightly_at: "02:00", every_new_masks: null })).toBe("Nightly at 02:00 UTC");
  expect(saySchedule({ nightly_at: null, every_new_masks: 5000 })).toBe("Every 5,000 new masks");
  expect(saySchedule({ nightly_at: "02:00", every_new_masks: 40 })).toBe("Nightly at 02:00 UTC or every 40 new masks");
  const schedule = { id: 1, nightly_at: null, every_new_masks: 40, created_at: "", next_due_at: null, runs: [] };
  expect(sayNext({ ...schedule, masks_to_go: 12 })).toBe("after 12 more masks");
  expect(sayNext({ ...schedule, masks_to_go: 0 })).toBe("now");
});

test("the schedule form asks for a time, a whole number of masks, or both", () => {
  expect(scheduleFrom("02:00", "")).toEqual({ nightly_at: "02:00", every_new_masks: null });
  expect(scheduleFrom("", "5000")).toEqual({ nightly_at: null, every_new_masks: 5000 });
  expect([scheduleFrom("", ""), scheduleFrom("", "0"), scheduleFrom("02:00", "1.5")].map((one) => typeof one))
    .toEqual(["string", "string", "string"]);
});
