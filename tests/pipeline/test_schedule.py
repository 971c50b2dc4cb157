"""Schedules: each due time starts one round, whoever ticks and whatever their clocks say."""

import threading
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from sqlalchemy import select

from engine.errors import BadInput, MaskloopError, NotFound, Refused
from engine.pipeline import loop
from engine.pipeline.schedule import add_schedule, remove_schedule, schedule_views
from engine.store.datasets import Dataset
from engine.store.images import Image
from engine.store.jobs import Job, due_ids, retry
from engine.store.masks import Mask
from engine.store.runner import Work, Write, run_job
from engine.store.schedules import ScheduleRun
from engine.store.session import Workspace
from engine.store.snapshots import Snapshot
from tests.factories import a_dataset, a_mask, a_model_version, an_image
from tests.pipeline.conftest import rows

START = datetime(2026, 11, 1, 12, tzinfo=UTC)
HOUR = timedelta(hours=1)


@dataclass
class Farm:
    """A dataset with enough held-out masks, a model, and arrows that take no time."""

    workspace: Workspace
    dataset_id: int
    training: Image
    train_fails: bool = False

    def add(self, **when: Any) -> int:
        with self.workspace.write() as session:
            return add_schedule(session, self.dataset_id, now=START, **when).id

    def draw(self, n: int, at: datetime) -> None:
        with self.workspace.write() as session:
            for _ in range(n):
                a_mask(session, self.training, created_at=at, source="human")

    def tick(self, now: datetime) -> int:
        with self.workspace.write() as session:
            return loop.due(session, self.workspace.settings, now)

    def turn(self, now: datetime, n_tickers: int = 1) -> None:
        """Ticks until nothing is due, running what was asked for."""
        for _ in range(8):
            self.tick_all([now] * n_tickers)
            if not self.run():
                return

    def tick_all(self, clocks: list[datetime]) -> None:
        """One tick by each clock, all at the same time."""
        together, failures = threading.Barrier(len(clocks)), []

        def one(now: datetime) -> None:
            together.wait()
            try:
                self.tick(now)
            except MaskloopError as error:
                failures.append(error)

        threads = [threading.Thread(target=one, args=(now,)) for now in clocks]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert not failures

    def run(self) -> int:
        with self.workspace.read() as session:
            ids = due_ids(session)
        for job_id in ids:
            run_job(self.workspace, job_id, self.arrow, "worker")
        return len(ids)

    def arrow(self, kind: str) -> Any:
        def train(work: Work, *, snapshot_id: int, parent_id: int) -> Write:
            if self.train_fails:
                raise Refused("the trainer ran out of memory")
            return lambda _session: {"model_version": parent_id}

        return train if kind == "train" else loop.arrow(kind)

    def runs(self) -> list[ScheduleRun]:
        return rows(self.workspace, select(ScheduleRun).order_by(ScheduleRun.due_at, ScheduleRun.id))

    def told(self) -> list[tuple[str, str]]:
        return [(run.due, run.state) for run in self.runs()]

    def rounds(self) -> list[str]:
        training = (Snapshot.kind == "training") & (Snapshot.dataset_id == self.dataset_id)
        return rows(self.workspace, select(Snapshot.name).where(training).order_by(Snapshot.id))

    def views(self, now: datetime) -> list[dict[str, Any]]:
        with self.workspace.read() as session:
            return schedule_views(session, session.get_one(Dataset, self.dataset_id), now)


def a_farm(workspace: Workspace, n_held_out: int = 2) -> Farm:
    with workspace.write() as session:
        dataset = a_dataset(session, open_stage=None)
        # Simulated days are of no concern to collecting, which begins with the dataset.
        dataset.created_at = START + timedelta(days=1000)
        a_model_version(session, dataset.id, active=True)
        training = an_image(workspace, session, dataset.id, 1)
        held_out = an_image(workspace, session, dataset.id, 2, split="val")
        for _ in range(n_held_out):
            a_mask(session, held_out, created_at=START - HOUR)
        return Farm(workspace, dataset.id, training)


@pytest.fixture
def farm(workspace: Workspace) -> Farm:
    return a_farm(workspace)


@pytest.fixture
def small_farm(sqlite_workspace: Workspace) -> Farm:
    return a_farm(sqlite_workspace)


def drawn_in(hours: int) -> int:
    """Masks made in the eight hours before: busy days, a quiet one, and a week-end without any."""
    day, hour = divmod(hours + 12, 24)
    if day % 7 in (5, 6) or hour == 4:
        return 0
    return 12 if day % 7 == 3 else 5


def expected_fortnight(every: int) -> list[str]:
    """The same by pencil: the night if anything is new, the count as soon as it is full."""
    due, new, total, base = [], 0, 0, 0
    for hours in range(8, 14 * 24 + 1, 8):
        now = START + hours * HOUR
        new, total = new + drawn_in(hours), total + drawn_in(hours)
        # At four in the morning the night of two o'clock is looked at first.
        if now.hour == 4:
            due.append(f"{now:%Y-%m-%d}T02:00Z {'started' if new else 'skipped'}")
            new, base = 0, total if new else base
        if total - base >= every:
            due.append(f"masks:{base + every} started")
            new, base = 0, total
    return due


def test_a_fortnight_of_nightly_or_n_masks_by_three_ticks_starts_exactly_the_due_rounds(farm: Farm) -> None:
    every = 14
    farm.add(nightly_at="02:00", every_new_masks=every)
    for hours in range(8, 14 * 24 + 1, 8):
        now = START + hours * HOUR
        farm.draw(drawn_in(hours), now)
        farm.tick_all([now, now, now])
        while farm.run():
            farm.tick(now)
    found = [f"{run.due} {run.state}" for run in farm.runs()]
    assert sorted(found) == sorted(expected_fortnight(every))
    started = [run for run in farm.runs() if run.state == "started"]
    assert sorted(run.round_number or 0 for run in started) == list(range(1, len(started) + 1))
    assert farm.rounds() == [f"round-{n + 1}" for n in range(len(started))]
    assert len(rows(farm.workspace, select(Job.id).where(Job.kind == "snapshot"))) == len(started)
    # The plan has all there is to have: nights with and without news, and counts.
    assert any("masks:" in one for one in found) and any("skipped" in one for one in found)


def test_clocks_that_step_back_and_forth_over_a_due_time_start_it_once(farm: Farm) -> None:
    farm.add(nightly_at="02:00")
    farm.draw(3, START)
    night = datetime(2026, 11, 2, 2, tzinfo=UTC)
    for minutes in (-25, -5, -15, 5, -5, 15, 0):
        skew = timedelta(minutes=10)
        farm.tick_all([night + timedelta(minutes=minutes) + by for by in (-skew, skew * 0, skew)])
        farm.run()
    farm.turn(night + HOUR)
    assert farm.told() == [("2026-11-02T02:00Z", "started")]
    assert farm.rounds() == ["round-1"]


def test_nights_missed_while_nothing_ran_are_told_and_make_one_round(small_farm: Farm) -> None:
    farm = small_farm
    farm.add(nightly_at="02:00")
    farm.draw(3, START)
    farm.turn(START + timedelta(days=4))
    states = [state for _, state in farm.told()]
    assert states == ["skipped", "skipped", "skipped", "started"]
    assert "the night of 2026-11-05T02:00Z stands for it" in (farm.runs()[0].reason or "")
    assert farm.rounds() == ["round-1"]


def test_a_count_begins_anew_with_every_round_and_never_comes_twice(small_farm: Farm) -> None:
    farm = small_farm
    farm.draw(9, START - HOUR)
    farm.add(every_new_masks=4)
    farm.turn(START + HOUR)
    # What was there before the schedule is not counted.
    assert farm.told() == [] and farm.views(START)[0]["masks_to_go"] == 4
    farm.draw(6, START + HOUR)
    farm.turn(START + HOUR)
    assert farm.told() == [("masks:13", "started")]
    # Six were made, the round took all of them, so four more are needed.
    assert farm.views(START)[0]["masks_to_go"] == 4
    farm.draw(3, START + 2 * HOUR)
    with farm.workspace.write() as session:
        loop.start_round(session, farm.workspace.settings, farm.dataset_id)
    farm.turn(START + 2 * HOUR)
    assert farm.views(START)[0]["masks_to_go"] == 4
    farm.draw(4, START + 3 * HOUR)
    farm.turn(START + 3 * HOUR)
    assert farm.told() == [("masks:13", "started"), ("masks:22", "started")]
    assert farm.rounds() == ["round-1", "round-2", "round-3"]


def test_a_due_time_waits_for_the_round_in_progress(small_farm: Farm) -> None:
    farm = small_farm
    farm.add(nightly_at="02:00")
    farm.draw(1, START)
    with farm.workspace.write() as session:
        loop.start_round(session, farm.workspace.settings, farm.dataset_id)
    night = START + 15 * HOUR
    farm.tick(night)
    assert farm.told() == [("2026-11-02T02:00Z", "waiting")]
    farm.run()
    farm.draw(1, night)
    farm.turn(night + HOUR)
    assert farm.told() == [("2026-11-02T02:00Z", "started")] and farm.rounds() == ["round-1", "round-2"]


def test_a_round_that_would_be_of_no_use_is_skipped_with_its_reason(sqlite_workspace: Workspace) -> None:
    farm = a_farm(sqlite_workspace, n_held_out=1)
    schedule_id = farm.add(nightly_at="02:00")
    farm.turn(START + 15 * HOUR)
    held_out = farm.training
    with farm.workspace.write() as session:
        held_out = an_image(farm.workspace, session, farm.dataset_id, 3, split="val")
        a_mask(session, held_out, created_at=START)
    farm.turn(START + 39 * HOUR)
    reasons = [run.reason or "" for run in farm.runs()]
    assert "held-out images are needed" in reasons[0] and "nothing new to learn from" in reasons[1]
    assert farm.rounds() == []
    with farm.workspace.write() as session:
        remove_schedule(session, schedule_id)
    farm.draw(5, START)
    farm.turn(START + 63 * HOUR)
    assert len(farm.runs()) == 2 and farm.views(START) == []


def test_a_failed_round_says_why_and_a_retry_goes_on_with_it(farm: Farm) -> None:
    farm.add(nightly_at="02:00")
    farm.draw(3, START)
    farm.train_fails = True
    farm.turn(START + 15 * HOUR)
    (view,) = farm.views(START + 15 * HOUR)
    (run,) = view["runs"]
    assert (run["round"], run["round_state"]) == (1, "failed")
    assert run["failed_job"]["kind"] == "train" and run["reason"] == "the trainer ran out of memory"
    assert view["next_due_at"] == datetime(2026, 11, 3, 2, tzinfo=UTC)
    # The next night finds nothing new, and says which job would go on.
    farm.turn(START + 39 * HOUR)
    assert f"jobs retry {run['failed_job']['id']}" in (farm.runs()[-1].reason or "")
    farm.train_fails = False
    with farm.workspace.write() as session:
        retry(session, run["failed_job"]["id"])
    farm.turn(START + 40 * HOUR)
    assert farm.views(START)[0]["runs"][-1]["round_state"] == "unchanged"
    assert farm.rounds() == ["round-1"]


def test_a_dataset_with_a_schedule_does_not_go_by_its_stage(small_farm: Farm) -> None:
    farm = small_farm
    schedule_id = farm.add(nightly_at="02:00")
    with farm.workspace.write() as session:
        session.get_one(Dataset, farm.dataset_id).open_stage = "assisted_manual"
    farm.draw(9, START)
    farm.tick(START + HOUR)
    asked = select(Job.id).where(Job.kind == "snapshot")
    assert rows(farm.workspace, asked) == []
    with farm.workspace.write() as session:
        remove_schedule(session, schedule_id)
    farm.tick(START + HOUR)
    assert len(rows(farm.workspace, asked)) == 1


@pytest.mark.parametrize(
    ("when", "sentence"),
    [
        ({}, "say when to retrain"),
        ({"nightly_at": "24:00"}, "HH:MM"),
        ({"nightly_at": "2:00"}, "HH:MM"),
        ({"every_new_masks": 0}, "between 1 and"),
    ],
)
def test_a_schedule_that_cannot_be_is_refused(small_farm: Farm, when: dict[str, Any], sentence: str) -> None:
    with pytest.raises(BadInput, match=sentence):
        small_farm.add(**when)
    with pytest.raises(NotFound, match="schedule list"), small_farm.workspace.write() as session:
        remove_schedule(session, 99)


def test_collecting_is_asked_for_once_in_each_slot(small_farm: Farm) -> None:
    farm = small_farm
    with farm.workspace.write() as session:
        session.get_one(Dataset, farm.dataset_id).created_at = START
    every = timedelta(seconds=farm.workspace.settings.gc.every_s)
    for now in (START, START + every, START + every * 1.5, START + every * 2):
        farm.tick_all([now, now])
    asked = rows(farm.workspace, select(Job.unique_key).where(Job.kind == "collect").order_by(Job.id))
    assert asked == ["collect:1", "collect:2"]
    farm.run()
    assert rows(farm.workspace, select(Mask.id))
    assert set(rows(farm.workspace, select(Job.state).where(Job.kind == "collect"))) == {"done"}
