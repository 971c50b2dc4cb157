"""Drill 5: messages come three times and late, and workers return from the dead. Each job has one effect."""

import os
import signal
import time
from collections.abc import Sequence

from sqlalchemy import select

from engine.store.events import Event
from engine.store.jobs import Due, Job
from tests.faults.crew import Crew
from tests.faults.drill import Drill, full_only, short_and_full, wait_for
from tests.faults.sleepy import DEED
from workers.app import make_app
from workers.tick import CeleryBroker

N_DELIVERIES = 3
LATE_SHARE = 0.1
LATE_S = 120.0


def deliver(crew: Crew, ids: Sequence[int]) -> None:
    """A message for each of these jobs, whatever state it is in."""
    broker = CeleryBroker(make_app(crew.workspace.settings))
    for job_id in ids:
        broker.send(Due(int(job_id), "nap", "cpu", 0, 30))


@full_only()
def test_every_message_three_times(drill: Drill, crew: Crew) -> None:
    """No tick: the messages of the drill are the only ones."""
    ids = crew.ask(("nap", "knead"), drill.n(1000), drill.rng)
    for number in range(3):
        crew.start(f"worker {number}", "--no-tick")
    late = drill.rng.choice(ids, drill.n(round(1000 * LATE_SHARE)), replace=False)
    messages = drill.rng.permutation(list(ids) * N_DELIVERIES)
    asked_at = time.monotonic()
    deliver(crew, list(messages))
    wait_for(lambda: not crew.n_open(ids), 600, f"jobs left: {crew.said()}")
    time.sleep(max(0.0, asked_at + LATE_S * min(1.0, drill.scale) - time.monotonic()))
    deliver(crew, list(late))
    # A last job behind the late messages: once it has run, they were all read.
    marker = crew.ask(("nap",), 1, drill.rng)
    deliver(crew, marker)
    wait_for(lambda: not crew.n_open(marker), 60, f"late messages not read: {crew.said()}")
    lost, doubled = crew.n_lost_and_doubled(ids)
    drill.note("jobs", len(ids))
    drill.note("messages", len(messages) + len(late))
    drill.claim("lost", lost, 0)
    drill.claim("doubled", doubled, 0)
    drill.examined(crew.workspace)
    drill.end()


def holder(crew: Crew, job_id: int) -> tuple[int, int]:
    """(process that runs the job now, attempt); (0, 0) while nobody does."""
    with crew.workspace.read() as session:
        job = session.get_one(Job, job_id)
    if job.state != "running" or not job.worker:
        return 0, 0
    return int(job.worker.rsplit("/", 1)[1]), job.attempt


def haunt(crew: Crew, job_id: int) -> int:
    """Stops the job's process in the middle, lets another end the job, wakes the zombie; its process id."""
    wait_for(lambda: holder(crew, job_id)[0], 120, f"nobody runs it: {crew.said()}", every_s=0.02)
    zombie, attempt = holder(crew, job_id)
    time.sleep(0.2)
    os.kill(zombie, signal.SIGSTOP)
    try:
        wait_for(lambda: not crew.n_open([job_id]), 120, f"attempt {attempt} was not followed: {crew.said()}")
    finally:
        os.kill(zombie, signal.SIGCONT)
    return zombie


@short_and_full(short=0.05)
def test_zombie(drill: Drill, crew: Crew) -> None:
    """SIGSTOP for as long as it takes the others to run the job, at least a lease; then SIGCONT."""
    # The short drill has one worker: another child of it runs what the stopped one held.
    for number in range(3 if drill.scale > 0.1 else 1):
        crew.start(f"worker {number}")
    zombies: dict[int, int] = {}
    for _ in range(drill.n(20)):
        (job_id,) = crew.ask(("nap",), 1, drill.rng, seconds=1.5)
        zombies[job_id] = haunt(crew, job_id)
    # Longer than the rest of the nap: by then every zombie has tried to write.
    time.sleep(3.0)
    ids = list(zombies)
    with crew.workspace.read() as session:
        numbers = {
            job.arguments["number"]: job.id for job in session.scalars(select(Job).where(Job.id.in_(ids)))
        }
        deeds = session.execute(select(Event.subject_id, Event.payload).where(Event.kind == DEED)).all()
    accepted = sum(1 for number, payload in deeds if payload["process"] == zombies[numbers[number]])
    lost, doubled = crew.n_lost_and_doubled(ids)
    refusals = crew.log.read_text().count("is no longer this worker's")
    drill.note("zombies", len(ids))
    drill.claim("accepted writes of zombies", accepted, 0)
    drill.claim_least("refused writes of zombies", refusals, len(ids))
    drill.claim("lost", lost, 0)
    drill.claim("doubled", doubled, 0)
    drill.examined(crew.workspace)
    drill.end()
