"""A user, their sign-in sessions (kept on the server) and one-time sign-in links (kept as digests)."""

from datetime import datetime

from sqlalchemy import CheckConstraint, ForeignKey
from sqlalchemy.orm import Mapped, mapped_column

from engine.store.base import Base, RowId, Sha256, utc_now

ROLES = ("annotator", "reviewer", "researcher", "admin")


class User(Base):
    __tablename__ = "users"
    __table_args__ = (
        CheckConstraint("role in ('annotator', 'reviewer', 'researcher', 'admin', 'simulated')", name="role"),
    )
    id: Mapped[RowId]
    name: Mapped[str] = mapped_column(unique=True)
    role: Mapped[str]
    # argon2id; None for a simulated annotator and for one who signs in by link only.
    password_hash: Mapped[str | None]
    active: Mapped[bool] = mapped_column(default=True)
    created_at: Mapped[datetime] = mapped_column(default=utc_now)


class SignInSession(Base):
    """The cookie holds a random id, the table its digest: a copy of the database signs nobody in."""

    __tablename__ = "sign_in_sessions"
    id_sha256: Mapped[Sha256] = mapped_column(primary_key=True)
    user_id: Mapped[int] = mapped_column(ForeignKey("users.id"), index=True)
    csrf_token: Mapped[str]
    created_at: Mapped[datetime] = mapped_column(default=utc_now)
    last_seen_at: Mapped[datetime] = mapped_column(default=utc_now)
    expires_at: Mapped[datetime]


class SignInLink(Base):
    __tablename__ = "sign_in_links"
    token_sha256: Mapped[Sha256] = mapped_column(primary_key=True)
    user_id: Mapped[int] = mapped_column(ForeignKey("users.id"))
    expires_at: Mapped[datetime]
    used_at: Mapped[datetime | None]
