import { useQuery } from "@tanstack/react-query";
import type { ReactElement, ReactNode } from "react";

import type { Progress } from "../api/types";
import { JobPanel } from "./JobPanel";
import { SchedulePanel } from "./SchedulePanel";
import { StagePanel } from "./StagePanel";
import { VersionCharts } from "./VersionCharts";
import { VersionTable } from "./VersionTable";
import { api } from "./account";
import { Icon } from "./icons";
import { PageHeader, formatNumber, sayStage } from "./parts";
import { Link } from "./router";

const REFRESH_MS = 5000;

export function ProgressPage({ dataset }: { dataset: string }): ReactElement {
  const { data, error } = useQuery({
    queryKey: ["progress", dataset],
    queryFn: () => api.progress(dataset),
    refetchInterval: REFRESH_MS,
  });
  return (
    <div className="page">
      <PageHeader>
        <div className="row header-end">
          <Link className="button primary" to={{ page: "label", dataset }}><Icon name="prompt" size={16} />Label</Link>
        </div>
      </PageHeader>
      <main>
        <h1>{dataset} <span className="badge badge-on">{sayStage(data?.stage ?? null)}</span></h1>
        {error && <p role="alert" className="form-error">{error.message}</p>}
        {data ? <Report progress={data} /> : !error && <p className="muted">Loading…</p>}
      </main>
    </div>
  );
}

function Report({ progress }: { progress: Progress }): ReactElement {
  return (
    <>
      {progress.note && <p className="note"><Icon name="warn" size={16} />{progress.note}</p>}
      <Tiles progress={progress} />
      <StagePanel rows={progress.by_stage} openStage={progress.stage} />
      <section className="card">
        <h2>Model versions</h2>
        <VersionCharts rows={progress.by_model_version} />
        <VersionTable rows={progress.by_model_version} />
        <HeldOut progress={progress} />
      </section>
      <SchedulePanel dataset={progress.dataset} />
      <JobPanel progress={progress} />
    </>
  );
}

function Tiles({ progress }: { progress: Progress }): ReactElement {
  const { images } = progress;
  return (
    <dl className="tiles">
      <Tile name="Images done" detail={`${formatNumber(images.open)} open, ${formatNumber(images.skipped)} skipped`}>
        {formatNumber(images.done)}<small> / {formatNumber(images.total)}</small>
        <progress value={images.done} max={Math.max(images.total, 1)} aria-label="Images done" />
      </Tile>
      <Tile name="Masks">{formatNumber(progress.masks)}</Tile>
      <Tile name="Masks per image">{formatNumber(progress.masks_per_image, 1)}</Tile>
      <Tile name="Active seconds per mask" detail="median">{formatNumber(progress.active_seconds_per_mask, 1)}</Tile>
      <Tile name="Clicks per mask">{formatNumber(progress.clicks_per_mask, 1)}</Tile>
    </dl>
  );
}

function Tile({ name, detail, children }: { name: string; detail?: string; children: ReactNode }): ReactElement {
  return (
    <div className="card tile">
      <dt>{name}</dt>
      <dd>{children}</dd>
      {detail && <dd className="muted tile-detail">{detail}</dd>}
    </div>
  );
}

function HeldOut({ progress }: { progress: Progress }): ReactElement {
  const { held_out_masks: n, held_out_needed: needed } = progress;
  const need = n < needed ? ` of the ${formatNumber(needed)} a promotion needs` : "";
  return <p className="muted">{formatNumber(n)} held-out masks{need}.</p>;
}
