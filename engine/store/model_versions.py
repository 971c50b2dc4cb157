"""A model version: weights by digest and what they learned from; the gate's decision; which one is active."""

from datetime import datetime
from typing import Any

from sqlalchemy import CheckConstraint, ForeignKey, UniqueConstraint
from sqlalchemy.orm import Mapped, mapped_column

from engine.store.base import Base, RowId, Sha256, utc_now


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
