"""A category: an optional name on a mask (the paper's masks have none). Retired, never deleted."""

from datetime import datetime
from typing import Any

from sqlalchemy import ForeignKey, UniqueConstraint
from sqlalchemy.orm import Mapped, mapped_column

from engine.store.base import Base, RowId, utc_now


class Category(Base):
    __tablename__ = "categories"
    __table_args__ = (UniqueConstraint("dataset_id", "name"), UniqueConstraint("dataset_id", "export_id"))
    id: Mapped[RowId]
    dataset_id: Mapped[int] = mapped_column(ForeignKey("datasets.id"))
    name: Mapped[str]
    supercategory: Mapped[str | None]
    export_id: Mapped[int]
    imported_id: Mapped[int | None]
    # What an imported file said beyond id, name and supercategory; given back on export.
    extra: Mapped[dict[str, Any] | None]
    created_at: Mapped[datetime] = mapped_column(default=utc_now)
    retired_at: Mapped[datetime | None]
