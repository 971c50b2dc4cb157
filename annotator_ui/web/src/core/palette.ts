/** Mask colours that stay apart for colour-blind eyes (after Okabe and Ito, and Tol), as [r, g, b]. */
export type Rgb = readonly [number, number, number];

const MASK_COLOURS: readonly Rgb[] = [
  [230, 159, 0],
  [0, 190, 140],
  [224, 122, 184],
  [240, 228, 66],
  [240, 104, 40],
  [170, 136, 255],
  [120, 220, 232],
  [170, 200, 60],
];

/** The mask being made: a blue that no accepted mask has. */
export const CANDIDATE: Rgb = [61, 139, 255];
/** What the model drew beforehand: pale, so that it differs from every mask of a person by more than its pattern. */
export const PREFILLED: Rgb = [214, 232, 255];
export const FOREGROUND: Rgb = [0, 176, 122];
export const BACKGROUND: Rgb = [222, 84, 20];

export function maskColour(index: number): Rgb {
  return MASK_COLOURS[index % MASK_COLOURS.length] ?? CANDIDATE;
}

export function css([r, g, b]: Rgb, alpha = 1): string {
  return `rgb(${r} ${g} ${b} / ${alpha})`;
}
