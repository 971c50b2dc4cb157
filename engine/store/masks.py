"""A mask: an accepted region, in compressed COCO RLE, with its parents; and the view of current masks."""

from datetime import datetime
from typing import Any

from sqlalchemy import BigInteger, Boolean, CheckConstraint, Column, Float, ForeignKey, Index, MetaData, Table
from sqlalchemy.orm import Mapped, mapped_column

from engine.store.base import Base, RowId, utc_now


class Mask(Base):
    """Never edited: a correction is a new row that supersedes this one and keeps its export id."""

    __tablename__ = "masks"
    __table_args__ = (
        CheckConstraint("source in ('human', 'model', 'imported')", name="source"),
        CheckConstraint("area >= 0", name="area"),
        Index("ix_masks_image_id_id", "image_id", "id"),
        Index("ix_masks_dataset_id_export_id", "dataset_id", "export_id"),
        Index("uq_masks_annotation_id", "annotation_id", unique=True),
        Index("uq_masks_supersedes_id", "supersedes_id", unique=True),
    )
    id: Mapped[RowId]
    dataset_id: Mapped[int] = mapped_column(ForeignKey("datasets.id"))
    image_id: Mapped[int] = mapped_column(ForeignKey("images.id"))
    annotation_id: Mapped[int | None] = mapped_column(ForeignKey("annotations.id"))
    proposal_id: Mapped[int | None] = mapped_column(ForeignKey("proposals.id"))
    supersedes_id: Mapped[int | None] = mapped_column(ForeignKey("masks.id"))
    export_id: Mapped[int]
    imported_id: Mapped[int | None]
    # The size is the image's, always: [height, width].
    height: Mapped[int]
    width: Mapped[int]
    counts: Mapped[str]
    area: Mapped[int]
    # XYWH with width = max - min + 1 (pycocotools' convention); SA-1B's one-short box is made on export.
    bbox_xywh: Mapped[list[Any]]
    # assisted_manual, semi_automatic, fully_automatic; None for an imported mask.
    stage: Mapped[str | None]
    source: Mapped[str]
    touched_by_person: Mapped[bool] = mapped_column(Boolean)
    # Kept, but not current: someone else's image by the time it arrived.
    second_opinion: Mapped[bool] = mapped_column(Boolean, default=False)
    predicted_iou: Mapped[float | None] = mapped_column(Float)
    stability_score: Mapped[float | None] = mapped_column(Float)
    crop_box_xywh: Mapped[list[Any] | None]
    prompts: Mapped[list[Any]] = mapped_column(default=list)
    chosen: Mapped[list[Any]] = mapped_column(default=list)
    model_version_id: Mapped[int | None] = mapped_column(ForeignKey("model_versions.id"), index=True)
    author_id: Mapped[int | None] = mapped_column(ForeignKey("users.id"), index=True)
    active_seconds: Mapped[float | None] = mapped_column(Float)
    category_id: Mapped[int | None] = mapped_column(ForeignKey("categories.id"))
    iscrowd: Mapped[int] = mapped_column(default=0)
    attributes: Mapped[dict[str, Any] | None]
    # What an imported COCO annotation said beyond its known keys; given back on export.
    extra: Mapped[dict[str, Any] | None]
    created_at: Mapped[datetime] = mapped_column(default=utc_now)


# Not current: second opinions, what was corrected or deleted, and what the model alone accepted before it was
# run again over the image.
CURRENT_MASKS_SQL = """
CREATE VIEW current_masks AS
SELECT m.id AS mask_id, m.dataset_id AS dataset_id, m.image_id AS image_id
FROM masks m
WHERE NOT m.second_opinion
  AND NOT EXISTS (SELECT 1 FROM masks n WHERE n.supersedes_id = m.id AND NOT n.second_opinion)
  AND NOT EXISTS (SELECT 1 FROM annotations a WHERE a.act = 'delete' AND a.target_mask_id = m.id)
  AND NOT EXISTS (
    SELECT 1 FROM proposals p
    JOIN generations mine ON mine.image_id = p.image_id AND mine.model_version_id = p.model_version_id
      AND mine.stage = p.stage AND mine.config_sha256 = p.config_sha256
    JOIN generations newer ON newer.image_id = p.image_id AND newer.stage = p.stage AND newer.id > mine.id
    WHERE p.id = m.proposal_id AND p.stage = 'fully_automatic' AND NOT m.touched_by_person
  )
"""

# A view, so kept out of Base.metadata: create_all and Alembic's comparison must not take it for a table.
current_masks = Table(
    "current_masks",
    MetaData(),
    Column("mask_id", BigInteger),
    Column("dataset_id", BigInteger),
    Column("image_id", BigInteger),
)
