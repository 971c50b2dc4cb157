"""The ledger's rules, one statement at a time: ask, claim, beat, finish, fail, cancel, retry."""

import threading
from datetime import timedelta
from typing import Any

import pytest
from sqlalchemy import update

from engine.errors import Conflict, NotFound
from engine.store import jobs
from engine.store.base import database_now
from engine.store.jobs import Claim, ClaimLost, Job
from engine.store.session import Workspace

LEASE_S = 60.0


def ask(workspace: Workspace, key: str = "embed:1", **options: Any) -> int:
    with workspace.write() as session:
        return jobs.ask(session, "embed", {"image_id": 1}, key, **options).id


def claim(workspace: Workspace, job_id: int, worker: str = "one") -> Claim | None:
    with workspace.write() as session:
        return jobs.claim(session, job_id, worker, LEASE_S)


def claimed(workspace: Workspace, job_id: int, worker: str = "one") -> Claim:
    found = claim(workspace, job_id, worker)
    assert found is not None
    return found


def row(workspace: Workspace, job_id: int) -> Job:
    with workspace.read() as session:
        return session.get_one(Job, job_id)


def expire(workspace: Workspace, job_id: int) -> None:
    """Time passes: the lease, or the wait for the next try, is over."""
    with workspace.write() as session:
        past = database_now(session) - timedelta(seconds=1)
        session.execute(update(Job).where(Job.id == job_id, Job.state == "running").values(lease_until=past))
        session.execute(update(Job).where(Job.id == job_id, Job.state == "queued").values(not_before=past))


def due(workspace: Workspace, **options: Any) -> list[int]:
    with workspace.read() as session:
        return jobs.due_ids(session, **options)


def test_asking_twice_returns_the_first_job(workspace: Workspace) -> None:
    first = ask(workspace, priority=5)
    assert ask(workspace, priority=99) == first
    assert row(workspace, first).priority == 5


def test_asking_at_the_same_time_makes_one_job(workspace: Workspace) -> None:
    start, ids = threading.Barrier(4), []

    def race() -> None:
        start.wait()
        ids.append(ask(workspace))

    threads = [threading.Thread(target=race) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(ids) == 4 and len(set(ids)) == 1


def test_a_job_exists_only_with_the_rows_that_caused_it(workspace: Workspace) -> None:
    with pytest.raises(ZeroDivisionError), workspace.write() as session:
        jobs.ask(session, "embed", {}, "never")
        raise ZeroDivisionError
    assert due(workspace) == []


def test_due_jobs_come_most_urgent_first_and_by_queue(workspace: Workspace) -> None:
    bulk, urgent = ask(workspace, "bulk"), ask(workspace, "urgent", priority=1)
    heavy = ask(workspace, "heavy", queue="train")
    assert due(workspace) == [urgent, bulk, heavy]
    assert due(workspace, queues=["cpu"]) == [urgent, bulk]
    assert due(workspace, limit=1) == [urgent]
    claimed(workspace, urgent)
    assert due(workspace) == [bulk, heavy]


def test_of_many_threads_that_claim_one_job_one_wins(workspace: Workspace) -> None:
    for n in range(5):
        job_id, start = ask(workspace, f"race:{n}"), threading.Barrier(4)
        claims: list[Claim | None] = []

        def race(job_id: int = job_id, start: threading.Barrier = start, claims: Any = claims) -> None:
            start.wait()
            claims.append(claim(workspace, job_id))

        threads = [threading.Thread(target=race) for _ in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert [found.attempt for found in claims if found is not None] == [1]
        assert len(claims) == 4


def test_a_heartbeat_keeps_the_job_from_the_sweeper(workspace: Workspace) -> None:
    mine = claimed(workspace, ask(workspace))
    expire(workspace, mine.job_id)
    with workspace.write() as session:
        assert jobs.heartbeat(session, mine, LEASE_S) == jobs.Beat(kept=True, cancel_requested=False)
    assert due(workspace) == []
    assert claim(workspace, mine.job_id, "two") is None


def test_an_expired_job_is_claimed_anew_and_the_zombie_is_refused(workspace: Workspace) -> None:
    zombie = claimed(workspace, ask(workspace))
    expire(workspace, zombie.job_id)
    assert due(workspace) == [zombie.job_id]
    heir = claimed(workspace, zombie.job_id, "two")
    assert heir.attempt == 2
    with workspace.write() as session:
        assert not jobs.heartbeat(session, zombie, LEASE_S).kept
        jobs.report_progress(session, zombie, {"step": 9})
    for late in (
        lambda session: jobs.finish(session, zombie, {"by": "zombie"}),
        lambda session: jobs.fail(session, zombie, "late", retry_in_s=None),
        lambda session: jobs.cancel_done(session, zombie),
        lambda session: jobs.give_back(session, zombie),
    ):
        with pytest.raises(ClaimLost, match="no longer"), workspace.write() as session:
            late(session)
    with workspace.write() as session:
        jobs.finish(session, heir, {"by": "heir"})
    ended = row(workspace, heir.job_id)
    assert (ended.state, ended.outcome, ended.progress, ended.lease_until) == (
        "done",
        {"by": "heir"},
        None,
        None,
    )


def test_a_job_ends_once(workspace: Workspace) -> None:
    mine = claimed(workspace, ask(workspace))
    with workspace.write() as session:
        jobs.finish(session, mine, {})
    with pytest.raises(ClaimLost), workspace.write() as session:
        jobs.finish(session, mine, {"again": True})
    assert claim(workspace, mine.job_id) is None and due(workspace) == []


def test_workers_that_die_without_a_word_use_up_the_attempts(workspace: Workspace) -> None:
    job_id = ask(workspace, max_attempts=2)
    for attempt in (1, 2):
        assert claimed(workspace, job_id).attempt == attempt
        expire(workspace, job_id)
    assert due(workspace) == [job_id]
    assert claim(workspace, job_id) is None
    ended = row(workspace, job_id)
    assert ended.state == "failed" and "without an answer" in str(ended.reason)
    assert due(workspace) == []


def test_a_transient_failure_waits_then_tries_until_the_cap(workspace: Workspace) -> None:
    job_id = ask(workspace, max_attempts=2)
    for state in ("queued", "failed"):
        mine = claimed(workspace, job_id)
        with workspace.write() as session:
            assert jobs.fail(session, mine, "the disk is away", retry_in_s=600) == state
        assert due(workspace) == [] and claim(workspace, job_id) is None
        expire(workspace, job_id)
    ended = row(workspace, job_id)
    assert (ended.state, ended.reason, ended.attempt) == ("failed", "the disk is away", 2)


def test_a_failed_job_retried_by_hand_gets_new_attempts_and_a_higher_token(workspace: Workspace) -> None:
    mine = claimed(workspace, ask(workspace))
    with workspace.write() as session:
        jobs.fail(session, mine, "broken", retry_in_s=None)
    with workspace.write() as session:
        jobs.retry(session, mine.job_id)
    again = claimed(workspace, mine.job_id)
    assert again.attempt == 2
    assert (row(workspace, mine.job_id).max_attempts, row(workspace, mine.job_id).reason) == (4, None)
    with pytest.raises(Conflict, match="is running"), workspace.write() as session:
        jobs.retry(session, mine.job_id)


def test_a_worker_that_stops_in_order_costs_no_attempt(workspace: Workspace) -> None:
    job_id = ask(workspace, max_attempts=1)
    for attempt in (1, 2, 3):
        mine = claimed(workspace, job_id, "host:1:a")
        assert mine.attempt == attempt
        with workspace.write() as session:
            if attempt == 1:
                jobs.give_back(session, mine)
            else:
                assert jobs.give_back_all(session, "host:2") == 0
                assert jobs.give_back_all(session, "host:1") == 1
    assert due(workspace) == [job_id]


def test_cancelling_a_waiting_job_ends_it_and_a_running_one_is_told(workspace: Workspace) -> None:
    waiting, running = ask(workspace, "waiting"), ask(workspace, "running")
    mine = claimed(workspace, running)
    with workspace.write() as session:
        assert jobs.request_cancel(session, waiting) == "cancelled"
        assert jobs.request_cancel(session, running) == "running"
        assert jobs.heartbeat(session, mine, LEASE_S) == jobs.Beat(kept=True, cancel_requested=True)
        jobs.cancel_done(session, mine)
    assert [row(workspace, job_id).state for job_id in (waiting, running)] == ["cancelled"] * 2
    with pytest.raises(Conflict, match="already cancelled"), workspace.write() as session:
        jobs.request_cancel(session, running)
    with workspace.write() as session:
        jobs.retry(session, running)
    assert claimed(workspace, running).attempt == 2


def test_a_job_cancelled_while_its_worker_died_is_not_run_again(workspace: Workspace) -> None:
    mine = claimed(workspace, ask(workspace))
    with workspace.write() as session:
        jobs.request_cancel(session, mine.job_id)
    expire(workspace, mine.job_id)
    assert claim(workspace, mine.job_id) is None
    assert row(workspace, mine.job_id).state == "cancelled"


def test_an_unknown_job_is_not_found(workspace: Workspace) -> None:
    assert claim(workspace, 77) is None
    for act in (jobs.request_cancel, jobs.retry, jobs.state_of):
        with pytest.raises(NotFound, match="77"), workspace.write() as session:
            act(session, 77)
