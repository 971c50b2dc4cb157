"""Mask -> Snapshot: current masks frozen into a content-addressed list, to train on, judge by or export."""

import hashlib
from collections.abc import Iterator, Mapping, Sequence
from itertools import islice
from typing import Any, NamedTuple

from sqlalchemy import Row, Select, func, insert, select
from sqlalchemy.orm import Session

from engine.errors import BadInput, Conflict, NotFound, Refused
from engine.store.categories import Category
from engine.store.datasets import Dataset
from engine.store.events import record_event
from engine.store.images import Image
from engine.store.masks import Mask, current_masks
from engine.store.reviews import is_reviewed
from engine.store.runner import Work, Write
from engine.store.snapshots import Snapshot, SnapshotImage, SnapshotMask

_CHUNK = 5000
# How the loop names its own lists, and finds them again.
ROUND, DETECTOR = "round-", "detector-"
# What candidates are judged by: no mask that the model itself drew, though a person let it stand.
BY_PEOPLE = {"touched_by_person": True, "iscrowd": 0}
# What models learn from. A prefilled mask that a person looked at and kept belongs to it (the paper trains on
# those of stage 2 too); one that nobody has seen does not.
REVIEWED = {"reviewed": True, "iscrowd": 0}
_FILTERS = frozenset({"reviewed", "split", "touched_by_person", "source", "stage", "iscrowd"})


class _ImageRow(NamedTuple):
    id: int
    export_id: int
    pixels_sha256: str


def take(
    session: Session,
    dataset_id: int,
    kind: str,
    *,
    name: str | None = None,
    query: Mapping[str, Any] | None = None,
) -> Snapshot:
    """Freezes the current masks that match `query` (split, touched_by_person, reviewed, source, stage ...).

    Without a name, an unchanged set gives the snapshot that was taken last. Held-out images never enter a
    training snapshot: the query is narrowed here and a trigger guards the table. Raises Refused for an
    unknown filter, BadInput for a name of the loop's own rounds, Conflict for a name that is taken.
    """
    if name is not None and name.startswith((ROUND, DETECTOR)):
        raise BadInput(f"names that begin with {ROUND} or {DETECTOR} belong to the loop: choose another")
    return _take(session, dataset_id, kind, name, query or {})


def _take(
    session: Session, dataset_id: int, kind: str, name: str | None, query: Mapping[str, Any]
) -> Snapshot:
    # The row lock on the dataset keeps two snapshots of one dataset from choosing the same name at once.
    session.execute(select(Dataset.id).where(Dataset.id == dataset_id).with_for_update())
    asked = dict(query)
    if unknown := set(asked) - _FILTERS:
        raise Refused(f"a snapshot cannot be filtered by {', '.join(sorted(unknown))}")
    if kind == "training":
        asked["split"] = "train"
    rows = session.execute(_chosen(dataset_id, asked)).all()
    image_rows = _images(session, dataset_id, kind, asked, rows)
    digest = _digest(rows, image_rows)
    latest = _latest(session, dataset_id, kind)
    if name is None and latest is not None and (latest.digest_sha256, latest.query) == (digest, asked):
        return latest
    snapshot = Snapshot(
        dataset_id=dataset_id,
        name=name or _free_name(session, dataset_id, kind),
        kind=kind,
        digest_sha256=digest,
        query=asked,
        n_images=len(image_rows),
        n_masks=len(rows),
    )
    _insert(session, snapshot, [row.id for row in rows], [row.id for row in image_rows])
    return snapshot


def freeze_round(work: Work, *, dataset_id: int, number: int) -> Write:
    """The two lists of one round: what the candidate learns from, and the held-out masks it is judged by.

    Masks that nobody has seen are learned from only where `train.automatic_masks` says so, and judge nothing.
    """
    always = work.workspace.settings.train.automatic_masks == "always"

    def write(session: Session) -> dict[str, Any]:
        held_out = BY_PEOPLE | {"split": "val"}
        gate = _take(session, dataset_id, "evaluation", f"{ROUND}{number}-held-out", held_out)
        learned = {"iscrowd": 0} if always else REVIEWED
        training = _take(session, dataset_id, "training", f"{ROUND}{number}", learned)
        if training.n_masks == 0:
            raise Refused("there is no mask to train on yet: annotate some images first")
        return {"training": training.id, "held_out": gate.id, "n_masks": training.n_masks}

    return write


def freeze_for_detector(work: Work, *, dataset_id: int) -> Write:
    """The masks by people that the first detector learns from, where no round has made a list yet."""

    def write(session: Session) -> dict[str, Any]:
        here = (Snapshot.dataset_id == dataset_id) & Snapshot.name.startswith(DETECTOR, autoescape=True)
        number = (session.scalar(select(func.count()).select_from(Snapshot).where(here)) or 0) + 1
        training = _take(session, dataset_id, "training", f"{DETECTOR}{number}", REVIEWED)
        if training.n_masks == 0:
            raise Refused("there is no mask to learn from yet: annotate some training images first")
        return {"training": training.id, "n_masks": training.n_masks}

    return write


def snapshot_named(session: Session, dataset_id: int, name: str) -> Snapshot:
    """The snapshot of that name; NotFound names the newest ones."""
    here = Snapshot.dataset_id == dataset_id
    found = session.scalar(select(Snapshot).where(here, Snapshot.name == name))
    if found is None:
        names = session.scalars(select(Snapshot.name).where(here).order_by(Snapshot.id.desc()).limit(10))
        raise NotFound(f"no snapshot named {name!r}; the newest are: {', '.join(names) or 'none'}")
    return found


def snapshots_of(session: Session, dataset_id: int) -> list[Snapshot]:
    """Every snapshot of the dataset, oldest first."""
    return list(
        session.scalars(select(Snapshot).where(Snapshot.dataset_id == dataset_id).order_by(Snapshot.id))
    )


def difference(session: Session, older: Snapshot, newer: Snapshot) -> dict[str, list[int]]:
    """Export ids added, dropped and changed (same object, other pixels) between two snapshots."""
    before, after = _contents(session, older.id), _contents(session, newer.id)
    return {
        "added": sorted(after.keys() - before.keys()),
        "dropped": sorted(before.keys() - after.keys()),
        "changed": sorted(id for id in before.keys() & after.keys() if before[id] != after[id]),
    }


def _contents(session: Session, snapshot_id: int) -> dict[int, tuple[str, int | None]]:
    rows = select(Mask.export_id, Mask.counts, Mask.category_id).join(
        SnapshotMask, SnapshotMask.mask_id == Mask.id
    )
    found = session.execute(rows.where(SnapshotMask.snapshot_id == snapshot_id))
    return {export_id: (counts, category) for export_id, counts, category in found}


def _matching(dataset_id: int, asked: Mapping[str, Any]) -> list[Any]:
    conditions = [Image.dataset_id == dataset_id]
    if "split" in asked:
        conditions.append(Image.split == asked["split"])
    for column in ("touched_by_person", "source", "stage", "iscrowd"):
        if column in asked:
            conditions.append(getattr(Mask, column) == asked[column])
    if "reviewed" in asked:
        conditions.append(is_reviewed() == asked["reviewed"])
    return conditions


def _chosen(dataset_id: int, asked: Mapping[str, Any]) -> Select[*tuple[Any, ...]]:
    """The masks in the order that exports use: by export ids, which no database invents."""
    columns = (
        Mask.id,
        Mask.export_id,
        Mask.counts,
        Mask.iscrowd,
        Mask.image_id,
        Image.export_id.label("image_export_id"),
        Image.pixels_sha256,
        Category.name.label("category"),
    )
    joined = (
        select(*columns)
        .join(current_masks, current_masks.c.mask_id == Mask.id)
        .join(Image, Image.id == Mask.image_id)
        .outerjoin(Category, Category.id == Mask.category_id)
    )
    return joined.where(*_matching(dataset_id, asked)).order_by(Image.export_id, Mask.export_id, Mask.id)


def _images(
    session: Session,
    dataset_id: int,
    kind: str,
    asked: Mapping[str, Any],
    rows: Sequence[Row[*tuple[Any, ...]]],
) -> list[_ImageRow]:
    """A release covers every image, with masks or without; the other kinds those of the masks read."""
    if kind != "release":
        found = (_ImageRow(row.image_id, row.image_export_id, row.pixels_sha256) for row in rows)
        return sorted(set(found), key=lambda image: image.export_id)
    split = [Image.split == asked["split"]] if "split" in asked else []
    columns = select(Image.id, Image.export_id, Image.pixels_sha256)
    chosen = columns.where(Image.dataset_id == dataset_id, *split).order_by(Image.export_id)
    return [_ImageRow(*row) for row in session.execute(chosen)]


def _digest(rows: Sequence[Row[*tuple[Any, ...]]], image_rows: Sequence[_ImageRow]) -> str:
    """SHA-256 over images and masks by content: equal on SQLite and Postgres, whatever the row ids."""
    digest = hashlib.sha256()
    for image in image_rows:
        digest.update(f"image {image.export_id} {image.pixels_sha256}\n".encode())
    for row in rows:
        fields = (row.image_export_id, row.export_id, row.counts, row.iscrowd, row.category or "")
        digest.update(("mask " + " ".join(map(str, fields)) + "\n").encode())
    return digest.hexdigest()


def _latest(session: Session, dataset_id: int, kind: str) -> Snapshot | None:
    same = (Snapshot.dataset_id == dataset_id) & (Snapshot.kind == kind)
    return session.scalar(select(Snapshot).where(same).order_by(Snapshot.id.desc()).limit(1))


def _free_name(session: Session, dataset_id: int, kind: str) -> str:
    here = Snapshot.dataset_id == dataset_id
    names = set(session.scalars(select(Snapshot.name).where(here)))
    number = session.scalar(select(func.count()).select_from(Snapshot).where(here)) or 0
    while f"{kind}-{number + 1}" in names:
        number += 1
    return f"{kind}-{number + 1}"


def _insert(session: Session, snapshot: Snapshot, mask_ids: list[int], image_ids: list[int]) -> None:
    here = Snapshot.dataset_id == snapshot.dataset_id
    if session.scalar(select(Snapshot.id).where(here, Snapshot.name == snapshot.name)) is not None:
        raise Conflict(f"there is a snapshot named {snapshot.name!r} already; choose another name")
    session.add(snapshot)
    session.flush()
    for chunk in _chunks(image_ids):
        rows = [{"snapshot_id": snapshot.id, "image_id": image_id} for image_id in chunk]
        session.execute(insert(SnapshotImage), rows)
    for chunk in _chunks(mask_ids):
        rows = [{"snapshot_id": snapshot.id, "mask_id": mask_id} for mask_id in chunk]
        session.execute(insert(SnapshotMask), rows)
    record_event(
        session,
        "snapshot.taken",
        dataset_id=snapshot.dataset_id,
        subject_id=snapshot.id,
        name=snapshot.name,
        digest_sha256=snapshot.digest_sha256,
    )


def _chunks(ids: list[int]) -> Iterator[list[int]]:
    rest = iter(ids)
    while chunk := list(islice(rest, _CHUNK)):
        yield chunk
