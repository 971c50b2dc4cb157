"""One job from claim to end with real arrows: exactly one effect, whatever is repeated, late or broken."""

import logging
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import pytest
from sqlalchemy import func, select
from sqlalchemy.orm import Session

from engine.errors import BadInput, NotFound, Unavailable
from engine.store import jobs
from engine.store.events import Event, record_event
from engine.store.jobs import Job
from engine.store.runner import ArrowOf, Cancelled, Work, Write, commit, run_job
from engine.store.session import Workspace
from tests.store.test_jobs import ask, claimed, expire, row


def note(work: Work, *, image_id: int) -> Write:
    """The smallest arrow: its effect is one event."""

    def write(session: Session) -> dict[str, Any]:
        record_event(session, "noted", subject_id=image_id)
        return {"image_id": image_id}

    return write


def always(arrow: Callable[..., Write]) -> ArrowOf:
    return lambda kind: arrow


def n_effects(workspace: Workspace) -> int:
    with workspace.read() as session:
        return session.scalar(select(func.count()).select_from(Event)) or 0


def wait_for(reached: Callable[[], bool], seconds: float = 5.0) -> None:
    end = time.monotonic() + seconds
    while not reached():
        assert time.monotonic() < end, "waited in vain"
        time.sleep(0.02)


def test_a_job_delivered_three_times_has_one_effect(workspace: Workspace) -> None:
    job_id = ask(workspace)
    assert [run_job(workspace, job_id, always(note), f"worker {n}") for n in range(3)] == ["done"] * 3
    ended = row(workspace, job_id)
    assert (n_effects(workspace), ended.attempt, ended.worker) == (1, 1, "worker 0")
    assert ended.outcome == {"image_id": 1}


def test_a_job_delivered_at_once_to_three_threads_has_one_effect(workspace: Workspace) -> None:
    job_id, start, states = ask(workspace), threading.Barrier(3), []

    def race() -> None:
        start.wait()
        states.append(run_job(workspace, job_id, always(note), "racer"))

    threads = [threading.Thread(target=race) for _ in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert n_effects(workspace) == 1 and "done" in states and set(states) <= {"done", "running"}


def test_the_write_of_a_zombie_is_refused_whole(workspace: Workspace) -> None:
    job_id = ask(workspace)

    def paused(work: Work, *, image_id: int) -> Write:
        expire(workspace, job_id)
        assert run_job(workspace, job_id, always(note), "heir") == "done"
        return note(work, image_id=image_id)

    assert run_job(workspace, job_id, always(paused), "zombie") == "done"
    ended = row(workspace, job_id)
    assert (n_effects(workspace), ended.attempt, ended.worker) == (1, 2, "heir")


def test_effect_and_end_are_one_transaction(workspace: Workspace) -> None:
    def broken(work: Work, *, image_id: int) -> Write:
        def write(session: Session) -> dict[str, Any]:
            note(work, image_id=image_id)(session)
            session.flush()
            raise BadInput("the picture is no picture: import it again")

        return write

    job_id = ask(workspace)
    assert run_job(workspace, job_id, always(broken), "one") == "failed"
    assert n_effects(workspace) == 0
    assert row(workspace, job_id).reason == "the picture is no picture: import it again"


def test_a_heartbeat_carries_a_job_past_its_lease(workspace: Workspace) -> None:
    quick = workspace.settings.model_copy(
        update={"worker": workspace.settings.worker.model_copy(update={"lease_s": 0.4, "heartbeat_s": 0.1})}
    )
    workspace = Workspace(quick, workspace.engine, workspace.sessions, workspace.blobs)

    def slow(work: Work, *, image_id: int) -> Write:
        time.sleep(1.0)
        with workspace.read() as session:
            assert jobs.due_ids(session) == []
        return note(work, image_id=image_id)

    job_id = ask(workspace)
    assert run_job(workspace, job_id, always(slow), "slow") == "done"
    assert row(workspace, job_id).attempt == 1


def test_an_unavailable_file_is_tried_again_later_and_a_bug_is_not(
    workspace: Workspace, caplog: pytest.LogCaptureFixture
) -> None:
    def away(work: Work, *, image_id: int) -> Write:
        raise Unavailable("the bucket does not answer")

    def bug(work: Work, *, image_id: int) -> Write:
        raise KeyError("counts\nand more")

    first, second = ask(workspace, "away"), ask(workspace, "bug")
    assert run_job(workspace, first, always(away), "one") == "queued"
    assert run_job(workspace, first, always(note), "one") == "queued"
    waiting = row(workspace, first)
    assert waiting.reason == "the bucket does not answer" and waiting.not_before is not None
    with caplog.at_level(logging.ERROR):
        assert run_job(workspace, second, always(bug), "one") == "failed"
    assert row(workspace, second).reason == r"KeyError: 'counts\nand more'"
    assert "Traceback" in caplog.text
    expire(workspace, first)
    assert run_job(workspace, first, always(note), "one") == "done"
    assert row(workspace, first).reason is None


def test_a_running_job_sees_its_cancellation_and_leaves_no_effect(workspace: Workspace) -> None:
    job_id = ask(workspace)

    def patient(work: Work, *, image_id: int) -> Write:
        with workspace.write() as session:
            jobs.request_cancel(session, job_id)
        wait_for(work.cancelled)
        work.stop_if_cancelled()
        return note(work, image_id=image_id)

    assert run_job(workspace, job_id, always(patient), "one") == "cancelled"
    assert n_effects(workspace) == 0


def test_a_job_that_missed_its_cancellation_has_no_effect_either(workspace: Workspace) -> None:
    job_id = ask(workspace)

    def deaf(work: Work, *, image_id: int) -> Write:
        with workspace.write() as session:
            jobs.request_cancel(session, job_id)
        return note(work, image_id=image_id)

    assert run_job(workspace, job_id, always(deaf), "one") == "cancelled"
    assert n_effects(workspace) == 0


def test_a_stopping_worker_gives_its_job_back(workspace: Workspace) -> None:
    job_id, stopping = ask(workspace, max_attempts=1), threading.Event()

    def long(work: Work, *, image_id: int) -> Write:
        stopping.set()
        work.stop_if_cancelled()
        return note(work, image_id=image_id)

    assert run_job(workspace, job_id, always(long), "one", stopping) == "queued"
    assert run_job(workspace, job_id, always(note), "two") == "done"


def test_ctrl_c_gives_the_job_back(workspace: Workspace) -> None:
    def interrupted(work: Work, *, image_id: int) -> Write:
        raise KeyboardInterrupt

    job_id = ask(workspace)
    with pytest.raises(KeyboardInterrupt):
        run_job(workspace, job_id, always(interrupted), "one")
    assert row(workspace, job_id).state == "queued"


def impatient(workspace: Workspace, stall_s: float = 0.3) -> Workspace:
    """The same workspace, where a job that is silent for so long is stuck."""
    short = {"stall_s": stall_s, "lease_s": 2.0, "heartbeat_s": 0.05}
    settings = workspace.settings
    changed = settings.model_copy(update={"worker": settings.worker.model_copy(update=short)})
    return Workspace(changed, workspace.engine, workspace.sessions, workspace.blobs)


@dataclass
class Stuck:
    """An arrow that neither asks nor tells, until somebody hears of it who cannot end the process."""

    heard: list[str] = field(default_factory=list)
    freed: threading.Event = field(default_factory=threading.Event)

    def __call__(self, work: Work, *, image_id: int) -> Write:
        assert self.freed.wait(20), "nobody noticed"
        return note(work, image_id=image_id)

    def end(self, reason: str) -> None:
        self.heard.append(reason)
        self.freed.set()


def test_a_stuck_attempt_ends_in_the_ledger_and_its_late_write_is_refused(workspace: Workspace) -> None:
    workspace, job_id = impatient(workspace), ask(workspace, max_attempts=2)
    for state in ("queued", "failed"):
        stuck = Stuck()
        assert run_job(workspace, job_id, always(stuck), "one", on_stuck=stuck.end) == state
        assert stuck.heard == [
            f"job {job_id} (embed): it showed no progress for 0.3 s (worker.stall_s) and was ended"
        ]
        assert stuck.heard[0].endswith(str(row(workspace, job_id).reason))
        expire(workspace, job_id)
    assert (n_effects(workspace), row(workspace, job_id).attempt) == (0, 2)


@pytest.mark.parametrize("sign", [Work.stop_if_cancelled, lambda work: work.progress({"step": 1})])
def test_a_slow_job_that_shows_signs_of_life_is_left_alone(
    sqlite_workspace: Workspace, sign: Callable[[Work], None]
) -> None:
    def slow(work: Work, *, image_id: int) -> Write:
        for _ in range(20):
            sign(work)
            time.sleep(0.05)
        return note(work, image_id=image_id)

    workspace, job_id = impatient(sqlite_workspace), ask(sqlite_workspace)
    assert run_job(workspace, job_id, always(slow), "one") == "done"


def test_one_that_only_asks_whether_to_stop_is_stuck_and_may_leave_by_itself(workspace: Workspace) -> None:
    """As an arrow that listens to a trainer which has fallen silent."""

    def listening(work: Work, *, image_id: int) -> Write:
        wait_for(work.cancelled)
        raise Cancelled

    workspace, job_id, heard = impatient(workspace), ask(workspace, max_attempts=2), list[str]()
    assert run_job(workspace, job_id, always(listening), "one", on_stuck=heard.append) == "queued"
    waiting = row(workspace, job_id)
    assert waiting.not_before is not None and "no progress for 0.3 s" in str(waiting.reason)
    expire(workspace, job_id)
    assert run_job(workspace, job_id, always(listening), "one", on_stuck=heard.append) == "failed"
    assert heard == [] and row(workspace, job_id).attempt == 2


def test_a_stuck_job_that_somebody_cancelled_ends_as_cancelled(sqlite_workspace: Workspace) -> None:
    workspace, job_id, stuck = impatient(sqlite_workspace), ask(sqlite_workspace), Stuck()

    def cancelled(work: Work, *, image_id: int) -> Write:
        with workspace.write() as session:
            jobs.request_cancel(session, job_id)
        return stuck(work, image_id=image_id)

    assert run_job(workspace, job_id, always(cancelled), "one", on_stuck=stuck.end) == "cancelled"
    assert len(stuck.heard) == 1


def test_a_stuck_thread_whose_job_went_on_elsewhere_is_told_of_too(sqlite_workspace: Workspace) -> None:
    workspace, job_id, stuck = impatient(sqlite_workspace), ask(sqlite_workspace), Stuck()

    def left_behind(work: Work, *, image_id: int) -> Write:
        expire(workspace, job_id)
        assert run_job(workspace, job_id, always(note), "heir") == "done"
        return stuck(work, image_id=image_id)

    assert run_job(workspace, job_id, always(left_behind), "one", on_stuck=stuck.end) == "done"
    ended = row(workspace, job_id)
    assert (n_effects(workspace), ended.worker, len(stuck.heard)) == (1, "heir", 1)


def test_progress_is_shown_while_the_job_runs(workspace: Workspace) -> None:
    def stepping(work: Work, *, image_id: int) -> Write:
        for step in range(200):
            work.progress({"step": step})
        assert row(workspace, job_id).progress == {"step": 0}, "written at once, then at most once a second"
        return note(work, image_id=image_id)

    job_id = ask(workspace)
    assert run_job(workspace, job_id, always(stepping), "one") == "done"


def test_an_end_that_cannot_be_written_is_left_to_the_sweeper(sqlite_workspace: Workspace) -> None:
    """The commit's fate may be unknown: whatever happened, the next delivery makes it exactly one effect."""
    job_id = ask(sqlite_workspace)

    def severed(work: Work, *, image_id: int) -> Write:
        def write(session: Session) -> dict[str, Any]:
            record_event(session, "noted", subject_id=image_id)
            session.flush()
            session.connection().connection.driver_connection.close()
            return {}

        return write

    run_job(sqlite_workspace, job_id, always(severed), "one")
    sqlite_workspace.engine.dispose()
    assert n_effects(sqlite_workspace) == 0
    expire(sqlite_workspace, job_id)
    with sqlite_workspace.write() as session:
        if jobs.state_of(session, job_id) == "failed":
            jobs.retry(session, job_id)
    assert run_job(sqlite_workspace, job_id, always(note), "two") == "done"
    assert n_effects(sqlite_workspace) == 1


def test_the_same_write_works_outside_of_a_job(workspace: Workspace) -> None:
    assert commit(workspace, note(Work.inline(workspace), image_id=4)) == {"image_id": 4}
    assert n_effects(workspace) == 1
    assert not Work.inline(workspace).cancelled()


def test_an_unknown_job_or_another_workers_job_runs_nothing(workspace: Workspace) -> None:
    def never(work: Work, *, image_id: int) -> Write:
        raise AssertionError("ran")

    with pytest.raises(NotFound):
        run_job(workspace, 404, always(never), "one")
    held = claimed(workspace, ask(workspace), "other")
    assert run_job(workspace, held.job_id, always(never), "one") == "running"
    with workspace.read() as session:
        assert session.scalars(select(Job.worker)).one() == "other"
