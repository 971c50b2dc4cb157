"""An evaluation: one model version's figures on one frozen set of masks (protocol: paper appendix D.1)."""

from datetime import datetime
from typing import Any

from sqlalchemy import ForeignKey, UniqueConstraint
from sqlalchemy.orm import Mapped, mapped_column

from engine.store.base import Base, RowId, Sha256, utc_now


class Evaluation(Base):
    __tablename__ = "evaluations"
    __table_args__ = (UniqueConstraint("model_version_id", "snapshot_id", "protocol_sha256"),)
    id: Mapped[RowId]
    model_version_id: Mapped[int] = mapped_column(ForeignKey("model_versions.id"))
    snapshot_id: Mapped[int] = mapped_column(ForeignKey("snapshots.id"))
    protocol_sha256: Mapped[Sha256]
    # {"n_clicks": [1, 3], "noc_iou": 0.85, "cap": 20, "min_area_px": 64, "seed": 0}
    protocol: Mapped[dict[str, Any]]
    # {"miou": {"1": ..., "3": ...}, "noc": ..., "n_masks": ..., "reached": share that met the target}
    figures: Mapped[dict[str, Any]]
    created_at: Mapped[datetime] = mapped_column(default=utc_now)
