import { expect, test } from "vitest";

import { ActiveClock } from "../../src/core/clock";

function clockAt(): { clock: ActiveClock; wait: (ms: number) => void } {
  let now = 1000;
  const clock = new ActiveClock(() => now);
  return { clock, wait: (ms) => (now += ms) };
}

test("time between inputs counts", () => {
  const { clock, wait } = clockAt();
  wait(1200);
  clock.input();
  wait(800);
  expect(clock.readMs()).toBe(2000);
});

test("a pause longer than five seconds counts as five", () => {
  const { clock, wait } = clockAt();
  wait(60_000);
  expect(clock.readMs()).toBe(5000);
  clock.input();
  wait(300);
  expect(clock.readMs()).toBe(5300);
  expect(clock.idleMs()).toBe(300);
});

test("a hidden tab counts as nothing", () => {
  const { clock, wait } = clockAt();
  wait(1000);
  clock.hide();
  wait(3000);
  expect(clock.readMs()).toBe(1000);
  clock.show();
  wait(500);
  expect(clock.readMs()).toBe(1500);
});

test("a mask taken up again goes on from its time", () => {
  const { clock, wait } = clockAt();
  wait(4000);
  clock.restart(700);
  wait(100);
  expect(clock.readMs()).toBe(800);
});
