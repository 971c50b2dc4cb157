"""A snapshot: a frozen, content-addressed list of masks, to train on, to evaluate on or to export."""

from datetime import datetime
from typing import Any

from sqlalchemy import CheckConstraint, ForeignKey, Index, UniqueConstraint
from sqlalchemy.orm import Mapped, mapped_column

from engine.store.base import Base, RowId, Sha256, utc_now


class Snapshot(Base):
    """`digest` covers the masks' content, sorted, and their images' pixels: equal sets have equal digests."""

    __tablename__ = "snapshots"
    __table_args__ = (
        UniqueConstraint("dataset_id", "name"),
        CheckConstraint("kind in ('training', 'evaluation', 'release')", name="kind"),
    )
    id: Mapped[RowId]
    dataset_id: Mapped[int] = mapped_column(ForeignKey("datasets.id"))
    name: Mapped[str]
    kind: Mapped[str]
    digest_sha256: Mapped[Sha256] = mapped_column(index=True)
    # What was asked for, so that the list can be explained: {"split": "train", "source": ["human"], ...}
    query: Mapped[dict[str, Any]]
    n_images: Mapped[int]
    n_masks: Mapped[int]
    created_at: Mapped[datetime] = mapped_column(default=utc_now)


class SnapshotImage(Base):
    """The images a snapshot covers; an image without masks is in the dataset too."""

    __tablename__ = "snapshot_images"
    snapshot_id: Mapped[int] = mapped_column(ForeignKey("snapshots.id"), primary_key=True)
    image_id: Mapped[int] = mapped_column(ForeignKey("images.id"), primary_key=True)


class SnapshotMask(Base):
    """Membership; a trigger refuses a held-out image's mask in a training snapshot."""

    __tablename__ = "snapshot_masks"
    __table_args__ = (Index("ix_snapshot_masks_mask_id", "mask_id"),)
    snapshot_id: Mapped[int] = mapped_column(ForeignKey("snapshots.id"), primary_key=True)
    mask_id: Mapped[int] = mapped_column(ForeignKey("masks.id"), primary_key=True)
