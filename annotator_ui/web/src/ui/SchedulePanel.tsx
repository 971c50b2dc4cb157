import { useMutation, useQuery, useQueryClient } from "@tanstack/react-query";
import { type ReactElement, type SubmitEvent, useState } from "react";

import type { NewSchedule, Schedule, ScheduleRun } from "../api/types";
import { RetryJob } from "./JobPanel";
import { api, useUser } from "./account";
import { ToolButton } from "./parts";
import { sayNext, saySchedule, sayTime, scheduleFrom, stateOf } from "./schedule_words";

const REFRESH_MS = 10_000;

/** When the model is retrained by itself, and what became of the last time. */
export function SchedulePanel({ dataset }: { dataset: string }): ReactElement {
  const { role } = useUser();
  const { data, error } = useQuery({
    queryKey: ["schedules", dataset],
    queryFn: () => api.schedules(dataset),
    refetchInterval: REFRESH_MS,
  });
  const mayChange = role === "admin" || role === "researcher";
  return (
    <section className="card" aria-labelledby="schedules-title">
      <h2 id="schedules-title">Retraining</h2>
      {error && <p role="alert" className="form-error">{error.message}</p>}
      {data?.length === 0 && (
        <p className="muted">No schedule: a round begins after as many new masks as the settings of the stage say.</p>
      )}
      {data && data.length > 0 && <ScheduleTable schedules={data} dataset={dataset} mayChange={mayChange} />}
      {mayChange && data && <ScheduleForm dataset={dataset} />}
    </section>
  );
}

interface TableProps {
  schedules: Schedule[];
  dataset: string;
  mayChange: boolean;
}

function ScheduleTable({ schedules, dataset, mayChange }: TableProps): ReactElement {
  return (
    <div className="table-scroll" tabIndex={0} role="region" aria-label="Schedules">
      <table className="schedules">
        <thead><tr>{["When", "Next", "Last time", "Why", ""].map((head) => <th key={head} scope="col">{head}</th>)}</tr></thead>
        <tbody>
          {schedules.map((one) => <ScheduleRow key={one.id} schedule={one} dataset={dataset} mayChange={mayChange} />)}
        </tbody>
      </table>
    </div>
  );
}

interface RowProps {
  schedule: Schedule;
  dataset: string;
  mayChange: boolean;
}

function ScheduleRow({ schedule, dataset, mayChange }: RowProps): ReactElement {
  const queries = useQueryClient();
  const remove = useMutation({
    mutationFn: () => api.removeSchedule(schedule.id),
    onSettled: () => queries.invalidateQueries({ queryKey: ["schedules", dataset] }),
  });
  const [last] = schedule.runs;
  return (
    <tr>
      <th scope="row">{saySchedule(schedule)}</th>
      <td>{sayNext(schedule)}</td>
      <td>{last ? <LastRun run={last} /> : <span className="muted">not yet</span>}</td>
      <td className="reason">
        {remove.error ? <span role="alert" className="form-error">{remove.error.message}</span> : last?.reason ?? ""}
        {last?.failed_job && <RetryJob id={last.failed_job.id} dataset={dataset} />}
      </td>
      <td>
        {mayChange && (
          <ToolButton icon="trash" label={`Remove the schedule: ${saySchedule(schedule)}`} disabled={remove.isPending}
            onClick={() => remove.mutate()} />
        )}
      </td>
    </tr>
  );
}

function LastRun({ run }: { run: ScheduleRun }): ReactElement {
  return (
    <>
      <span className="badge" data-state={stateOf(run)}>{stateOf(run)}</span>{" "}
      <time dateTime={run.due_at}>{sayTime(run.due_at)}</time>
      {run.round !== null && <span className="muted"> round {run.round}</span>}
    </>
  );
}

function ScheduleForm({ dataset }: { dataset: string }): ReactElement {
  const queries = useQueryClient();
  const [nightlyAt, setNightlyAt] = useState("");
  const [everyNewMasks, setEveryNewMasks] = useState("");
  const [fault, setFault] = useState<string | null>(null);
  const add = useMutation({
    mutationFn: (schedule: NewSchedule) => api.addSchedule(dataset, schedule),
    onSuccess: () => {
      setNightlyAt("");
      setEveryNewMasks("");
      return queries.invalidateQueries({ queryKey: ["schedules", dataset] });
    },
  });
  const submit = (event: SubmitEvent): void => {
    event.preventDefault();
    const schedule = scheduleFrom(nightlyAt, everyNewMasks);
    setFault(typeof schedule === "string" ? schedule : null);
    if (typeof schedule !== "string") add.mutate(schedule);
  };
  const complaint = fault ?? add.error?.message;
  return (
    <form className="schedule-form" onSubmit={submit} noValidate>
      <label>Nightly at (UTC)
        <input type="time" value={nightlyAt} onChange={(event) => setNightlyAt(event.target.value)} />
      </label>
      <span className="muted">and / or</span>
      <label>Every so many new masks
        <input type="number" inputMode="numeric" min={1} step={1} placeholder="5000" value={everyNewMasks}
          onChange={(event) => setEveryNewMasks(event.target.value)} />
      </label>
      <button type="submit" className="button" disabled={add.isPending}>Add schedule</button>
      {complaint && <p role="alert" className="form-error">{complaint}</p>}
    </form>
  );
}
