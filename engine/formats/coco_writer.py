"""Writes COCO files whose bytes depend on their content only: no time, no path, keys in sorted order.

Images, categories and licences are given first; annotations follow one by one, so memory stays constant.
"""

import os
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from types import TracebackType
from typing import Any, BinaryIO

import orjson

from engine.errors import BadInput
from engine.formats.coco import (
    ANNOTATION_FIELDS,
    CATEGORY_FIELDS,
    IMAGE_FIELDS,
    CocoAnnotation,
    CocoCategory,
    CocoImage,
)
from engine.formats.json_stream import check_plain
from engine.geometry.rle import bbox_of_runs, runs_of

_FLUSH_BYTES = 2**20


class CocoWriter:
    """Use as a context manager: the file appears under its name, whole, when the block ends without an error.

    `info` is written as given (leave times out if equal exports shall have equal bytes). COCO's readers
    expect a category on every annotation: one whose category_id is None is written with null.
    """

    def __init__(
        self,
        path: Path,
        *,
        info: Mapping[str, Any],
        images: Iterable[CocoImage],
        categories: Iterable[CocoCategory],
        licenses: Iterable[Mapping[str, Any]] = (),
    ) -> None:
        self.path, self.n_annotations = path, 0
        self._partial = path.with_name(f".{path.name}.partial")
        self._head = (info, images, categories, licenses)
        self._image_ids: set[int] = set()
        self._category_ids: set[int] = set()
        self._lines = bytearray()

    def __enter__(self) -> "CocoWriter":
        self._file: BinaryIO = self._partial.open("wb")
        try:
            self._write_head()
        except BaseException:
            self._discard()
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        try:
            if kind is None:
                self._finish()
        finally:  # after a finished file there is nothing left to discard
            self._discard()

    def write(self, annotation: CocoAnnotation) -> None:
        """Adds one annotation. Area and box that are None are computed from the mask; others are written as
        they are. Raises BadInput if the image or category was not given up front."""
        name, category_id = f"annotation {annotation.id}", annotation.category_id
        if annotation.image_id not in self._image_ids:
            raise BadInput(f"{name}: image {annotation.image_id} is not in this file")
        if category_id is not None and category_id not in self._category_ids:
            raise BadInput(f"{name}: category {category_id} is not in this file")
        self._lines += b",\n" if self.n_annotations else b"\n"
        self._lines += _dump(annotation_fields(annotation), name)
        self.n_annotations += 1
        if len(self._lines) >= _FLUSH_BYTES:
            self._flush()

    def _write_head(self) -> None:
        info, images, categories, licenses = self._head
        self._lines += b'{"info":' + _dump(dict(info), "info") + b',\n"licenses":'
        self._lines += _dump([dict(licence) for licence in licenses], "licenses") + b',\n"categories":['
        self._write_all(map(_category_fields, categories), self._category_ids, "category")
        self._lines += b'\n],"images":['
        self._write_all(map(_image_fields, images), self._image_ids, "image")
        self._lines += b'\n],"annotations":['

    def _write_all(self, records: Iterator[dict[str, Any]], ids: set[int], kind: str) -> None:
        for record in records:
            if record["id"] in ids:
                raise BadInput(f"{kind} {record['id']} is given twice")
            self._lines += b",\n" if ids else b"\n"
            self._lines += _dump(record, f"{kind} {record['id']}")
            ids.add(record["id"])
            if len(self._lines) >= _FLUSH_BYTES:
                self._flush()

    def _flush(self) -> None:
        self._file.write(self._lines)
        self._file.flush()
        self._lines.clear()

    def _finish(self) -> None:
        self._lines += b"\n]}\n"
        self._flush()
        os.fsync(self._file.fileno())
        self._partial.replace(self.path)
        sync_folder(self.path.parent)

    def _discard(self) -> None:
        self._file.close()
        self._partial.unlink(missing_ok=True)


def annotation_fields(annotation: CocoAnnotation) -> dict[str, Any]:
    """One annotation as COCO writes it; attributes only where there are any."""
    area, bbox = annotation.area, annotation.bbox
    if area is None or bbox is None:
        runs = runs_of(annotation.rle)
        area = int(runs[1::2].sum()) if area is None else area
        bbox = bbox_of_runs(runs, annotation.rle["size"][0]) if bbox is None else bbox
    fields: dict[str, Any] = {
        "id": annotation.id,
        "image_id": annotation.image_id,
        "category_id": annotation.category_id,
        "segmentation": annotation.rle,
        "area": area,
        "bbox": bbox,
        "iscrowd": annotation.iscrowd,
    }
    if annotation.attributes:
        check_plain(annotation.attributes, f"annotation {annotation.id}")
        fields["attributes"] = annotation.attributes
    return _joined(fields, annotation.extra, ANNOTATION_FIELDS, f"annotation {annotation.id}")


def sync_folder(folder: Path) -> None:
    """Makes a rename in `folder` survive a power cut."""
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def _image_fields(image: CocoImage) -> dict[str, Any]:
    fields = {"id": image.id, "file_name": image.file_name, "width": image.width, "height": image.height}
    return _joined(fields, image.extra, IMAGE_FIELDS, f"image {image.id}")


def _category_fields(category: CocoCategory) -> dict[str, Any]:
    fields: dict[str, Any] = {"id": category.id, "name": category.name}
    if category.supercategory is not None:
        fields["supercategory"] = category.supercategory
    return _joined(fields, category.extra, CATEGORY_FIELDS, f"category {category.id}")


def _joined(
    fields: dict[str, Any], extra: dict[str, Any], official: frozenset[str], name: str
) -> dict[str, Any]:
    if not extra:
        return fields
    if not official.isdisjoint(extra):
        raise BadInput(f"{name}: extra fields are named as COCO's own: {sorted(official & extra.keys())}")
    check_plain(extra, f"{name}: it")  # orjson would write NaN as null in silence
    return fields | extra


def _dump(record: Any, name: str) -> bytes:
    try:
        return orjson.dumps(record, option=orjson.OPT_SORT_KEYS)
    except TypeError as error:
        raise BadInput(f"{name} cannot be written as JSON: {error}") from None
