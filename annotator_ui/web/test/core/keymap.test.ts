import { expect, test } from "vitest";

import { ACTIONS } from "../../src/core/actions";
import { type KeyPress, faultsOf, findBound, isForElement, matches, parseChord } from "../../src/core/keymap";

function press(key: string, code: string, ...modifiers: ("ctrl" | "meta" | "alt" | "shift")[]): KeyPress {
  return {
    key, code, ctrlKey: modifiers.includes("ctrl"), metaKey: modifiers.includes("meta"),
    altKey: modifiers.includes("alt"), shiftKey: modifiers.includes("shift"),
  };
}

const bound = (pressed: KeyPress): string | undefined => findBound(ACTIONS, pressed)?.id;

test("every key of the action table has one owner and none belongs to the browser", () => {
  expect(faultsOf(ACTIONS)).toEqual([]);
});

test("a key bound twice and a browser's own key are named", () => {
  const faults = faultsOf([{ id: "a", keys: ["N"] }, { id: "b", keys: ["n", "Ctrl+W"] }]);
  expect(faults).toEqual(["b and a both want n", "b: ctrl+w belongs to the browser"]);
});

test("letters match by what is typed: Z on a German keyboard is where Y is elsewhere", () => {
  expect(bound(press("z", "KeyY", "ctrl"))).toBe("undo");
  expect(bound(press("y", "KeyZ", "ctrl"))).toBe("redo");
  expect(bound(press("m", "Semicolon"))).toBe("cycle");
});

test("a layout without Latin letters falls back to the key's place", () => {
  expect(bound(press("ь", "KeyM"))).toBe("cycle");
  expect(bound(press("я", "KeyZ", "ctrl", "shift"))).toBe("redo");
});

test("Command does on a Mac what Ctrl does elsewhere", () => {
  expect(bound(press("z", "KeyZ", "meta"))).toBe("undo");
  expect(bound(press("Enter", "Enter", "meta"))).toBe("submit");
});

test("modifiers must fit exactly for letters, and are free for signs", () => {
  expect(bound(press("Enter", "Enter"))).toBe("accept");
  expect(bound(press("n", "KeyN", "ctrl"))).toBeUndefined();
  expect(bound(press("n", "KeyN", "alt"))).toBeUndefined();
  expect(bound(press("?", "Slash", "shift"))).toBe("help");
  expect(bound(press("?", "Minus"))).toBe("help");
  expect(bound(press("+", "Equal", "shift"))).toBe("zoom-in");
});

test("capital letters from Caps Lock match as well", () => {
  expect(bound(press("N", "KeyN"))).toBe("accept");
});

test("named keys are understood", () => {
  expect(matches(press("Escape", "Escape"), parseChord("Esc"))).toBe(true);
  expect(matches(press(" ", "Space"), parseChord("Space"))).toBe(true);
  expect(matches(press("Delete", "Delete"), parseChord("Del"))).toBe(true);
});

test("text fields keep all keys, buttons only Enter and Space", () => {
  const field = document.createElement("input");
  const button = document.createElement("button");
  expect(isForElement(press("n", "KeyN"), field)).toBe(true);
  expect(isForElement(press("n", "KeyN"), button)).toBe(false);
  expect(isForElement(press("Enter", "Enter"), button)).toBe(true);
  expect(isForElement(press("Enter", "Enter"), document.body)).toBe(false);
});
