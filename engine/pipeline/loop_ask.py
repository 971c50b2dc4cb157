"""How the loop asks: a kind of job, its priority and queue, once per key."""

from typing import Any

from sqlalchemy import select
from sqlalchemy.orm import Session

from engine.config import Settings
from engine.store.jobs import Job, ask, queue_of

# Smaller runs first: somebody waits for an image, nobody for a round.
PRIORITIES = {
    "embed": 10,
    "propose": 15,
    "warm": 20,
    "activate": 30,
    "rollback": 30,
    "snapshot": 30,
    "detector-snapshot": 30,
    "promote": 30,
    "evaluate": 50,
    "train-detector": 50,
    "train": 60,
    "collect": 90,
    "propose-bulk": 80,
}


def ask_for(
    session: Session,
    settings: Settings,
    kind: str,
    dataset_id: int | None,
    arguments: dict[str, Any],
    key: str,
    priority: str | None = None,
) -> int:
    """1 if the job is new, 0 if it was asked before (and runs, ran or failed)."""
    known = session.scalar(select(Job.id).where(Job.unique_key == f"{kind}:{key}"))
    ask(
        session,
        kind,
        arguments,
        f"{kind}:{key}",
        dataset_id=dataset_id,
        queue=queue_of(kind, settings),
        priority=PRIORITIES[priority or kind],
        max_attempts=settings.worker.max_attempts,
    )
    return int(known is None)
