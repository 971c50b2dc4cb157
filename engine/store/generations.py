"""A generation: one proposer run over one image, kept also when it found nothing."""

from datetime import datetime

from sqlalchemy import ForeignKey, Index, UniqueConstraint
from sqlalchemy.orm import Mapped, mapped_column

from engine.store.base import Base, RowId, Sha256, utc_now


class Generation(Base):
    """The same image, weights, stage and settings are run once. The newest of an image and stage counts."""

    __tablename__ = "generations"
    __table_args__ = (
        UniqueConstraint("image_id", "model_version_id", "stage", "config_sha256"),
        Index("ix_generations_image_id_stage_id", "image_id", "stage", "id"),
    )
    id: Mapped[RowId]
    dataset_id: Mapped[int] = mapped_column(ForeignKey("datasets.id"))
    image_id: Mapped[int] = mapped_column(ForeignKey("images.id"))
    model_version_id: Mapped[int] = mapped_column(ForeignKey("model_versions.id"))
    # The boxes' proposer in stage 2; a grid of points needs none.
    detector_version_id: Mapped[int | None] = mapped_column(ForeignKey("detector_versions.id"))
    stage: Mapped[str]
    # Digest of the proposer's settings, the detector's weights among them.
    config_sha256: Mapped[Sha256]
    n_proposals: Mapped[int]
    # Masks accepted by the model itself (stage 3); 0 where a person decides.
    n_masks: Mapped[int]
    created_at: Mapped[datetime] = mapped_column(default=utc_now)
