"""COCO file -> Category, Mask: somebody else's masks, with their ids, categories and attributes kept."""

from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path
from typing import Any

from sqlalchemy import func, insert, select
from sqlalchemy.orm import Session

from engine.formats.coco import CocoAnnotation, CocoCategory, CocoFile, CocoImage, read_coco
from engine.geometry.rle import area, bbox_xywh
from engine.store.categories import Category
from engine.store.datasets import dataset_named, raise_export_id, take_export_ids
from engine.store.events import record_event
from engine.store.images import Image
from engine.store.masks import Mask
from engine.store.session import Workspace

_CHUNK = 1000
# Larger ids would lose digits in a browser and overflow the counter: they get a new one.
_LARGEST_ID = 2**53 - 1


@dataclass
class MaskImportReport:
    """Masks added and known before, how many got a new id because theirs was taken, and the refusals."""

    added: int = 0
    known: int = 0
    renumbered: int = 0
    refused: list[str] = field(default_factory=list)


@dataclass(frozen=True)
class _Target:
    """Where a file's ids lead: its image and category ids to our rows."""

    dataset_id: int
    images: Mapping[int, Image]
    categories: Mapping[int, int]


def import_masks(
    workspace: Workspace, dataset: str, file: Path, *, made_by_people: bool = True
) -> MaskImportReport:
    """Adds the masks of a COCO file to images that are in the dataset already, all in one transaction.

    A record that cannot be used is refused with a sentence that names it and the rest goes in; a file that is
    no COCO raises BadInput and changes nothing. Running twice adds nothing. Masks `made_by_people` may train
    and judge models as an annotator's may.
    """
    report = MaskImportReport()
    limits = workspace.settings.limits
    refuse = report.refused.append
    coco = read_coco(file, on_refusal=refuse, max_runs=limits.max_runs, max_pixels=limits.max_pixels)
    with workspace.write() as session:
        dataset_id = dataset_named(session, dataset).id
        images = _match_images(session, dataset_id, coco, report)
        categories = {id: _category(session, dataset_id, block) for id, block in coco.categories.items()}
        target = _Target(dataset_id, images, categories)
        _add_masks(session, target, coco, made_by_people, report)
        record_event(session, "masks.imported", dataset_id=dataset_id, file=file.name, added=report.added)
    return report


def _match_images(
    session: Session, dataset_id: int, coco: CocoFile, report: MaskImportReport
) -> dict[int, Image]:
    """File image id -> our image, by the name it was imported under, or by its last part where unique."""
    rows = list(session.scalars(select(Image).where(Image.dataset_id == dataset_id)))
    by_name = {image.original_name: image for image in rows}
    last_parts = Counter(Path(image.original_name).name for image in rows)
    by_last = {Path(i.original_name).name: i for i in rows if last_parts[Path(i.original_name).name] == 1}
    found: dict[int, Image] = {}
    matched: set[int] = set()
    for block in coco.images.values():
        image = by_name.get(block.file_name) or by_last.get(Path(block.file_name).name)
        complaint = _complaint(block, image)
        if image is not None and image.id in matched:
            complaint = "another image of the file has this name already. Its masks are left out"
        if complaint or image is None:
            report.refused.append(f"image {block.id} ({block.file_name}): {complaint}")
        else:
            found[block.id] = image
            matched.add(image.id)
    return found


def _complaint(block: CocoImage, image: Image | None) -> str:
    if image is None:
        return "not in the dataset; run `maskloop images import` first. Its masks are left out"
    if (block.width, block.height) != (image.width, image.height):
        here, there = f"{image.width} x {image.height}", f"{block.width} x {block.height}"
        return f"is {here} once upright, the file says {there}. Its masks are left out"
    return ""


def _category(session: Session, dataset_id: int, block: CocoCategory) -> int:
    """Our category of that name, made if need be; it keeps the file's id where that is free."""
    here = Category.dataset_id == dataset_id
    known = session.scalar(select(Category.id).where(here, Category.name == block.name))
    if known is not None:
        return known
    taken = session.scalar(select(Category.id).where(here, Category.export_id == block.id))
    if taken is None and 0 < block.id <= _LARGEST_ID:
        export_id = block.id
        raise_export_id(session, dataset_id, "category", export_id)
    else:
        export_id = take_export_ids(session, dataset_id, "category", 1)[0]
    category = Category(
        dataset_id=dataset_id,
        name=block.name,
        supercategory=block.supercategory,
        export_id=export_id,
        imported_id=block.id,
        extra=block.extra or None,
    )
    session.add(category)
    session.flush()
    return category.id


def _add_masks(
    session: Session, target: _Target, coco: CocoFile, made_by_people: bool, report: MaskImportReport
) -> None:
    here = Mask.dataset_id == target.dataset_id
    columns = select(Mask.image_id, Mask.imported_id, Mask.counts).where(here)
    known = {(image_id, imported_id, counts) for image_id, imported_id, counts in session.execute(columns)}
    taken = set(session.scalars(select(Mask.export_id).where(here).distinct()))
    wanted = _usable(coco, target, known, report)
    while chunk := list(islice(wanted, _CHUNK)):
        rows = [_row(annotation, target, made_by_people) for annotation in chunk]
        _give_export_ids(session, target.dataset_id, rows, taken, report)
        session.execute(insert(Mask), rows)
        report.added += len(rows)
    highest = session.scalar(select(func.max(Mask.export_id)).where(here))
    raise_export_id(session, target.dataset_id, "mask", highest or 0)


def _usable(
    coco: CocoFile, target: _Target, known: set[tuple[int, int | None, str]], report: MaskImportReport
) -> Iterator[CocoAnnotation]:
    for annotation in coco.annotations(on_refusal=report.refused.append):
        image = target.images.get(annotation.image_id)
        if image is None:
            continue
        if area(annotation.rle) == 0:
            report.refused.append(f"annotation {annotation.id}: the mask is empty")
        elif (image.id, annotation.id, annotation.rle["counts"]) in known:
            report.known += 1
        else:
            yield annotation


def _row(annotation: CocoAnnotation, target: _Target, made_by_people: bool) -> dict[str, Any]:
    image = target.images[annotation.image_id]
    category_id = annotation.category_id
    return {
        "dataset_id": target.dataset_id,
        "image_id": image.id,
        "imported_id": annotation.id,
        "height": image.height,
        "width": image.width,
        "counts": annotation.rle["counts"],
        "area": area(annotation.rle),
        "bbox_xywh": list(bbox_xywh(annotation.rle)),
        "source": "imported",
        "touched_by_person": made_by_people,
        "category_id": None if category_id is None else target.categories[category_id],
        "iscrowd": annotation.iscrowd,
        "attributes": annotation.attributes or None,
        "extra": annotation.extra or None,
    }


def _give_export_ids(
    session: Session, dataset_id: int, rows: list[dict[str, Any]], taken: set[int], report: MaskImportReport
) -> None:
    """Each mask keeps the id of its file unless another mask of the dataset has it."""
    for row in rows:
        if 0 < row["imported_id"] <= _LARGEST_ID and row["imported_id"] not in taken:
            row["export_id"] = row["imported_id"]
            taken.add(row["export_id"])
    highest = max(taken, default=0)
    raise_export_id(session, dataset_id, "mask", highest)
    homeless = [row for row in rows if "export_id" not in row]
    fresh = take_export_ids(session, dataset_id, "mask", len(homeless))
    for row, export_id in zip(homeless, fresh, strict=True):
        row["export_id"] = export_id
        taken.add(export_id)
    report.renumbered += len(homeless)
