"""Which job a woken worker takes: the most urgent of its queues, so that no image waits for bulk."""

import threading
from typing import Any

import pytest

from engine.config import load_settings
from engine.store import jobs
from engine.store.jobs import Claim
from engine.store.runner import run_next
from engine.store.session import Workspace
from tests.conftest import a_home
from tests.store.test_jobs import LEASE_S, ask, claimed, expire, row
from tests.store.test_runner import always, n_effects, note

BULK, IMAGE = 60, 10


def take(workspace: Workspace, worker: str = "one/1", queues: tuple[str, ...] = ("cpu",), **rule: Any) -> int:
    """The id of the job that was taken; 0 when there was none."""
    with workspace.write() as session:
        found = jobs.claim_next(session, queues, worker, LEASE_S, **rule)
    return 0 if found is None else found.job_id


def test_an_urgent_job_asked_after_a_hundred_bulk_jobs_is_taken_next(workspace: Workspace) -> None:
    bulk = [ask(workspace, f"bulk:{n}", priority=BULK) for n in range(100)]
    urgent = ask(workspace, "urgent", priority=IMAGE)
    assert [take(workspace), take(workspace), take(workspace)] == [urgent, bulk[0], bulk[1]]


def test_a_worker_takes_from_its_own_queues_only(workspace: Workspace) -> None:
    training = ask(workspace, "training", queue="train", priority=IMAGE)
    image = ask(workspace, "image", queue="gpu", priority=BULK)
    assert take(workspace, queues=("cpu", "gpu")) == image
    assert take(workspace, queues=("cpu", "gpu")) == 0
    assert take(workspace, queues=("cpu", "train")) == training


def test_what_waits_for_its_next_try_or_is_worked_on_is_passed_over(workspace: Workspace) -> None:
    held, later = ask(workspace, "held", priority=1), ask(workspace, "later", priority=2)
    claimed(workspace, held)
    with workspace.write() as session:
        jobs.fail(session, claimed_from(session, later), "away", retry_in_s=60)
    free = ask(workspace, "free", priority=BULK)
    assert take(workspace) == free
    expire(workspace, held)
    expire(workspace, later)
    assert [take(workspace), take(workspace), take(workspace)] == [held, later, 0]


def claimed_from(session: Any, job_id: int) -> Claim:
    found = jobs.claim(session, job_id, "one", LEASE_S)
    assert found is not None
    return found


def test_jobs_without_hope_are_ended_on_the_way_to_the_next(workspace: Workspace) -> None:
    spent = ask(workspace, "spent", max_attempts=1, priority=IMAGE)
    claimed(workspace, spent)
    expire(workspace, spent)
    good = ask(workspace, "good", priority=BULK)
    assert take(workspace) == good
    assert row(workspace, spent).state == "failed"


def test_racing_workers_take_every_job_once(workspace: Workspace) -> None:
    asked = {ask(workspace, f"raced:{n}") for n in range(12)}
    taken: list[int] = []
    start = threading.Barrier(4)

    def race(name: str) -> None:
        start.wait()
        while job_id := take(workspace, name):
            taken.append(job_id)

    threads = [threading.Thread(target=race, args=(f"racer/{n}",)) for n in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(taken) == sorted(asked)


def test_slow_jobs_leave_a_place_of_each_worker_to_the_urgent(workspace: Workspace) -> None:
    slow = [ask(workspace, f"slow:{n}", priority=BULK) for n in range(3)]
    assert take(workspace, "host:1:a/7", slow_places=1) == slow[0]
    assert take(workspace, "host:1:a/8", slow_places=1) == 0
    assert take(workspace, "host:2:b/9", slow_places=1) == slow[1], "another worker has places of its own"
    urgent = ask(workspace, "urgent", priority=IMAGE)
    assert take(workspace, "host:1:a/8", slow_places=1) == urgent
    expire(workspace, slow[0])
    assert take(workspace, "host:1:a/8", slow_places=1) == slow[0], "a dead place is free again"


def test_two_places_of_one_worker_that_wake_together_take_one_slow_job(workspace: Workspace) -> None:
    for n in range(4):
        ask(workspace, f"slow:{n}", priority=BULK)
    start, taken = threading.Barrier(4), []

    def race(place: int) -> None:
        start.wait()
        taken.append(take(workspace, f"host:1:a/{place}", slow_places=1))

    threads = [threading.Thread(target=race, args=(n,)) for n in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(map(bool, taken)) == [False, False, False, True]


def test_run_next_runs_until_there_is_nothing_to_run(workspace: Workspace) -> None:
    asked = [ask(workspace, f"run:{n}", priority=50 - n) for n in range(2)]
    ran = [run_next(workspace, ("cpu",), always(note), "one/1") for _ in range(3)]
    assert ran == [(asked[1], "done"), (asked[0], "done"), None]
    assert n_effects(workspace) == 2


def test_the_attempts_of_a_dead_process_end_at_once_with_the_cause(workspace: Workspace) -> None:
    last = ask(workspace, "last", max_attempts=1)
    first, other = ask(workspace, "first"), ask(workspace, "other")
    for job_id, worker in ((last, "host/7"), (first, "host/7"), (other, "host/8")):
        claimed(workspace, job_id, worker)
    with workspace.write() as session:
        assert sorted(jobs.workers_at_work(session, "host/")) == ["host/7", "host/8"]
        ended = jobs.end_attempts_of(session, ["host/7"], "its process crashed", 60)
    assert sorted(ended) == sorted([last, first])
    states = [
        (row(workspace, job_id).state, row(workspace, job_id).reason) for job_id in (last, first, other)
    ]
    assert states == [("failed", "its process crashed"), ("queued", "its process crashed"), ("running", None)]
    assert take(workspace, "heir/1") == 0, "its next try comes after the wait"


def test_waiting_jobs_are_counted_by_queue(workspace: Workspace) -> None:
    ask(workspace, "one", queue="gpu")
    ask(workspace, "two", queue="cpu")
    claimed(workspace, ask(workspace, "running", queue="cpu"))
    with workspace.read() as session:
        counts = [jobs.n_waiting(session), jobs.n_waiting(session, "gpu"), jobs.n_waiting(session, "train")]
    assert counts == [2, 1, 0]


@pytest.mark.parametrize(
    ("devices", "expected"),
    [(["cpu"], ["cpu", "cpu", "train"]), (["cpu", "cuda:0"], ["gpu", "cpu", "train"])],
)
def test_what_runs_a_model_waits_for_a_worker_with_a_gpu_where_there_is_one(
    devices: list[str], expected: list[str], tmp_path: Any
) -> None:
    settings = load_settings(a_home(tmp_path / "home").home, {"worker": {"devices": devices}})
    assert [jobs.queue_of(kind, settings) for kind in ("embed", "snapshot", "train")] == expected
