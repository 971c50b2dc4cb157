import type { ReactElement } from "react";

import type { DetectorRow, StageRow } from "../api/types";
import { formatNumber, formatPercent, sayStage } from "./parts";

const HEADS = [
  ["Stage", ""], ["State", ""], ["Images", "Images done in this stage"], ["Masks", "Current masks made in this stage"],
  ["Masks / image", ""], ["Prefilled", "Masks drawn beforehand that people have looked at"],
  ["Kept", "Share of the prefilled masks that people let stand"], ["Rejected", "Share that people threw out"],
] as const;

/** The three stages side by side, and how good the prefilling detector is. */
export function StagePanel({ rows, openStage }: { rows: StageRow[]; openStage: string | null }): ReactElement {
  const detector = rows.find((row) => row.detector !== null)?.detector ?? null;
  return (
    <section className="card">
      <h2>Stages</h2>
      <div className="table-scroll" tabIndex={0} role="region" aria-label="Stages">
        <table className="stages">
          <thead><tr>{HEADS.map(([head, title]) => <th key={head} scope="col" title={title}>{head}</th>)}</tr></thead>
          <tbody>{rows.map((row) => <Row key={row.stage} row={row} isOpen={row.stage === openStage} />)}</tbody>
        </table>
      </div>
      {detector && <Detector row={detector} />}
    </section>
  );
}

function Row({ row, isOpen }: { row: StageRow; isOpen: boolean }): ReactElement {
  return (
    <tr data-state={isOpen ? "active" : undefined}>
      <th scope="row">{sayStage(row.stage)}</th>
      <td>{isOpen && <span className="badge badge-on">open</span>}</td>
      <td>{formatNumber(row.images)}</td>
      <td>{formatNumber(row.masks)}</td>
      <td>{formatNumber(row.masks_per_image, 1)}</td>
      <td>{row.prefilled > 0 ? formatNumber(row.prefilled) : "–"}</td>
      <td>{formatPercent(row.share_kept)}</td>
      <td>{formatPercent(row.share_rejected)}</td>
    </tr>
  );
}

function Detector({ row }: { row: DetectorRow }): ReactElement {
  const allowed = `at most ${formatPercent(row.false_prefill_rate)} false ones asked`;
  return (
    <>
      <h3 className="detector-title">Detector {row.name}, reading {row.model_version}</h3>
      <dl className="figures">
        <Figure name="Average recall" value={formatNumber(row.average_recall, 3)}
          detail={`untrained ${formatNumber(row.untrained_average_recall, 3)}, random boxes ${formatNumber(row.random_average_recall, 3)}`} />
        <Figure name="Prefills from score" value={formatNumber(row.threshold, 2)} detail={allowed} />
        <Figure name="False ones, estimated" value={formatPercent(row.false_share)} detail="things nobody had time to draw count in part" />
        <Figure name="Precision, at least" value={formatPercent(row.precision_at_threshold)} detail={`recall ${formatPercent(row.recall_at_threshold)}`} />
        <Figure name="Measured on" value={formatNumber(row.n_images)} detail="held-out images" />
      </dl>
      {row.reason !== null && <p className="muted">{row.reason}</p>}
    </>
  );
}

function Figure({ name, value, detail }: { name: string; value: string; detail: string }): ReactElement {
  return (
    <div>
      <dt>{name}</dt>
      <dd>{value}</dd>
      <dd className="muted tile-detail">{detail}</dd>
    </div>
  );
}
