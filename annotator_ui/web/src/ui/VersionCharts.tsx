import type { ReactElement } from "react";

import type { VersionRow } from "../api/types";
import { type Series, lineChart } from "./chart_geometry";
import { formatNumber } from "./parts";

const SIZE = { width: 420, height: 150 };

/** How the versions compare: quality on held-out masks, and what a mask costs. Refused versions are left out. */
export function VersionCharts({ rows }: { rows: VersionRow[] }): ReactElement | null {
  const served = rows.filter((row) => row.state !== "refused");
  if (served.length < 2) return null;
  const names = served.map((row) => row.model_version);
  return (
    <div className="charts">
      <Chart title="mIoU on held-out masks" names={names} digits={2} top={1} series={[
        { name: "1 click", values: served.map((row) => row.miou_1_click) },
        { name: "3 clicks", values: served.map((row) => row.miou_3_clicks) },
      ]} />
      <Chart title="Clicks" names={names} digits={1} series={[
        { name: "to IoU 0.85", values: served.map((row) => row.noc_85) },
        { name: "per mask", values: served.map((row) => row.clicks_per_mask) },
      ]} />
    </div>
  );
}

interface ChartProps {
  title: string;
  names: string[];
  series: Series[];
  digits: number;
  /** The end of the scale; the largest value when absent. */
  top?: number;
}

function Chart({ title, names, series, digits, top }: ChartProps): ReactElement {
  const { lines, ticks, columns } = lineChart(series, names.length, SIZE, top);
  return (
    <figure className="chart">
      <figcaption>{title}<Legend series={series} /></figcaption>
      <svg viewBox={`0 0 ${SIZE.width} ${SIZE.height}`} role="img" aria-label={`${title} by model version`}>
        {ticks.map(({ y, value }) => (
          <g key={value}>
            <line className="grid" x1="34" x2={SIZE.width - 8} y1={y} y2={y} />
            <text x="28" y={y + 4} textAnchor="end">{value.toFixed(digits)}</text>
          </g>
        ))}
        {names.map((name, i) => <text key={name} x={columns[i]} y={SIZE.height - 4} textAnchor="middle">{shorten(name)}</text>)}
        {lines.map((line, s) => (
          <g key={line.name} className={`series series-${s}`}>
            <path d={line.path} />
            {line.dots.map((dot) => (
              <circle key={dot.x} cx={dot.x} cy={dot.y} r="4">
                <title>{`${names[dot.column] ?? ""}, ${line.name}: ${formatNumber(dot.value, digits + 1)}`}</title>
              </circle>
            ))}
          </g>
        ))}
      </svg>
    </figure>
  );
}

function Legend({ series }: { series: Series[] }): ReactElement {
  return (
    <span className="legend">
      {series.map(({ name }, s) => <span key={name} className={`series-${s}`}><i />{name}</span>)}
    </span>
  );
}

function shorten(name: string): string {
  return name.length > 14 ? `…${name.slice(-12)}` : name;
}
