"""A detector version: the box proposer of stage 2, what it learned from, and how well it measured."""

from datetime import datetime
from typing import Any

from sqlalchemy import Float, ForeignKey, UniqueConstraint
from sqlalchemy.orm import Mapped, mapped_column

from engine.store.base import Base, RowId, Sha256, utc_now


class DetectorVersion(Base):
    """Reads the embeddings of one model version and of no other; the newest one of that version serves."""

    __tablename__ = "detector_versions"
    __table_args__ = (UniqueConstraint("dataset_id", "name"),)
    id: Mapped[RowId]
    dataset_id: Mapped[int] = mapped_column(ForeignKey("datasets.id"))
    name: Mapped[str]
    model_version_id: Mapped[int] = mapped_column(ForeignKey("model_versions.id"), index=True)
    snapshot_id: Mapped[int] = mapped_column(ForeignKey("snapshots.id"))
    weights_sha256: Mapped[Sha256]
    # The lowest score that is prefilled; None when no score held the asked false-prefill rate.
    threshold: Mapped[float | None] = mapped_column(Float)
    false_prefill_rate: Mapped[float] = mapped_column(Float)
    # Average recall, precision at the threshold, and the same of the two baselines, on held-out images.
    figures: Mapped[dict[str, Any]]
    created_at: Mapped[datetime] = mapped_column(default=utc_now)
