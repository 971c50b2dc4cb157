"""Image files -> Image: upright RGB pixels by digest; look-alikes share a group and so a split."""

import hashlib
import os
import re
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from itertools import islice
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from sqlalchemy import select
from sqlalchemy.orm import Session

from engine.config import Settings
from engine.errors import BadInput, NotFound
from engine.formats.coco import CocoImage, read_coco
from engine.formats.pictures import SUFFIXES, Picture, read_picture
from engine.geometry.look_alike import LookAlikes, difference_hash
from engine.store.datasets import Dataset, add_dataset, dataset_named, raise_export_id, take_export_ids
from engine.store.events import record_event
from engine.store.images import Image
from engine.store.session import Workspace

_BATCH = 16
# Larger ids would lose digits in a browser and overflow the counter: such an image gets a new one.
_LARGEST_ID = 2**53 - 1
# So many pixels, evenly spread, tell the contrast as well as all of them.
_CONTRAST_PIXELS = 1_000_000
# What the page's addresses and file names can carry.
_DATASET_NAME = re.compile(r"[^\W_][\w.-]{0,63}")


@dataclass
class IngestReport:
    """What became of each file: (name, sentence) for the refused and for what a person should know."""

    added: int = 0
    known: int = 0
    refused: list[tuple[str, str]] = field(default_factory=list)
    notes: list[tuple[str, str]] = field(default_factory=list)


@dataclass(frozen=True)
class Origin:
    """Where the pictures came from; kept with each image and exported with it."""

    source: str | None = None
    licence: str | None = None
    attribution: str | None = None


def import_images(
    workspace: Workspace,
    dataset: str,
    paths: Iterable[Path],
    *,
    annotations: Path | None = None,
    origin: Origin | None = None,
    on_progress: Callable[[int, int], None] | None = None,
) -> IngestReport:
    """Adds every readable picture under `paths` to the dataset, which is made if it is new.

    `annotations` is a COCO file whose image blocks give ids, splits and licences by file name; its masks
    are not read. A file that is no picture is refused alone, the rest goes in; running twice adds nothing.
    Raises NotFound for a missing path, BadInput where there is no picture at all.
    """
    report = IngestReport()
    files = list(_pictures_under(paths, report))
    if not files:
        raise BadInput(f"no picture found: give files or folders with {', '.join(sorted(SUFFIXES))}")
    blocks = _image_blocks(annotations, files, report) if annotations else {}
    dataset_id = _dataset_id(workspace, dataset)
    splits, done = _Splits(), 0
    for batch in _batches(files):
        _import_batch(workspace, dataset_id, batch, blocks, origin or Origin(), splits, report)
        done += len(batch)
        if on_progress:
            on_progress(done, len(files))
    return report


def _pictures_under(paths: Iterable[Path], report: IngestReport) -> Iterator[tuple[str, Path]]:
    """(name, file) in a fixed order; names are relative to the folder that was given."""
    for path in paths:
        if path.is_file():
            yield _readable(Path(path.name)), path
        elif path.is_dir():
            for file in sorted(path.rglob("*")):
                inside = file.relative_to(path)
                if not file.is_file() or any(part.startswith(".") for part in inside.parts):
                    continue
                if file.suffix.lower() in SUFFIXES:
                    yield _readable(inside), file
                else:
                    report.notes.append((_readable(inside), "passed over: not a picture by its name"))
        else:
            raise NotFound(f"there is no file or folder {path}")


def _readable(name: Path) -> str:
    """The name as text for database and people; bytes that are no UTF-8 become replacement characters."""
    return os.fsencode(name.as_posix()).decode("utf-8", "replace")


def _image_blocks(
    annotations: Path, files: list[tuple[str, Path]], report: IngestReport
) -> dict[str, CocoImage]:
    """File name -> block, for names as given; a bare name serves a file in a folder where it is the only one.

    The licence, a number in the file's own list, is put in words.
    """
    coco = read_coco(annotations, on_refusal=lambda reason: report.notes.append((annotations.name, reason)))
    named = [one for one in coco.licenses if isinstance(one, dict) and isinstance(one.get("name"), str)]
    licences = {str(one.get("id")): one["name"] for one in named}
    blocks: dict[str, CocoImage] = {}
    for block in coco.images.values():
        if block.file_name in blocks:
            raise BadInput(
                f"{annotations.name}: two images are named {block.file_name!r}; names must be unique"
            )
        extra = dict(block.extra)
        licence = licences.get(str(extra.pop("license", None)))
        blocks[block.file_name] = replace(block, extra=extra | ({"licence": licence} if licence else {}))
    bare = Counter(Path(name).name for name, _ in files)
    of_file = {name: blocks.get(name) or blocks.get(Path(name).name) for name, _ in files}
    unique = {name for name, _ in files if name in blocks or bare[Path(name).name] == 1}
    return {name: block for name, block in of_file.items() if block and name in unique}


def _dataset_id(workspace: Workspace, name: str) -> int:
    with workspace.write() as session:
        try:
            return dataset_named(session, name).id
        except NotFound:
            if not _DATASET_NAME.fullmatch(name):
                raise BadInput(
                    "a dataset name is 1 to 64 letters, digits or . _ -, starting with a letter or digit"
                ) from None
            created = add_dataset(session, name)
            record_event(session, "dataset.created", dataset_id=created.id, name=name)
            return created.id


def _batches(files: list[tuple[str, Path]]) -> Iterator[list[tuple[str, Path]]]:
    rest = iter(files)
    while batch := list(islice(rest, _BATCH)):
        yield batch


def _import_batch(
    workspace: Workspace,
    dataset_id: int,
    batch: list[tuple[str, Path]],
    blocks: Mapping[str, CocoImage],
    origin: Origin,
    splits: "_Splits",
    report: IngestReport,
) -> None:
    """Decodes and stores the files first, then writes all their rows in one transaction."""
    ready: list[tuple[str, str, str, Picture]] = []
    for name, file in batch:
        try:
            content = file.read_bytes()
            picture = read_picture(content, max_pixels=workspace.settings.limits.max_pixels)
        except BadInput as error:
            report.refused.append((name, str(error)))
        except OSError as error:
            report.refused.append((name, f"cannot be read: {error.strerror}"))
        else:
            original = hashlib.sha256(content).hexdigest()
            ready.append((name, original, workspace.blobs.put(picture.stored), picture))
    with workspace.write() as session:
        # Two imports at once must see each other's look-alikes, or one group gets two splits.
        session.execute(select(Dataset.id).where(Dataset.id == dataset_id).with_for_update())
        for name, original_sha256, pixels_sha256, picture in ready:
            block = blocks.get(name)
            image = _row(name, original_sha256, pixels_sha256, picture, block, origin)
            _add(session, workspace.settings, splits, dataset_id, image, picture, block, report)


def _row(
    name: str, original: str, pixels: str, picture: Picture, block: CocoImage | None, origin: Origin
) -> Image:
    height, width = picture.pixels.shape[:2]
    extra = dict(block.extra) if block else {}
    licence = extra.pop("licence", None)
    return Image(
        original_name=name,
        original_sha256=original,
        pixels_sha256=pixels,
        media_type=picture.media_type,
        width=width,
        height=height,
        orientation=picture.orientation,
        changes=list(picture.changes),
        contrast=contrast_of(picture.pixels),
        source=origin.source,
        licence=origin.licence or licence,
        attribution=origin.attribution,
        imported_id=block.id if block else None,
        extra=extra or None,
    )


def contrast_of(pixels: NDArray[np.uint8]) -> float:
    """Standard deviation of the luminance (Rec. 601) of (H, W, 3), 0 for a flat picture, at most 0.5."""
    step = max(1, int(np.sqrt(pixels[..., 0].size / _CONTRAST_PIXELS)))
    luminance = pixels[::step, ::step] @ np.array([0.299, 0.587, 0.114])
    return float(luminance.std() / 255)


def _add(
    session: Session,
    settings: Settings,
    splits: "_Splits",
    dataset_id: int,
    image: Image,
    picture: Picture,
    block: CocoImage | None,
    report: IngestReport,
) -> None:
    same = (Image.dataset_id == dataset_id) & (Image.original_sha256 == image.original_sha256)
    known_as = session.scalar(select(Image.original_name).where(same))
    if known_as is not None:
        report.known += 1
        if known_as != image.original_name:
            report.notes.append(
                (image.original_name, f"the same file as {known_as}, kept once under that name")
            )
        return
    if block and (block.width, block.height) != (image.width, image.height):
        report.refused.append((image.original_name, _size_sentence(block, image)))
        return
    image.dataset_id = dataset_id
    asked = block.extra.get("split") if block else None
    splits.read_new(session, dataset_id)
    image.near_duplicate_group, image.split = splits.place(picture.pixels, asked, settings.split.val_percent)
    if asked in ("train", "val") and asked != image.split:
        sentence = f"kept in split {image.split} with the image it looks like; the file says {asked}"
        report.notes.append((image.original_name, sentence))
    image.export_id = _export_id(session, dataset_id, image.imported_id)
    session.add(image)
    session.flush()
    report.added += 1


def _size_sentence(block: CocoImage, image: Image) -> str:
    here, there = f"{image.width} x {image.height}", f"{block.width} x {block.height}"
    return f"is {here} once upright, but the annotations say {there}: give the file they were drawn on"


def _export_id(session: Session, dataset_id: int, imported_id: int | None) -> int:
    """The id it came with where that is free, so that a round trip changes none."""
    if imported_id is not None and 0 < imported_id <= _LARGEST_ID:
        taken = select(Image.id).where(Image.dataset_id == dataset_id, Image.export_id == imported_id)
        if session.scalar(taken) is None:
            raise_export_id(session, dataset_id, "image", imported_id)
            return imported_id
    return take_export_ids(session, dataset_id, "image", 1)[0]


class _Splits:
    """The near-duplicate groups of a dataset and the split each was given; read once, then kept up."""

    def __init__(self) -> None:
        self._alikes = LookAlikes()
        self._split_of: dict[str, str] = {}
        self._last_id = 0

    def read_new(self, session: Session, dataset_id: int) -> None:
        columns = select(Image.id, Image.near_duplicate_group, Image.split)
        new = columns.where(Image.dataset_id == dataset_id, Image.id > self._last_id).order_by(Image.id)
        for image_id, group, split in session.execute(new):
            self._last_id = image_id
            if group not in self._split_of:
                self._split_of[group] = split
                self._alikes.add(group)

    def place(self, pixels: NDArray[np.uint8], asked: object, val_percent: int) -> tuple[str, str]:
        """(group, split): the group's split, else the file's word, else by the digest of the group."""
        group = self._alikes.group_of(difference_hash(pixels))
        if group in self._split_of:
            return group, self._split_of[group]
        if asked in ("train", "val"):
            return group, str(asked)
        share = int(hashlib.sha256(group.encode()).hexdigest()[:8], 16) % 100
        return group, "val" if share < val_percent else "train"
