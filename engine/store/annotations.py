"""An annotation: one act of one person on one image, kept as it happened so that it can be replayed."""

from collections.abc import Sequence
from datetime import datetime
from typing import Any

from sqlalchemy import CheckConstraint, Float, ForeignKey, Index, String, select
from sqlalchemy.orm import Mapped, Session, mapped_column

from engine.store.base import Base, RowId, Sha256, utc_now


class Annotation(Base):
    """`accept` makes a mask, `delete` ends one, `restore` brings one back as a new row."""

    __tablename__ = "annotations"
    __table_args__ = (
        CheckConstraint("act in ('accept', 'delete', 'restore')", name="act"),
        CheckConstraint("act = 'accept' or target_mask_id is not null", name="target"),
        Index("ix_annotations_image_id_created_at", "image_id", "created_at"),
    )
    id: Mapped[RowId]
    # Made by the client, so that a repeated request is recognised; with the digest of its body.
    client_id: Mapped[str] = mapped_column(String(64), unique=True)
    body_sha256: Mapped[Sha256]
    act: Mapped[str]
    image_id: Mapped[int] = mapped_column(ForeignKey("images.id"))
    author_id: Mapped[int] = mapped_column(ForeignKey("users.id"), index=True)
    assignment_id: Mapped[int] = mapped_column(ForeignKey("assignments.id"))
    target_mask_id: Mapped[int | None] = mapped_column(ForeignKey("masks.id", use_alter=True), index=True)
    model_version_id: Mapped[int | None] = mapped_column(ForeignKey("model_versions.id"))
    embedding_sha256: Mapped[Sha256 | None]
    # Original pixels, x right and y down; see engine/modeling/prompts.py for the fold that replays them.
    prompts: Mapped[list[Any]] = mapped_column(default=list)
    chosen: Mapped[list[Any]] = mapped_column(default=list)
    # In their order, laid over what the prompts give; see engine/geometry/strokes.py.
    strokes: Mapped[list[Any]] = mapped_column(default=list)
    predicted_iou: Mapped[float | None] = mapped_column(Float)
    stability_score: Mapped[float | None] = mapped_column(Float)
    counts: Mapped[str | None]
    n_clicks: Mapped[int] = mapped_column(default=0)
    n_undos: Mapped[int] = mapped_column(default=0)
    active_ms: Mapped[int] = mapped_column(default=0)
    created_at: Mapped[datetime] = mapped_column(default=utc_now)


def strokes_of(session: Session, annotation_ids: Sequence[int | None]) -> dict[int | None, list[Any]]:
    """The strokes of these acts by id, without those that have none."""
    ids = sorted({one for one in annotation_ids if one is not None})
    found: dict[int | None, list[Any]] = {}
    # Some at a time: databases bound how many a statement takes.
    for start in range(0, len(ids), 500):
        here = Annotation.id.in_(ids[start : start + 500])
        for annotation_id, strokes in session.execute(select(Annotation.id, Annotation.strokes).where(here)):
            found |= {annotation_id: strokes} if strokes else {}
    return found
