"""A review: one person's word on one proposal, kept as it happened."""

from datetime import datetime

from sqlalchemy import CheckConstraint, ForeignKey, Index, String, UniqueConstraint
from sqlalchemy.orm import Mapped, mapped_column

from engine.store.base import Base, RowId, Sha256, utc_now


class Review(Base):
    """`keep` made a mask of a proposal that was let stand; `reject` refused one, `unreject` took that back.

    A corrected proposal has an annotation instead: its mask names the proposal. Of several reviews the last
    one counts; a rejection that stands is a negative for the next detector.
    """

    __tablename__ = "reviews"
    __table_args__ = (
        UniqueConstraint("client_id", "proposal_id"),
        CheckConstraint("act in ('keep', 'reject', 'unreject')", name="act"),
        Index("ix_reviews_proposal_id_id", "proposal_id", "id"),
        Index("ix_reviews_image_id", "image_id"),
    )
    id: Mapped[RowId]
    # One request of the page may review many proposals ("reject all below"): one client_id, a row each.
    client_id: Mapped[str] = mapped_column(String(64))
    body_sha256: Mapped[Sha256]
    act: Mapped[str]
    proposal_id: Mapped[int] = mapped_column(ForeignKey("proposals.id"))
    image_id: Mapped[int] = mapped_column(ForeignKey("images.id"))
    author_id: Mapped[int] = mapped_column(ForeignKey("users.id"), index=True)
    assignment_id: Mapped[int] = mapped_column(ForeignKey("assignments.id"))
    created_at: Mapped[datetime] = mapped_column(default=utc_now)
