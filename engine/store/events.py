"""An event: something that happened, who did it, and to what. Written once, in the act's own transaction."""

from datetime import datetime
from typing import Any

from sqlalchemy import ForeignKey, Index
from sqlalchemy.orm import Mapped, Session, mapped_column

from engine.store.base import Base, RowId, utc_now


class Event(Base):
    __tablename__ = "events"
    __table_args__ = (Index("ix_events_dataset_id_kind_id", "dataset_id", "kind", "id"),)
    id: Mapped[RowId]
    created_at: Mapped[datetime] = mapped_column(default=utc_now)
    kind: Mapped[str]
    dataset_id: Mapped[int | None] = mapped_column(ForeignKey("datasets.id"))
    actor_id: Mapped[int | None] = mapped_column(ForeignKey("users.id"))
    subject_id: Mapped[int | None]
    payload: Mapped[dict[str, Any]] = mapped_column(default=dict)


def record_event(
    session: Session,
    kind: str,
    *,
    dataset_id: int | None = None,
    actor_id: int | None = None,
    subject_id: int | None = None,
    **payload: Any,
) -> None:
    """Adds the event to the caller's transaction: it happens with the act or not at all."""
    event = Event(kind=kind, dataset_id=dataset_id, actor_id=actor_id, subject_id=subject_id, payload=payload)
    session.add(event)
