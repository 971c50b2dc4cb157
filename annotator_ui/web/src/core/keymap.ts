/**
 * Keys as people write them ("Ctrl+Shift+Z", "?", "Delete"), matched by the character typed, so that QWERTZ, AZERTY
 * and Dvorak work by their own letters. Only where the layout types no Latin letter does the key's place count.
 * "Ctrl" also means Command on a Mac.
 */
export interface KeyPress {
  readonly key: string;
  readonly code: string;
  readonly ctrlKey: boolean;
  readonly metaKey: boolean;
  readonly altKey: boolean;
  readonly shiftKey: boolean;
}

interface Chord {
  readonly key: string;
  readonly ctrl: boolean;
  readonly alt: boolean;
  readonly shift: boolean;
}

const NAMED: Readonly<Record<string, string>> = { esc: "escape", del: "delete", space: " ", plus: "+" };

export function parseChord(text: string): Chord {
  const parts = text.toLowerCase().split("+");
  const last = parts.pop() ?? "";
  return {
    key: NAMED[last] ?? last,
    ctrl: parts.includes("ctrl"),
    alt: parts.includes("alt"),
    shift: parts.includes("shift"),
  };
}

const isLatin = (key: string): boolean => /^[\p{Script=Latin}\p{Number}\p{Punctuation}\p{Symbol}]$/u.test(key);

/** The key in lower case; on a layout without Latin letters, the letter or digit printed at its place on QWERTY. */
function typedKey(press: KeyPress): string {
  if (press.key.length !== 1 || press.key === " " || isLatin(press.key)) return press.key.toLowerCase();
  return /^(?:Key|Digit)(.)$/.exec(press.code)?.[1]?.toLowerCase() ?? press.key.toLowerCase();
}

export function matches(press: KeyPress, chord: Chord): boolean {
  if (typedKey(press) !== chord.key) return false;
  if ((press.ctrlKey || press.metaKey) !== chord.ctrl || press.altKey !== chord.alt) return false;
  // "?" or "+" may need Shift on one layout and not on another: the character itself decides.
  const isSign = chord.key.length === 1 && !/[a-z0-9 ]/.test(chord.key);
  const isShiftedDigit = /[0-9]/.test(chord.key) && !chord.shift;
  return isSign || isShiftedDigit || press.shiftKey === chord.shift;
}

export interface Bound {
  readonly keys: readonly string[];
}

/** The first entry of `table` one of whose keys was pressed. */
export function findBound<B extends Bound>(table: readonly B[], press: KeyPress): B | null {
  return table.find((entry) => entry.keys.some((text) => matches(press, parseChord(text)))) ?? null;
}

/** Chords that a browser keeps for itself; the page must not bind them. */
const RESERVED = ["ctrl+w", "ctrl+t", "ctrl+n", "ctrl+shift+w", "ctrl+shift+n", "ctrl+shift+t", "ctrl+tab", "f5"];

/** Keys bound twice or reserved by browsers, in words; empty when the table is sound. */
export function faultsOf(table: readonly (Bound & { readonly id: string })[]): string[] {
  const owner = new Map<string, string>();
  const faults: string[] = [];
  for (const { id, keys } of table) {
    for (const key of keys.map((text) => text.toLowerCase())) {
      if (RESERVED.includes(key)) faults.push(`${id}: ${key} belongs to the browser`);
      const other = owner.get(key);
      if (other !== undefined) faults.push(`${id} and ${other} both want ${key}`);
      owner.set(key, id);
    }
  }
  return faults;
}

/** Whether keys belong to the element in focus: text fields take all, buttons and links take Enter and Space. */
export function isForElement(press: KeyPress, target: EventTarget | null): boolean {
  if (!(target instanceof Element)) return false;
  if (target.closest("input:not([type=range]), textarea, select, [contenteditable]")) return true;
  const isPressable = target.closest("button, a, [role=option], summary, input[type=range]") !== null;
  return isPressable && (press.key === "Enter" || press.key === " ");
}
