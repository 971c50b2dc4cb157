"""Drill 7: jobs that crash, exit, loop or take all memory end as failed with a reason; the others go on."""

import time

from sqlalchemy import select

from engine.store.jobs import Job
from tests.faults.crew import Crew
from tests.faults.drill import Drill, full_only, wait_for

ATTEMPTS = 3
WINDOW_S = 40.0
# Longer than any harmless job is silent.
STALL_S = 3.0


def n_done(crew: Crew, ids: list[int]) -> int:
    return crew.states(ids)["done"]


def per_s(crew: Crew, ids: list[int], seconds: float) -> float:
    """How many of these jobs end per second, from now on."""
    before, began = n_done(crew, ids), time.monotonic()
    time.sleep(seconds)
    return (n_done(crew, ids) - before) / (time.monotonic() - began)


@full_only()
def test_poison(drill: Drill, crew: Crew) -> None:
    """Throughput with the poison is compared with that of the same machine just before it."""
    window_s, n_workers = max(5.0, WINDOW_S * drill.scale), 3
    crew.start("tick", "--only-tick")
    for number in range(n_workers):
        crew.start(f"worker {number}", "--no-tick")
    # More than the places can run in both windows, so that they never idle.
    harmless = crew.ask(("nap",), round(2.5 * window_s * n_workers * 2 / 0.175), drill.rng)
    wait_for(lambda: n_done(crew, harmless) > n_workers, 120, f"no job ended: {crew.said()}")
    n_children = sum(len(crew.children(name)) for name in crew.members)
    before = per_s(crew, harmless, window_s)
    poison = crew.ask(("segfault", "leave", "leak"), drill.n(50, least=3), drill.rng, attempts=ATTEMPTS)
    during = per_s(crew, harmless, window_s)
    wait_for(lambda: not crew.n_open(poison), 300, f"poison left: {crew.said()}")
    wait_for(lambda: not crew.n_open(harmless), 300, f"jobs left: {crew.said()}")
    with crew.workspace.read() as session:
        ended = list(session.scalars(select(Job).where(Job.id.in_(poison))))
    lost, doubled = crew.n_lost_and_doubled(harmless)
    drill.note("poisonous jobs", len(poison))
    drill.claim("not failed with a reason", sum(job.state != "failed" or not job.reason for job in ended), 0)
    drill.claim("most attempts", max(job.attempt for job in ended), ATTEMPTS)
    drill.claim("others lost", lost, 0)
    drill.claim("others doubled", doubled, 0)
    drill.note("others per s without poison", before)
    drill.claim_least("their share with it", during / before, 0.8)
    drill.claim("workers gone", sum(process.poll() is not None for process in crew.members.values()), 0)
    wait_for(
        lambda: sum(len(crew.children(name)) for name in crew.members) >= n_children, 60, "children missing"
    )
    drill.examined(crew.workspace)
    drill.end()


@full_only()
def test_endless_poison(drill: Drill, crew: Crew) -> None:
    """Loops that never ask whether to stop: `worker.stall_s` ends each attempt and the child that ran it."""
    crew.overrides["worker"]["stall_s"] = STALL_S
    n_workers = 2
    poison = crew.ask(("whirl",), drill.n(8, least=2), drill.rng, attempts=ATTEMPTS)
    harmless = crew.ask(("nap", "stroll"), drill.n(200, least=20), drill.rng)
    crew.start("tick", "--only-tick")
    for number in range(n_workers):
        crew.start(f"worker {number}", "--no-tick")
    wait_for(lambda: crew.states(poison)["running"], 120, f"never begun: {crew.said()}")
    n_children = sum(len(crew.children(name)) for name in crew.members)
    wait_for(lambda: not crew.n_open(poison + harmless), 300, f"jobs left: {crew.said()}")
    with crew.workspace.read() as session:
        ended = list(session.scalars(select(Job).where(Job.id.in_(poison))))
    lost, doubled = crew.n_lost_and_doubled(harmless)
    drill.note("endless jobs", len(poison))
    stated = [job for job in ended if job.state == "failed" and "worker.stall_s" in (job.reason or "")]
    drill.claim("not failed with the reason", len(poison) - len(stated), 0)
    drill.claim("most attempts", max(job.attempt for job in ended), ATTEMPTS)
    drill.claim("others lost", lost, 0)
    drill.claim("others doubled", doubled, 0)
    drill.claim("workers gone", sum(process.poll() is not None for process in crew.members.values()), 0)
    wait_for(
        lambda: sum(len(crew.children(name)) for name in crew.members) >= n_children, 60, "children missing"
    )
    drill.examined(crew.workspace)
    drill.end()
