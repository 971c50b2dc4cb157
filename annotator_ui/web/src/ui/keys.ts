const isMac = /Mac|iPhone|iPad/.test(navigator.userAgent);

const SPOKEN: Readonly<Record<string, string>> = { Plus: "+", "{": "Shift+[", "}": "Shift+]" };

/** A chord as this computer's keyboard writes it. */
export function sayKey(key: string): string {
  const spoken = SPOKEN[key] ?? key;
  return isMac ? spoken.replace("Ctrl+", "⌘ ") : spoken;
}

export function sayKeys(keys: readonly string[]): string {
  return keys.map(sayKey).join(", ");
}
