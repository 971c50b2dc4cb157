"""Schedules for people: making and removing them, and what became of each due time."""

import re
from datetime import datetime
from typing import Any

from sqlalchemy import select, update
from sqlalchemy.orm import Session

from engine.errors import BadInput, NotFound
from engine.pipeline.loop_round import jobs_of_round
from engine.pipeline.loop_schedule import counted_from, live_schedules, masks_made, night_after
from engine.store.base import database_now
from engine.store.datasets import Dataset
from engine.store.events import record_event
from engine.store.jobs import Job
from engine.store.model_versions import Decision, ModelVersion
from engine.store.schedules import Schedule, ScheduleRun

NIGHTLY_AT = "02:00"
MOST_MASKS = 10**9
_RUNS_SHOWN = 10


def add_schedule(
    session: Session,
    dataset_id: int,
    *,
    nightly_at: str | None = None,
    every_new_masks: int | None = None,
    user_id: int | None = None,
    now: datetime | None = None,
) -> Schedule:
    """A schedule that counts from now on: nightly at "HH:MM" (UTC), every so many new masks, or whichever of
    both comes first. BadInput for neither, or for a time or number that cannot be."""
    if nightly_at is None and every_new_masks is None:
        raise BadInput("say when to retrain: nightly, after every so many new masks, or both")
    if nightly_at is not None and not re.fullmatch(r"([01]\d|2[0-3]):[0-5]\d", nightly_at):
        raise BadInput(f"{nightly_at!r} is no time of day: give it as HH:MM in UTC, such as {NIGHTLY_AT}")
    if every_new_masks is not None and not 1 <= every_new_masks <= MOST_MASKS:
        raise BadInput(f"the number of new masks must be between 1 and {MOST_MASKS:,}")
    schedule = Schedule(dataset_id=dataset_id, nightly_at=nightly_at, every_new_masks=every_new_masks)
    schedule.created_by_id, schedule.created_at = user_id, now or database_now(session)
    session.add(schedule)
    session.flush()
    _record(session, "added", schedule, user_id)
    return schedule


def remove_schedule(session: Session, schedule_id: int, user_id: int | None = None) -> Schedule:
    """Starts nothing more by it; a round that it started goes on. NotFound when there is none such."""
    schedule = session.get(Schedule, schedule_id, with_for_update=True)
    if schedule is None or schedule.removed_at is not None:
        raise NotFound(f"there is no schedule {schedule_id}: `maskloop schedule list` shows them")
    schedule.removed_at = database_now(session)
    waiting = (ScheduleRun.schedule_id == schedule_id) & (ScheduleRun.state == "waiting")
    skipped = {"state": "skipped", "reason": "the schedule was removed"}
    session.execute(update(ScheduleRun).where(waiting).values(skipped))
    _record(session, "removed", schedule, user_id)
    return schedule


def schedule_views(session: Session, dataset: Dataset, now: datetime | None = None) -> list[dict[str, Any]]:
    """The dataset's schedules: when each is due next, and its newest due times with what became of them."""
    moment = now or database_now(session)
    return [schedule_view(session, one, moment) for one in live_schedules(session, dataset.id)]


def schedule_view(session: Session, schedule: Schedule, now: datetime) -> dict[str, Any]:
    """`next_due_at` is the next night, `masks_to_go` what its count still lacks; None where it has none."""
    mine = select(ScheduleRun).where(ScheduleRun.schedule_id == schedule.id)
    runs = session.scalars(mine.order_by(ScheduleRun.due_at.desc(), ScheduleRun.id.desc()).limit(_RUNS_SHOWN))
    every, to_go = schedule.every_new_masks, None
    if every is not None:
        n_new = masks_made(session, schedule.dataset_id) - counted_from(session, schedule)
        to_go = max(0, every - n_new)
    return {
        "id": schedule.id,
        "nightly_at": schedule.nightly_at,
        "every_new_masks": every,
        "created_at": schedule.created_at,
        "next_due_at": night_after(schedule.nightly_at, now) if schedule.nightly_at else None,
        "masks_to_go": to_go,
        "runs": [_run_view(session, schedule.dataset_id, run) for run in runs],
    }


def _run_view(session: Session, dataset_id: int, run: ScheduleRun) -> dict[str, Any]:
    """One due time; `reason` is why it was skipped, why its round failed, or what the round led to."""
    view = {"due": run.due, "due_at": run.due_at, "state": run.state, "reason": run.reason}
    view |= {"started_at": run.started_at, "round": run.round_number, "round_state": None, "failed_job": None}
    if run.round_number is None:
        return view
    jobs = jobs_of_round(session, dataset_id, run.round_number)
    stopped = next((job for job in jobs if job.state in ("failed", "cancelled")), None)
    if stopped is not None:
        failed = {"id": stopped.id, "kind": stopped.kind, "reason": stopped.reason}
        return view | {"round_state": "failed", "reason": stopped.reason, "failed_job": failed}
    state, reason = _round_so_far(session, jobs)
    return view | {"round_state": state, "reason": reason}


def _round_so_far(session: Session, jobs: list[Job]) -> tuple[str, str | None]:
    """("running" | "promoted" | "refused" | "unchanged", reason) of a round none of whose jobs failed."""
    done = {job.kind: job for job in jobs if job.state == "done"}
    if "promote" in done:
        version_id = done["promote"].arguments["model_version_id"]
        of_candidate = Decision.model_version_id == version_id
        decision = session.scalars(select(Decision).where(of_candidate)).one()
        if decision.verdict == "refuse":
            return "refused", decision.reason
        return ("promoted" if "activate" in done else "running"), decision.reason
    trained = done.get("train")
    if trained is not None and jobs[-1] is trained and not _made_a_version(session, trained):
        return "unchanged", "the training gave weights that were there already"
    return "running", None


def _made_a_version(session: Session, trained: Job) -> bool:
    made = ModelVersion.snapshot_id == trained.arguments["snapshot_id"]
    return session.scalar(select(ModelVersion.id).where(made).limit(1)) is not None


def _record(session: Session, act: str, schedule: Schedule, user_id: int | None) -> None:
    when = {"nightly_at": schedule.nightly_at, "every_new_masks": schedule.every_new_masks}
    session.flush()
    record_event(
        session,
        f"schedule.{act}",
        dataset_id=schedule.dataset_id,
        actor_id=user_id,
        subject_id=schedule.id,
        **when,
    )
