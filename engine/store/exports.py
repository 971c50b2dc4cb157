"""An export: a snapshot written out in one format, with the digest of its manifest."""

from datetime import datetime
from typing import Any

from sqlalchemy import ForeignKey
from sqlalchemy.orm import Mapped, mapped_column

from engine.store.base import Base, RowId, Sha256, utc_now


class Export(Base):
    __tablename__ = "exports"
    id: Mapped[RowId]
    snapshot_id: Mapped[int] = mapped_column(ForeignKey("snapshots.id"), index=True)
    format: Mapped[str]
    options: Mapped[dict[str, Any]]
    manifest_sha256: Mapped[Sha256]
    n_masks: Mapped[int]
    created_at: Mapped[datetime] = mapped_column(default=utc_now)
