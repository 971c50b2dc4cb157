export interface Series {
  readonly name: string;
  readonly values: readonly (number | null)[];
}

export interface Dot {
  readonly x: number;
  readonly y: number;
  readonly column: number;
  readonly value: number;
}

export interface Line {
  readonly name: string;
  readonly path: string;
  readonly dots: readonly Dot[];
}

interface Chart {
  readonly lines: readonly Line[];
  readonly ticks: readonly { y: number; value: number }[];
  readonly columns: readonly number[];
}

const PAD = { left: 72, right: 48, top: 10, bottom: 26 };

/** Places of a line chart from zero to `top` (or the largest value); missing values leave a gap in dots only. */
export function lineChart(series: Series[], n: number, size: { width: number; height: number }, top?: number): Chart {
  const values = series.flatMap((one) => one.values.filter((value) => value !== null));
  const end = top ?? niceCeiling(Math.max(...values, 0));
  const columns = Array.from({ length: n }, (_, i) =>
    n === 1 ? size.width / 2 : PAD.left + (i * (size.width - PAD.left - PAD.right)) / (n - 1));
  const yOf = (value: number): number => PAD.top + (1 - value / end) * (size.height - PAD.top - PAD.bottom);
  const lines = series.map(({ name, values: own }) => {
    const dots = own.flatMap((value, column) =>
      value === null ? [] : [{ x: columns[column] ?? 0, y: yOf(value), column, value }]);
    return { name, dots, path: dots.map(({ x, y }, i) => `${i ? "L" : "M"}${x} ${y}`).join("") };
  });
  return { lines, columns, ticks: [0, end / 2, end].map((value) => ({ value, y: yOf(value) })) };
}

/** The next of 1, 2, 5, 10, 20, ... at or above `value`. */
export function niceCeiling(value: number): number {
  if (value <= 0) return 1;
  const power = 10 ** Math.floor(Math.log10(value));
  return ([1, 2, 5, 10].find((step) => step * power >= value) ?? 10) * power;
}
