"""The jobs ledger: the only truth about work. A broker's message is a wake-up that carries one id (DESIGN section 5)."""

from datetime import datetime
from typing import Any

from sqlalchemy import CheckConstraint, ForeignKey, Index
from sqlalchemy.orm import Mapped, mapped_column

from engine.store.base import Base, RowId, utc_now

QUEUES = ("cpu", "gpu", "train", "export")


class Job(Base):
    """One run of one arrow. `attempt` is the fencing token: a write of an older attempt is refused."""

    __tablename__ = "jobs"
    __table_args__ = (
        CheckConstraint("state in ('queued', 'running', 'done', 'failed', 'cancelled')", name="state"),
        Index("ix_jobs_state_queue_priority_id", "state", "queue", "priority", "id"),
    )
    id: Mapped[RowId]
    kind: Mapped[str]
    dataset_id: Mapped[int | None] = mapped_column(ForeignKey("datasets.id"))
    arguments: Mapped[dict[str, Any]]
    # Image + weights digest + settings digest, by kind: asking twice returns the first row.
    unique_key: Mapped[str] = mapped_column(unique=True)
    queue: Mapped[str] = mapped_column(default="cpu")
    # Smaller runs first: an annotator's next image before bulk.
    priority: Mapped[int] = mapped_column(default=100)
    state: Mapped[str] = mapped_column(default="queued")
    attempt: Mapped[int] = mapped_column(default=0)
    max_attempts: Mapped[int] = mapped_column(default=3)
    not_before: Mapped[datetime | None]
    lease_until: Mapped[datetime | None]
    cancel_requested: Mapped[bool] = mapped_column(default=False)
    progress: Mapped[dict[str, Any] | None]
    outcome: Mapped[dict[str, Any] | None]
    reason: Mapped[str | None]
    worker: Mapped[str | None]
    created_at: Mapped[datetime] = mapped_column(default=utc_now)
    started_at: Mapped[datetime | None]
    ended_at: Mapped[datetime | None]
