"""Forked children on Redis and Postgres: deadly jobs, urgent jobs, a forgetful Redis, torch in children."""

import os
import signal
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import redis
from sqlalchemy import select

from engine.store import jobs
from engine.store.events import Event
from engine.store.jobs import Job
from engine.store.session import Workspace
from tests.conftest import REDIS
from tests.workers.conftest import Farm, reopened, wait_for

ROUGH = "tests.workers.rough"
# The pool tells of a dead child after up to five seconds; a lease that ended before would hide the cause.
LEASE_S = 20.0


@pytest.fixture
def pool(postgres_workspace: Workspace, redis_prefix: str) -> Iterator[Farm]:
    """A farm as in production; nothing is started yet."""
    overrides: dict[str, dict[str, Any]] = {
        "database": {"url": postgres_workspace.settings.database.url},
        "worker": {"threads": 2, "broker": REDIS, "key_prefix": redis_prefix, "max_attempts": 2}
        | {"lease_s": LEASE_S},
    }
    opened = Farm(reopened(postgres_workspace.settings, overrides), overrides)
    yield opened
    opened.close()


def ask(farm: Farm, kind: str, n: int = 1, priority: int = 30, **arguments: Any) -> list[int]:
    with farm.workspace.write() as session:
        return [
            jobs.ask(
                session,
                kind,
                {"number": number} | arguments,
                f"{kind}:{priority}:{number}",
                priority=priority,
                max_attempts=2,
            ).id
            for number in range(n)
        ]


def ended(farm: Farm, ids: list[int]) -> bool:
    with farm.workspace.read() as session:
        left = select(Job.id).where(Job.id.in_(ids), Job.state.in_(("queued", "running")))
        return session.scalar(left.limit(1)) is None


def rows(farm: Farm, ids: list[int]) -> list[Job]:
    with farm.workspace.read() as session:
        return list(session.scalars(select(Job).where(Job.id.in_(ids)).order_by(Job.id)))


def n_effects(farm: Farm) -> Counter[int]:
    with farm.workspace.read() as session:
        return Counter(session.scalars(select(Event.subject_id).where(Event.kind == "noted")))


def children_of(process_id: int) -> list[int]:
    """Its living children."""
    listed = Path(f"/proc/{process_id}/task/{process_id}/children").read_text()
    return [int(child) for child in listed.split() if "Z" != state_of(int(child))]


def state_of(process_id: int) -> str:
    try:
        return Path(f"/proc/{process_id}/stat").read_text().rsplit(")", 1)[1].split()[0]
    except FileNotFoundError:
        return "Z"


def one_ended(pool: Farm, kind: str) -> int:
    """The id of a job of that kind that has run to its end."""
    (job_id,) = ask(pool, kind)
    wait_for(lambda: ended(pool, [job_id]), 60)
    return job_id


def test_deadly_jobs_fail_with_a_reason_while_the_others_run(pool: Farm) -> None:
    worker = pool.start(module=ROUGH)
    before = len(children_of(worker.pid))
    harmless = ask(pool, "note", n=20)
    # One after the other: of two children that die in the same moment the pool says not which died of what.
    deadly = [one_ended(pool, kind) for kind in ("segfault", "leave", "devour")]
    wait_for(lambda: ended(pool, deadly + harmless), 60)
    assert {job.state for job in rows(pool, harmless)} == {"done"}
    assert n_effects(pool) == Counter(range(20))
    crashed, left, killed = rows(pool, deadly)
    assert {job.state for job in (crashed, left, killed)} == {"failed"} and crashed.attempt == 2
    assert "crashed (SIGSEGV)" in str(crashed.reason) and "exit code 3" in str(left.reason)
    assert "ran out of memory" in str(killed.reason)
    wait_for(lambda: len(children_of(worker.pid)) == before)
    assert worker.poll() is None


def test_an_urgent_job_behind_a_hundred_bulk_jobs_runs_within_seconds(pool: Farm) -> None:
    pool.start(module=ROUGH)
    bulk = ask(pool, "note", n=100, priority=60, seconds=0.5)
    wait_for(lambda: len(n_effects(pool)) > 2)
    (urgent,) = ask(pool, "note", priority=10)
    began = time.monotonic()
    wait_for(lambda: ended(pool, [urgent]))
    assert time.monotonic() - began < 5
    assert not ended(pool, bulk)


def test_a_redis_that_forgets_everything_loses_no_job(pool: Farm, redis_prefix: str) -> None:
    asked = ask(pool, "note", n=30, priority=60, seconds=0.1)
    pool.start("--only-tick", module=ROUGH)
    server = redis.Redis.from_url(REDIS)
    wait_for(lambda: server.llen(f"{redis_prefix}cpu") > 0)
    forget(server, redis_prefix)
    pool.start("--no-tick", module=ROUGH)
    wait_for(lambda: len(n_effects(pool)) > 5)
    forget(server, redis_prefix)
    # What is asked from now on needs a message that the emptied Redis must carry.
    wait_for(lambda: ended(pool, asked))
    more = ask(pool, "note", n=31)
    wait_for(lambda: ended(pool, more))
    assert {job.state for job in rows(pool, asked + more)} == {"done"}
    assert n_effects(pool) == Counter([*range(30), *range(31)])


def forget(server: Any, prefix: str) -> None:
    for key in server.scan_iter(f"{prefix}*"):
        server.delete(key)


def test_only_children_load_torch_and_a_cancelled_job_stops_in_seconds(pool: Farm) -> None:
    worker = pool.start(module=ROUGH)
    (loaded,) = ask(pool, "with_torch")
    wait_for(lambda: ended(pool, [loaded]))
    assert not maps_torch(worker.pid)
    assert any(maps_torch(child) for child in children_of(worker.pid))
    (lingering,) = ask(pool, "linger")
    wait_for(lambda: rows(pool, [lingering])[0].state == "running")
    with pool.workspace.write() as session:
        assert jobs.request_cancel(session, lingering) == "running"
    began = time.monotonic()
    wait_for(lambda: ended(pool, [lingering]))
    assert time.monotonic() - began < 5 and rows(pool, [lingering])[0].state == "cancelled"
    os.kill(worker.pid, signal.SIGTERM)
    assert worker.wait(timeout=20) == 0


def maps_torch(process_id: int) -> bool:
    return "libtorch" in Path(f"/proc/{process_id}/maps").read_text()
