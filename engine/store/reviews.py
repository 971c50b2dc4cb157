"""A review: one person's word on one proposal, kept as it happened."""

from datetime import datetime

from sqlalchemy import CheckConstraint, ColumnElement, ForeignKey, Index, String, UniqueConstraint, exists
from sqlalchemy.orm import Mapped, Session, aliased, mapped_column

from engine.store.base import Base, RowId, Sha256, utc_now
from engine.store.generations import is_made_a_mask, offered
from engine.store.masks import Mask
from engine.store.proposals import Proposal


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


def last_review_is(act: str) -> ColumnElement[bool]:
    """Whether the newest word on the statement's `Proposal` is that act."""
    later = aliased(Review)
    newer = exists().where(later.proposal_id == Review.proposal_id, later.id > Review.id)
    return exists().where(Review.proposal_id == Proposal.id, Review.act == act, ~newer)


def states_of(session: Session, image_id: int, model_version_id: int, stage: str) -> dict[int, str]:
    """Proposal id -> open, rejected, corrected or kept, for all that are offered there, the best first."""
    columns = (Proposal.id, last_review_is("reject"), is_made_a_mask("human"), is_made_a_mask("model"))
    rows = session.execute(offered(image_id, model_version_id, stage).with_only_columns(*columns))
    return {
        proposal_id: "corrected" if corrected else "rejected" if rejected else "kept" if kept else "open"
        for proposal_id, rejected, corrected, kept in rows
    }


def is_reviewed() -> ColumnElement[bool]:
    """Whether a person made or corrected the statement's `Mask`, or kept it as it was proposed to them."""
    kept = exists().where(Review.proposal_id == Mask.proposal_id, Review.act == "keep")
    return Mask.touched_by_person | kept
