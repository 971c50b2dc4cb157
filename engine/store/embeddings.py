"""An embedding: one image through one model version's encoder, as half-precision safetensors."""

from datetime import datetime
from typing import Any

from sqlalchemy import ForeignKey, UniqueConstraint
from sqlalchemy.orm import Mapped, mapped_column

from engine.store.base import Base, RowId, Sha256, utc_now


class Embedding(Base):
    __tablename__ = "embeddings"
    __table_args__ = (UniqueConstraint("image_id", "model_version_id"),)
    id: Mapped[RowId]
    image_id: Mapped[int] = mapped_column(ForeignKey("images.id"))
    model_version_id: Mapped[int] = mapped_column(ForeignKey("model_versions.id"), index=True)
    blob_sha256: Mapped[Sha256]
    dtype: Mapped[str]
    shape: Mapped[list[Any]]
    n_bytes: Mapped[int]
    created_at: Mapped[datetime] = mapped_column(default=utc_now)
