"""A model version: weights by digest and what they learned from; the gate's decision; which one is active."""

from datetime import datetime
from typing import Any

from sqlalchemy import CheckConstraint, ForeignKey, Select, UniqueConstraint, select
from sqlalchemy.orm import Mapped, Session, mapped_column

from engine.store.base import Base, RowId, Sha256, utc_now
from engine.store.events import Event


class ModelVersion(Base):
    """Weights of one dataset's line of models. The first one was imported: no parent, no snapshot."""

    __tablename__ = "model_versions"
    __table_args__ = (
        UniqueConstraint("dataset_id", "name"),
        UniqueConstraint("dataset_id", "weights_sha256"),
    )
    id: Mapped[RowId]
    dataset_id: Mapped[int] = mapped_column(ForeignKey("datasets.id"))
    name: Mapped[str]
    architecture: Mapped[str]
    # The model's card: every size the predictors need (img_size, grid, dims, pixel mean and std).
    config: Mapped[dict[str, Any]]
    weights_sha256: Mapped[Sha256]
    decoder_sha256: Mapped[Sha256]
    parent_id: Mapped[int | None] = mapped_column(ForeignKey("model_versions.id"))
    snapshot_id: Mapped[int | None] = mapped_column(ForeignKey("snapshots.id"))
    # Recipe, seed, steps, seconds, last losses: what a reader needs to judge or repeat the run.
    training: Mapped[dict[str, Any] | None]
    created_at: Mapped[datetime] = mapped_column(default=utc_now)


class Decision(Base):
    """The gate's word on a candidate, once, with its reason (paper section 4 retrains; the gate is ours)."""

    __tablename__ = "decisions"
    __table_args__ = (CheckConstraint("verdict in ('promote', 'refuse')", name="verdict"),)
    id: Mapped[RowId]
    model_version_id: Mapped[int] = mapped_column(ForeignKey("model_versions.id"), unique=True)
    verdict: Mapped[str]
    reason: Mapped[str]
    # The two evaluations compared: {"candidate": id, "active": id} and their figures.
    figures: Mapped[dict[str, Any]]
    created_at: Mapped[datetime] = mapped_column(default=utc_now)


class ActiveModel(Base):
    """Which version serves a dataset's new images. Moved by compare-and-set, logged as an event."""

    __tablename__ = "active_models"
    dataset_id: Mapped[int] = mapped_column(ForeignKey("datasets.id"), primary_key=True)
    model_version_id: Mapped[int] = mapped_column(ForeignKey("model_versions.id"))
    activated_at: Mapped[datetime] = mapped_column(default=utc_now)


def served_before(session: Session, dataset_id: int) -> list[int]:
    """The versions that led to the active one, oldest first; going back forgets what had come after."""
    line: list[int] = []
    for event in session.scalars(_events(dataset_id, "model.activated").order_by(Event.id)):
        assert event.subject_id is not None
        line = line or [event.payload["before"]]
        if event.subject_id in line:
            del line[line.index(event.subject_id) :]
        line.append(event.subject_id)
    return line[:-1]


def formerly_active(session: Session, dataset_id: int) -> list[int]:
    """Every version that ever served and does not now, the one that was left last first."""
    active = session.get(ActiveModel, dataset_id)
    latest_first = session.scalars(_events(dataset_id, "model.activated").order_by(Event.id.desc()))
    left = dict.fromkeys(event.payload["before"] for event in latest_first)
    return [id for id in left if active is None or id != active.model_version_id]


def roll_back_asked(session: Session, dataset_id: int) -> Event | None:
    """The wish of a person to go back to the version `subject_id`, until any version was activated since."""
    asked = session.scalar(_events(dataset_id, "model.rollback").order_by(Event.id.desc()).limit(1))
    if asked is None:
        return None
    since = _events(dataset_id, "model.activated").where(Event.id > asked.id).limit(1)
    return None if session.scalar(since) is not None else asked


def _events(dataset_id: int, kind: str) -> Select[Event]:
    return select(Event).where(Event.dataset_id == dataset_id, Event.kind == kind)
