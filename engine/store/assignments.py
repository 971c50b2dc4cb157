"""An assignment: one image lent to one person in one stage under a lease, pinned to a model version."""

from datetime import datetime

from sqlalchemy import CheckConstraint, ForeignKey, Index, text
from sqlalchemy.orm import Mapped, mapped_column

from engine.store.base import Base, RowId, utc_now


class Assignment(Base):
    """Open until submitted, skipped, released or expired; never two open ones on one image and stage."""

    __tablename__ = "assignments"
    __table_args__ = (
        CheckConstraint("state in ('open', 'submitted', 'skipped', 'released', 'expired')", name="state"),
        Index(
            "uq_assignments_open",
            "image_id",
            "stage",
            unique=True,
            sqlite_where=text("state = 'open'"),
            postgresql_where=text("state = 'open'"),
        ),
        Index("ix_assignments_user_id_state", "user_id", "state"),
    )
    id: Mapped[RowId]
    image_id: Mapped[int] = mapped_column(ForeignKey("images.id"))
    stage: Mapped[str]
    user_id: Mapped[int] = mapped_column(ForeignKey("users.id"))
    model_version_id: Mapped[int] = mapped_column(ForeignKey("model_versions.id"))
    state: Mapped[str] = mapped_column(default="open")
    lease_until: Mapped[datetime]
    opened_at: Mapped[datetime] = mapped_column(default=utc_now)
    ended_at: Mapped[datetime | None]
