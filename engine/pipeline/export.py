"""Snapshot -> Export: a COCO RLE dataset on disk, streamed, with a manifest of digests."""

import secrets
import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from sqlalchemy import select
from sqlalchemy.orm import Session

from engine.errors import BadInput, NotFound
from engine.formats.coco import CocoAnnotation, CocoCategory, CocoImage
from engine.formats.coco_writer import CocoWriter
from engine.formats.json_fields import file_name_of
from engine.formats.manifest import file_sha256, write_manifest
from engine.geometry.rle import Rle
from engine.store.base import utc_now
from engine.store.categories import Category
from engine.store.datasets import dataset_named, take_export_ids
from engine.store.events import record_event
from engine.store.exports import Export
from engine.store.images import Image
from engine.store.masks import Mask
from engine.store.model_versions import ModelVersion
from engine.store.session import Workspace
from engine.store.snapshots import Snapshot, SnapshotImage, SnapshotMask
from engine.store.users import User

FORMATS = ("coco",)
_ANNOTATIONS = "annotations.json"
_FETCHED_AT_ONCE = 1000
# The category of masks that have none, as in the paper: COCO's readers expect one on every annotation.
_CLASS_FREE = "object"


@dataclass(frozen=True)
class ExportReport:
    """Where the export lies and what it holds; `digest_sha256` is the snapshot's."""

    folder: Path
    snapshot: str
    digest_sha256: str
    n_images: int
    n_masks: int


def export(
    workspace: Workspace,
    dataset: str,
    snapshot_id: int,
    folder: Path,
    *,
    format: str = "coco",
    include_images: bool = True,
) -> ExportReport:
    """Writes the snapshot to `folder`, which must be new or empty; it appears whole or not at all.

    The same snapshot gives the same bytes every time. Raises BadInput for a format that does not exist yet
    or a folder that holds something.
    """
    if format not in FORMATS:
        raise BadInput(f"there is no format {format!r} yet; the formats are: {', '.join(FORMATS)}")
    folder = folder.resolve()
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise BadInput(f"{folder} exists and is not empty: name a new folder")
    with workspace.write() as session:
        dataset_id = dataset_named(session, dataset).id
        snapshot = _snapshot(session, dataset_id, snapshot_id)
        class_free = _class_free_category(session, dataset_id, snapshot_id)
    draft = folder.with_name(f".{folder.name}.{secrets.token_hex(4)}.partial")
    draft.mkdir(parents=True)
    try:
        n_masks = _write_coco(workspace, dataset_id, snapshot, class_free, draft, include_images)
        manifest_sha256 = _finish(draft, snapshot, n_masks, include_images)
        if folder.exists():
            folder.rmdir()
        draft.rename(folder)
    finally:
        shutil.rmtree(draft, ignore_errors=True)
    with workspace.write() as session:
        _log(session, snapshot, format, include_images, manifest_sha256, n_masks)
    return ExportReport(folder, snapshot.name, snapshot.digest_sha256, snapshot.n_images, n_masks)


def _snapshot(session: Session, dataset_id: int, snapshot_id: int) -> Snapshot:
    found = session.get(Snapshot, snapshot_id)
    if found is None or found.dataset_id != dataset_id:
        raise NotFound(f"the dataset has no snapshot {snapshot_id}: `maskloop snapshot list` shows them")
    return found


def _class_free_category(session: Session, dataset_id: int, snapshot_id: int) -> Category | None:
    """The dataset's category for masks without one, if the snapshot holds such; made once, never offered."""
    members = select(Mask.id).join(SnapshotMask, SnapshotMask.mask_id == Mask.id)
    without = members.where(SnapshotMask.snapshot_id == snapshot_id, Mask.category_id.is_(None))
    if session.scalar(without.limit(1)) is None:
        return None
    here = (Category.dataset_id == dataset_id) & (Category.name == _CLASS_FREE)
    known = session.scalar(select(Category).where(here))
    if known is not None:
        return known
    export_id = take_export_ids(session, dataset_id, "category", 1)[0]
    # Retired from the start: it is COCO's need, and no choice of an annotator's.
    category = Category(dataset_id=dataset_id, name=_CLASS_FREE, export_id=export_id, retired_at=utc_now())
    session.add(category)
    session.flush()
    return category


def _write_coco(
    workspace: Workspace,
    dataset_id: int,
    snapshot: Snapshot,
    class_free: Category | None,
    draft: Path,
    include_images: bool,
) -> int:
    with workspace.read() as session:
        images = list(_snapshot_images(session, snapshot.id))
        categories = _categories(session, snapshot, class_free)
    names = _file_names(images)
    licences = _licences(images)
    writer = CocoWriter(
        draft / _ANNOTATIONS,
        info={"description": "Maskloop export", "snapshot_sha256": snapshot.digest_sha256},
        images=(_coco_image(image, names[image.id], licences) for image in images),
        categories=map(_coco_category, categories),
        licenses=[{"id": number, "name": name, "url": ""} for name, number in licences.items()],
    )
    category_ids = {category.id: category.export_id for category in categories}
    with workspace.read() as session, writer:
        for row in _snapshot_masks(session, snapshot.id):
            writer.write(_coco_annotation(row, category_ids, class_free))
    if include_images:
        for image in images:
            path = draft / "images" / names[image.id]
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(workspace.blobs.read(image.pixels_sha256))
    return writer.n_annotations


def _categories(session: Session, snapshot: Snapshot, class_free: Category | None) -> list[Category]:
    """Those there were when the snapshot was taken, used or not: one made later must not change its bytes."""
    members = select(Mask.category_id).join(SnapshotMask, SnapshotMask.mask_id == Mask.id)
    used = members.where(SnapshotMask.snapshot_id == snapshot.id)
    then = (Category.created_at <= snapshot.created_at) | Category.id.in_(used)
    if class_free is not None:
        then |= Category.id == class_free.id
    here = Category.dataset_id == snapshot.dataset_id
    return list(session.scalars(select(Category).where(here, then).order_by(Category.export_id)))


def _snapshot_images(session: Session, snapshot_id: int) -> Iterator[Image]:
    members = select(Image).join(SnapshotImage, SnapshotImage.image_id == Image.id)
    yield from session.scalars(
        members.where(SnapshotImage.snapshot_id == snapshot_id).order_by(Image.export_id)
    )


def _snapshot_masks(session: Session, snapshot_id: int) -> Iterator[Any]:
    """Rows of plain columns, a thousand at a time and never kept: the memory stays flat."""
    columns = select(
        *Mask.__table__.columns,
        Image.export_id.label("image_export_id"),
        User.name.label("author"),
        ModelVersion.name.label("model_version"),
    )
    joined = (
        columns.join(SnapshotMask, SnapshotMask.mask_id == Mask.id)
        .join(Image, Image.id == Mask.image_id)
        .outerjoin(User, User.id == Mask.author_id)
        .outerjoin(ModelVersion, ModelVersion.id == Mask.model_version_id)
    )
    chosen = joined.where(SnapshotMask.snapshot_id == snapshot_id)
    ordered = chosen.order_by(Image.export_id, Mask.export_id, Mask.id)
    yield from session.execute(ordered.execution_options(yield_per=_FETCHED_AT_ONCE))


def _file_names(images: list[Image]) -> dict[int, str]:
    """The name each image came with; with the stored format's ending where that differs, and unique."""
    taken: set[str] = set()
    names = {}
    for image in images:
        path = Path(_portable(image.original_name))
        wanted = {"image/png": (".png",), "image/jpeg": (".jpg", ".jpeg")}[image.media_type]
        name = path if path.suffix.lower() in wanted else path.with_name(path.name + wanted[0])
        # Compared without case, as some file systems do.
        while name.as_posix().lower() in taken:
            name = name.with_name(f"{name.stem}-{image.export_id}{name.suffix}")
        taken.add(name.as_posix().lower())
        names[image.id] = name.as_posix()
    return names


def _portable(name: str) -> str:
    """The name, or where COCO's readers refuse it, one with the offending characters replaced."""
    try:
        return file_name_of({"file_name": name}, "file_name", "image")
    except BadInput:
        return "".join(letter if letter.isprintable() and letter not in ":\\" else "_" for letter in name)


def _licences(images: list[Image]) -> dict[str, int]:
    """Licence texts numbered from 1 in the order of their names."""
    named = sorted({image.licence for image in images if image.licence})
    return {name: number for number, name in enumerate(named, start=1)}


def _coco_image(image: Image, file_name: str, licences: dict[str, int]) -> CocoImage:
    extra = dict(image.extra or {}) | {"split": image.split}
    if image.licence:
        extra["license"] = licences[image.licence]
    for key, value in (("source", image.source), ("attribution", image.attribution)):
        if value:
            extra[key] = value
    return CocoImage(image.export_id, file_name, image.width, image.height, extra)


def _coco_category(category: Category) -> CocoCategory:
    return CocoCategory(category.export_id, category.name, category.supercategory, dict(category.extra or {}))


def _coco_annotation(mask: Any, category_ids: dict[int, int], class_free: Category | None) -> CocoAnnotation:
    """One mask with its provenance beside COCO's own fields; what it was imported with comes back."""
    category_id = category_ids[mask.category_id] if mask.category_id is not None else None
    if category_id is None and class_free is not None:
        category_id = class_free.export_id
    known: dict[str, Any] = {
        "stage": mask.stage,
        "predicted_iou": mask.predicted_iou,
        "stability_score": mask.stability_score,
        "author": mask.author,
        "model_version": mask.model_version,
        "prompts": mask.prompts or None,
    }
    provenance = {key: value for key, value in known.items() if value is not None}
    return CocoAnnotation(
        id=mask.export_id,
        image_id=mask.image_export_id,
        category_id=category_id,
        rle=Rle(size=[mask.height, mask.width], counts=mask.counts),
        area=mask.area,
        bbox=tuple(mask.bbox_xywh),
        iscrowd=mask.iscrowd,
        attributes=dict(mask.attributes or {}),
        extra=provenance | {"source": mask.source} | dict(mask.extra or {}),
    )


def _finish(draft: Path, snapshot: Snapshot, n_masks: int, include_images: bool) -> str:
    files = sorted(path for path in draft.rglob("*") if path.is_file())
    query = {
        "snapshot": snapshot.name,
        "snapshot_sha256": snapshot.digest_sha256,
        "images_included": include_images,
        **snapshot.query,
    }
    counts = {"images": snapshot.n_images, "masks": n_masks}
    return file_sha256(write_manifest(draft, files, query, counts))


def _log(
    session: Session,
    snapshot: Snapshot,
    format: str,
    include_images: bool,
    manifest_sha256: str,
    n_masks: int,
) -> None:
    row = Export(snapshot_id=snapshot.id, format=format, options={"images": include_images}, n_masks=n_masks)
    row.manifest_sha256 = manifest_sha256
    session.add(row)
    session.flush()
    record_event(
        session,
        "export.written",
        dataset_id=snapshot.dataset_id,
        subject_id=row.id,
        format=format,
        manifest_sha256=manifest_sha256,
    )
