import { useMutation, useQueryClient } from "@tanstack/react-query";
import type { ReactElement } from "react";

import type { FailedJob, Progress } from "../api/types";
import { api, useUser } from "./account";
import { Icon } from "./icons";
import { formatNumber } from "./parts";

export function JobPanel({ progress }: { progress: Progress }): ReactElement {
  const { queued, running, failed } = progress.jobs;
  return (
    <section className="card">
      <h2>Background work</h2>
      <p>
        <span className="dot" data-on={running > 0} /> {formatNumber(running)} running, {formatNumber(queued)} waiting,{" "}
        {failed > 0 ? <strong className="bad">{formatNumber(failed)} failed</strong> : "none failed"}
      </p>
      {progress.failed_jobs.length > 0 && (
        <ul className="failed-jobs">
          {progress.failed_jobs.map((job) => <FailedRow key={job.id} job={job} dataset={progress.dataset} />)}
        </ul>
      )}
    </section>
  );
}

function FailedRow({ job, dataset }: { job: FailedJob; dataset: string }): ReactElement {
  return (
    <li>
      <div>
        <strong>{job.kind}</strong> {job.at && <time className="muted" dateTime={job.at}>{new Date(job.at).toLocaleString()}</time>}
        <p>{job.reason ?? "No reason was written down."}</p>
      </div>
      <RetryJob id={job.id} dataset={dataset} />
    </li>
  );
}

/** Runs a failed job once more; the round it belongs to goes on from there. Only for those who may. */
export function RetryJob({ id, dataset }: { id: number; dataset: string }): ReactElement | null {
  const { role } = useUser();
  const queries = useQueryClient();
  const retry = useMutation({
    mutationFn: () => api.retryJob(id),
    onSettled: () => Promise.all(["progress", "schedules"].map((kind) => queries.invalidateQueries({ queryKey: [kind, dataset] }))),
  });
  if (role !== "admin" && role !== "researcher") return null;
  return (
    <div className="retry">
      <button type="button" className="button" disabled={retry.isPending} onClick={() => retry.mutate()}>
        <Icon name="retry" size={16} />Try again
      </button>
      {retry.error && <p role="alert" className="form-error">{retry.error.message}</p>}
    </div>
  );
}
