"""A proposal: a mask the model offers and nobody has accepted (stages 2 and 3 of the paper)."""

from datetime import datetime
from typing import Any

from sqlalchemy import Float, ForeignKey, Index
from sqlalchemy.orm import Mapped, mapped_column

from engine.store.base import Base, RowId, Sha256, utc_now


class Proposal(Base):
    __tablename__ = "proposals"
    __table_args__ = (Index("ix_proposals_image_id_model_version_id", "image_id", "model_version_id"),)
    id: Mapped[RowId]
    image_id: Mapped[int] = mapped_column(ForeignKey("images.id"))
    model_version_id: Mapped[int] = mapped_column(ForeignKey("model_versions.id"))
    stage: Mapped[str]
    # Digest of the generator's settings: the same image, weights and settings propose the same masks once.
    config_sha256: Mapped[Sha256]
    counts: Mapped[str]
    area: Mapped[int]
    bbox_xywh: Mapped[list[Any]]
    predicted_iou: Mapped[float] = mapped_column(Float)
    stability_score: Mapped[float] = mapped_column(Float)
    crop_box_xywh: Mapped[list[Any]]
    point_coords: Mapped[list[Any]]
    # The detector's score of the box (stage 2).
    score: Mapped[float | None] = mapped_column(Float)
    # What gives this mask again on the same weights, as in an annotation: a box, or the grid's point.
    prompts: Mapped[list[Any]] = mapped_column(default=list, server_default="[]")
    chosen: Mapped[list[Any]] = mapped_column(default=list, server_default="[]")
    created_at: Mapped[datetime] = mapped_column(default=utc_now)
