"""Drill 8: three schedulers, two with clocks that jump by ten minutes. Each due time starts one round."""

import threading
from collections.abc import Sequence
from datetime import datetime, timedelta

import pytest
from sqlalchemy import func, select

from engine.errors import Unavailable
from engine.pipeline import loop, schedule
from engine.store import jobs
from engine.store.images import Image
from engine.store.jobs import Job
from engine.store.runner import run_next
from engine.store.schedules import ScheduleRun
from engine.store.session import Workspace
from engine.store.snapshots import Snapshot
from tests import factories
from tests.faults.drill import Drill, short_and_full
from tests.faults.ground import Ground, break_ground

BEGAN_AT = datetime.fromisoformat("2026-01-01T12:00:00+00:00")
STEP_S = 600
# Looks at the clock around 02:00, in minutes; the fast clock is past it at the first one.
LOOKS_MIN = (-5, 0, 11)


def tick_at_once(workspace: Workspace, moments: Sequence[datetime]) -> None:
    """One tick of each scheduler, all at the same instant, each by its own clock."""
    start, errors = threading.Barrier(len(moments)), []

    def tick(now: datetime) -> None:
        start.wait()
        try:
            with workspace.write() as session:
                loop.due(session, workspace.settings, now)
        except Unavailable:
            # Another tick held the database for long; the next look asks again.
            return
        except Exception as error:
            errors.append(error)

    threads = [threading.Thread(target=tick, args=(now,)) for now in moments]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not errors, errors


def end_round(workspace: Workspace, now: datetime) -> None:
    """Freezes the round's snapshots for real and cancels its training, which ends the round."""
    while run_next(workspace, ("cpu", "gpu"), loop.arrow, "drill:0:a/0") is not None:
        with workspace.write() as session:
            loop.due(session, workspace.settings, now)
    with workspace.write() as session:
        waiting = select(Job.id).where(Job.kind == "train", Job.state == "queued")
        for job_id in session.scalars(waiting).all():
            jobs.request_cancel(session, job_id)


def scheduled(workspace: Workspace) -> tuple[Ground, int]:
    """A ground with masks to judge by, and a nightly schedule; (ground, schedule id)."""
    ground = break_ground(workspace, n_images=2, n_people=1)
    with workspace.write() as session:
        held_out = factories.an_image(workspace, session, ground.dataset_id, 9, split="val")
        for _ in range(workspace.settings.train.min_holdout_masks):
            factories.a_mask(session, held_out)
        made = schedule.add_schedule(session, ground.dataset_id, nightly_at="02:00", now=BEGAN_AT)
        return ground, made.id


@short_and_full(short=0.006)
@pytest.mark.parametrize("either_workspace", ["postgres", "sqlite"], indirect=True)
def test_schedules(drill: Drill, either_workspace: Workspace) -> None:
    workspace, n_nights = either_workspace, drill.n(500)
    ground, schedule_id = scheduled(workspace)
    last_night = BEGAN_AT.replace(hour=2, minute=0)
    for _ in range(n_nights):
        last_night += timedelta(days=1)
        with workspace.write() as session:
            factories.a_mask(session, session.get_one(Image, ground.image_ids[0]))
        for minutes in LOOKS_MIN:
            true = last_night + timedelta(minutes=minutes)
            steps = [0, *(int(step) * STEP_S for step in drill.rng.integers(-1, 2, 2))]
            tick_at_once(workspace, [true + timedelta(seconds=step) for step in steps])
            end_round(workspace, true)
    with workspace.read() as session:
        runs = list(session.scalars(select(ScheduleRun).where(ScheduleRun.schedule_id == schedule_id)))
        rounds = select(func.count()).select_from(Snapshot)
        n_rounds = session.scalar(rounds.where(Snapshot.kind == "training")) or 0
    started = [run.round_number for run in runs if run.state == "started"]
    drill.note("due times", n_nights)
    drill.claim("not run", n_nights - len(started), 0)
    drill.claim("run twice", len(started) - len({run.due for run in runs if run.state == "started"}), 0)
    drill.claim("rounds that share a number", len(started) - len(set(started)), 0)
    drill.claim("rounds nobody was due for", abs(n_rounds - n_nights), 0)
    drill.examined(workspace)
    drill.end()
