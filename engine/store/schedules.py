"""A schedule: when a dataset's model is retrained; and its due times, each of which starts one round."""

from datetime import datetime

from sqlalchemy import CheckConstraint, ForeignKey, Index, UniqueConstraint
from sqlalchemy.orm import Mapped, mapped_column

from engine.store.base import Base, RowId, utc_now


class Schedule(Base):
    """Nightly at a time, every so many new masks, or both: whichever comes first. Removed, never deleted."""

    __tablename__ = "schedules"
    __table_args__ = (
        CheckConstraint("nightly_at is not null or every_new_masks is not null", name="something"),
        CheckConstraint("every_new_masks is null or every_new_masks > 0", name="every_new_masks"),
    )
    id: Mapped[RowId]
    dataset_id: Mapped[int] = mapped_column(ForeignKey("datasets.id"), index=True)
    # "HH:MM", UTC.
    nightly_at: Mapped[str | None]
    every_new_masks: Mapped[int | None]
    created_by_id: Mapped[int | None] = mapped_column(ForeignKey("users.id"))
    created_at: Mapped[datetime] = mapped_column(default=utc_now)
    removed_at: Mapped[datetime | None]


class ScheduleRun(Base):
    """One due time of one schedule. Unique, so that any number of ticks start its round once."""

    __tablename__ = "schedule_runs"
    __table_args__ = (
        UniqueConstraint("schedule_id", "due"),
        CheckConstraint("state in ('waiting', 'started', 'skipped')", name="state"),
        Index("ix_schedule_runs_state", "state"),
    )
    id: Mapped[RowId]
    schedule_id: Mapped[int] = mapped_column(ForeignKey("schedules.id"))
    # "2026-11-22T02:00Z" for a night, "masks:5000" for the 5,000th new mask.
    due: Mapped[str]
    due_at: Mapped[datetime]
    state: Mapped[str] = mapped_column(default="waiting")
    # Why it was skipped, or the number of the round it started.
    reason: Mapped[str | None]
    round_number: Mapped[int | None]
    started_at: Mapped[datetime | None]
