"""The loop by the clock: due times of schedules become rounds, due slots of collecting become jobs.

A due time is a row, unique per schedule: any number of ticks, on any machines, start its round once.
"""

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from typing import Any

from sqlalchemy import ColumnElement, func, select, update
from sqlalchemy.dialects.postgresql import insert as postgresql_insert
from sqlalchemy.dialects.sqlite import insert as sqlite_insert
from sqlalchemy.orm import Session

from engine.config import Settings
from engine.pipeline.loop_ask import ask_for
from engine.pipeline.loop_round import (
    held_out_masks,
    jobs_of_round,
    last_training,
    new_masks,
    round_in_progress,
    start_round,
)
from engine.store.base import database_now
from engine.store.datasets import Dataset
from engine.store.images import Image
from engine.store.masks import Mask
from engine.store.schedules import Schedule, ScheduleRun
from engine.store.snapshots import SnapshotMask

_DAY = timedelta(days=1)
# Of the nights that a long silence missed, so many are written down; older ones teach nobody anything.
_NIGHTS_TOLD = 31
_BY_MASKS = "masks:"


def ask_scheduled(session: Session, settings: Settings, dataset: Dataset, now: datetime | None = None) -> int:
    """Writes down what is due of the dataset's schedules and starts the first that waits; rounds started.

    Whatever process comes first does it; clocks that disagree only move the moment. A due time whose round
    would learn nothing is skipped with the reason. `now` is the database's clock unless given.
    """
    schedules = live_schedules(session, dataset.id)
    if not schedules or not _is_ours(session, dataset):
        return 0
    now = now or database_now(session)
    for schedule in schedules:
        _write_nights(session, schedule, now)
        _write_masks(session, schedule, now)
    return _start_waiting(session, settings, dataset, now)


def ask_collecting(session: Session, settings: Settings, now: datetime | None = None) -> int:
    """Asks for the collecting of this slot of gc.every_s, counted from the first dataset's making."""
    began_at = session.scalar(select(func.min(Dataset.created_at)))
    if not settings.gc.every_s or began_at is None:
        return 0
    slot = int(((now or database_now(session)) - began_at).total_seconds() // settings.gc.every_s)
    # A home's first slot has nothing to collect.
    return ask_for(session, settings, "collect", None, {}, str(slot)) if slot > 0 else 0


def live_schedules(session: Session, dataset_id: int) -> list[Schedule]:
    """The dataset's schedules that were not removed, oldest first."""
    live = (Schedule.dataset_id == dataset_id) & Schedule.removed_at.is_(None)
    return list(session.scalars(select(Schedule).where(live).order_by(Schedule.id)))


def night_after(nightly_at: str, moment: datetime) -> datetime:
    """The first due time of "HH:MM" (UTC) later than `moment`."""
    hour, minute = map(int, nightly_at.split(":"))
    moment = moment.astimezone(UTC)
    tonight = moment.replace(hour=hour, minute=minute, second=0, microsecond=0)
    return tonight if tonight > moment else tonight + _DAY


def counted_from(session: Session, schedule: Schedule) -> int:
    """How many masks the dataset had when the schedule's count last began anew: when the schedule was made,
    when the last round took its masks, or at the schedule's own last due count, whichever is the latest."""
    dataset_id = schedule.dataset_id
    began = [masks_made(session, dataset_id, Mask.created_at <= schedule.created_at)]
    last = last_training(session, dataset_id)
    if last is not None:
        newest = select(func.max(SnapshotMask.mask_id)).where(SnapshotMask.snapshot_id == last.id)
        began.append(masks_made(session, dataset_id, Mask.id <= newest.scalar_subquery()))
    mine = (ScheduleRun.schedule_id == schedule.id) & ScheduleRun.due.startswith(_BY_MASKS)
    fired = session.scalars(select(ScheduleRun.due).where(mine))
    return max([*began, *(int(due.removeprefix(_BY_MASKS)) for due in fired)])


def masks_made(session: Session, dataset_id: int, *only: ColumnElement[bool]) -> int:
    """Masks that people ever made on training images. Corrections count, and so does what was deleted since:
    rows are only ever added, so the number never falls and no count comes twice."""
    made = (Image.split == "train") & Mask.touched_by_person & ~Mask.second_opinion & (Mask.iscrowd == 0)
    counted = select(func.count()).select_from(Mask).join(Image, Image.id == Mask.image_id)
    return session.scalar(counted.where(Mask.dataset_id == dataset_id, made, *only)) or 0


def _is_ours(session: Session, dataset: Dataset) -> bool:
    """Locks the dataset for this transaction, or leaves it to the tick that has it; SQLite has one writer."""
    row = select(Dataset.id).where(Dataset.id == dataset.id)
    # The weaker lock (key_share): rows that name the dataset are written meanwhile.
    return session.scalar(row.with_for_update(key_share=True, skip_locked=True)) is not None


def _write_nights(session: Session, schedule: Schedule, now: datetime) -> None:
    """The latest night waits; those that passed while nothing ran are told and skipped."""
    nights = list(_new_nights(session, schedule, now))[-_NIGHTS_TOLD:]
    if not nights:
        return
    *missed, latest = nights
    overtaken = f"the night of {_named(latest)} came before it could start"
    older = (ScheduleRun.schedule_id == schedule.id) & ~ScheduleRun.due.startswith(_BY_MASKS)
    waiting = older & (ScheduleRun.state == "waiting")
    session.execute(update(ScheduleRun).where(waiting).values(state="skipped", reason=overtaken))
    why = f"no worker was there at the time: the night of {_named(latest)} stands for it"
    for night in missed:
        _write_run(session, schedule, _named(night), night, state="skipped", reason=why)
    _write_run(session, schedule, _named(latest), latest, state="waiting")


def _new_nights(session: Session, schedule: Schedule, now: datetime) -> Iterator[datetime]:
    if schedule.nightly_at is None:
        return
    mine = (ScheduleRun.schedule_id == schedule.id) & ~ScheduleRun.due.startswith(_BY_MASKS)
    last = session.scalar(select(func.max(ScheduleRun.due_at)).where(mine))
    night = night_after(schedule.nightly_at, last or schedule.created_at)
    while night <= now:
        yield night
        night += _DAY


def _write_masks(session: Session, schedule: Schedule, now: datetime) -> None:
    """ "masks:M" is due once M masks were made, M the count's beginning and every_new_masks."""
    if schedule.every_new_masks is None or round_in_progress(session, schedule.dataset_id):
        # A round's own masks are still counted as new until it has taken them.
        return
    needed = counted_from(session, schedule) + schedule.every_new_masks
    if masks_made(session, schedule.dataset_id) >= needed:
        _write_run(session, schedule, f"{_BY_MASKS}{needed}", now, state="waiting")


def _write_run(session: Session, schedule: Schedule, due: str, due_at: datetime, **columns: Any) -> None:
    insert = sqlite_insert if session.get_bind().dialect.name == "sqlite" else postgresql_insert
    row = {"schedule_id": schedule.id, "due": due, "due_at": due_at} | columns
    unique = ["schedule_id", "due"]
    session.execute(insert(ScheduleRun).values(row).on_conflict_do_nothing(index_elements=unique))


def _start_waiting(session: Session, settings: Settings, dataset: Dataset, now: datetime) -> int:
    mine = (Schedule.dataset_id == dataset.id) & (ScheduleRun.state == "waiting")
    waiting = select(ScheduleRun).join(Schedule, Schedule.id == ScheduleRun.schedule_id).where(mine)
    ordered = waiting.order_by(ScheduleRun.due_at, ScheduleRun.id).execution_options(populate_existing=True)
    for run in session.scalars(ordered).all():
        if round_in_progress(session, dataset.id):
            return 0
        reason = _why_not(session, settings, dataset)
        if reason is None:
            run.round_number = start_round(session, settings, dataset.id)
            run.state, run.started_at = "started", now
            return 1
        run.state, run.reason = "skipped", reason
    return 0


def _why_not(session: Session, settings: Settings, dataset: Dataset) -> str | None:
    """Why a round would be of no use now, or None."""
    n_held_out, needed = held_out_masks(session, dataset.id), settings.train.min_holdout_masks
    if n_held_out < needed:
        return f"{needed} masks on held-out images are needed to judge a model, there are {n_held_out}"
    if new_masks(session, dataset.id):
        return None
    last = last_training(session, dataset.id)
    jobs = [] if last is None else jobs_of_round(session, dataset.id, last.name.rpartition("-")[2])
    failed = next((job for job in jobs if job.state == "failed"), None)
    more = f"; `maskloop jobs retry {failed.id}` goes on with the round that failed" if failed else ""
    return f"nothing new to learn from: no new mask since the last round{more}"


def _named(night: datetime) -> str:
    return night.strftime("%Y-%m-%dT%H:%MZ")
