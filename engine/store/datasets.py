"""A dataset: a set of images annotated together, its settings, and the counters its export ids come from."""

from datetime import datetime
from typing import Any

from sqlalchemy import CheckConstraint, ForeignKey, select, update
from sqlalchemy.orm import Mapped, Session, mapped_column

from engine.errors import NotFound
from engine.store.base import Base, RowId, utc_now


class Dataset(Base):
    """Name and settings may change; everything that hangs below is append-only."""

    __tablename__ = "datasets"
    id: Mapped[RowId]
    name: Mapped[str] = mapped_column(unique=True)
    created_at: Mapped[datetime] = mapped_column(default=utc_now)
    # None, or the stage whose images are handed out: assisted_manual, semi_automatic, fully_automatic.
    open_stage: Mapped[str | None]
    # The name of the stage's settings and what a lead overrides: guideline text, limits.
    settings: Mapped[dict[str, Any]] = mapped_column(default=dict)


class ExportId(Base):
    """The next free COCO id of a dataset, per kind; ids once given are never given again."""

    __tablename__ = "export_ids"
    __table_args__ = (CheckConstraint("kind in ('image', 'category', 'mask')", name="kind"),)
    dataset_id: Mapped[int] = mapped_column(ForeignKey("datasets.id"), primary_key=True)
    kind: Mapped[str] = mapped_column(primary_key=True)
    next_id: Mapped[int] = mapped_column(default=1)


def dataset_named(session: Session, name: str) -> Dataset:
    """The dataset of that name; NotFound names the ones there are."""
    found = session.scalar(select(Dataset).where(Dataset.name == name))
    if found is None:
        names = ", ".join(session.scalars(select(Dataset.name).order_by(Dataset.name).limit(10)))
        there = f"there are: {names}" if names else "there is none yet"
        make = f"`maskloop images import DIR --dataset {name}` makes it"
        raise NotFound(f"no dataset named {name!r} ({there}); {make}")
    return found


def add_dataset(session: Session, name: str, settings: dict[str, Any] | None = None) -> Dataset:
    """A new dataset with its three id counters at 1."""
    dataset = Dataset(name=name, settings=settings or {})
    session.add(dataset)
    session.flush()
    session.add_all(ExportId(dataset_id=dataset.id, kind=kind) for kind in ("image", "category", "mask"))
    session.flush()
    return dataset


def take_export_ids(session: Session, dataset_id: int, kind: str, n: int) -> range:
    """Reserves `n` ids; the row stays locked until the transaction ends, so no two writers share one."""
    row = (ExportId.dataset_id == dataset_id) & (ExportId.kind == kind)
    moved = update(ExportId).where(row).values(next_id=ExportId.next_id + n)
    after = session.scalar(moved.returning(ExportId.next_id))
    if after is None:
        raise NotFound(f"dataset {dataset_id} has no {kind} counter")
    return range(after - n, after)


def raise_export_id(session: Session, dataset_id: int, kind: str, above: int) -> None:
    """Moves the counter past an id that came in with a file."""
    row = (ExportId.dataset_id == dataset_id) & (ExportId.kind == kind) & (ExportId.next_id <= above)
    session.execute(update(ExportId).where(row).values(next_id=above + 1))
