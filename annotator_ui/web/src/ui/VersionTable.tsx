import type { ReactElement } from "react";

import type { VersionRow } from "../api/types";
import { formatNumber } from "./parts";

const HEADS = [
  ["Version", ""], ["State", ""], ["Masks", "Masks accepted with this version"], ["Images", ""],
  ["s / mask", "Active seconds per mask, median"], ["Clicks / mask", ""],
  ["mIoU@1", "Mean IoU after one click, held-out masks"], ["mIoU@3", "Mean IoU after three clicks, held-out masks"],
  ["NoC85", "Clicks to reach IoU 0.85, held-out masks"], ["Why", ""],
] as const;

export function VersionTable({ rows }: { rows: VersionRow[] }): ReactElement {
  if (rows.length === 0) return <p className="muted">No model version yet.</p>;
  return (
    <div className="table-scroll" tabIndex={0} role="region" aria-label="Model versions">
      <table>
        <thead><tr>{HEADS.map(([head, title]) => <th key={head} scope="col" title={title}>{head}</th>)}</tr></thead>
        <tbody>{rows.map((row) => <Row key={row.model_version} row={row} />)}</tbody>
      </table>
    </div>
  );
}

function Row({ row }: { row: VersionRow }): ReactElement {
  return (
    <tr data-state={row.state}>
      <th scope="row">{row.model_version}</th>
      <td><span className="badge" data-state={row.state}>{row.state}</span></td>
      <td>{formatNumber(row.masks)}</td>
      <td>{formatNumber(row.images)}</td>
      <td>{formatNumber(row.active_seconds_per_mask, 1)}</td>
      <td>{formatNumber(row.clicks_per_mask, 1)}</td>
      <td>{formatNumber(row.miou_1_click, 3)}</td>
      <td>{formatNumber(row.miou_3_clicks, 3)}</td>
      <td>{formatNumber(row.noc_85, 2)}</td>
      <td className="reason">{row.decided_reason ?? ""}</td>
    </tr>
  );
}
