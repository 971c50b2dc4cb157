"""An image: its pixels by digest, where it came from, and the split its near-duplicate group fixes once."""

from datetime import datetime
from typing import Any

from sqlalchemy import CheckConstraint, Float, ForeignKey, Index, UniqueConstraint
from sqlalchemy.orm import Mapped, mapped_column

from engine.store.base import Base, RowId, Sha256, utc_now


class Image(Base):
    """One picture as every later step sees it: upright, 8-bit RGB, free of metadata. Never edited."""

    __tablename__ = "images"
    __table_args__ = (
        UniqueConstraint("dataset_id", "original_sha256"),
        UniqueConstraint("dataset_id", "export_id"),
        CheckConstraint("split in ('train', 'val')", name="split"),
        CheckConstraint("width > 0 and height > 0", name="size"),
        Index("ix_images_dataset_id_pixels_sha256", "dataset_id", "pixels_sha256"),
    )
    id: Mapped[RowId]
    dataset_id: Mapped[int] = mapped_column(ForeignKey("datasets.id"))
    export_id: Mapped[int]
    imported_id: Mapped[int | None]
    original_name: Mapped[str]
    # Digest of the file that was given, and the blob of the stored pixels made from it.
    original_sha256: Mapped[Sha256]
    pixels_sha256: Mapped[Sha256]
    media_type: Mapped[str]
    width: Mapped[int]
    height: Mapped[int]
    # EXIF orientation (1..8) that was applied, and every other change of the pixels, in words.
    orientation: Mapped[int] = mapped_column(default=1)
    changes: Mapped[list[Any]] = mapped_column(default=list)
    source: Mapped[str | None]
    licence: Mapped[str | None]
    attribution: Mapped[str | None]
    # What an imported COCO image block said beyond its known keys.
    extra: Mapped[dict[str, Any] | None]
    # Images that look alike share a group, a group shares a split, and a held-out one never trains.
    # Standard deviation of the luminance, 0..1; what stands out can be handed out first.
    contrast: Mapped[float | None] = mapped_column(Float)
    near_duplicate_group: Mapped[str]
    split: Mapped[str]
    created_at: Mapped[datetime] = mapped_column(default=utc_now)


class ImageProgress(Base):
    """How far one image is in one stage; the only thing about an image that changes."""

    __tablename__ = "image_progress"
    __table_args__ = (CheckConstraint("state in ('done', 'skipped')", name="state"),)
    image_id: Mapped[int] = mapped_column(ForeignKey("images.id"), primary_key=True)
    stage: Mapped[str] = mapped_column(primary_key=True)
    state: Mapped[str]
    reason: Mapped[str | None]
    updated_at: Mapped[datetime] = mapped_column(default=utc_now)
