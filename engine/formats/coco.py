"""COCO instance segmentation, read without trust and one annotation at a time.

What COCO does not define is kept in `extra`, so it goes through Maskloop unchanged. Writing: `coco_writer`.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

from engine.errors import BadInput
from engine.formats.json_fields import (
    Box,
    box_of,
    extra_of,
    file_name_of,
    flag_of,
    id_of,
    mapping_of,
    name_of,
    number_of,
    record_of,
    text_of,
)
from engine.formats.json_stream import MAX_FILE_BYTES, JsonStream, check_file, check_plain
from engine.geometry.polygons import polygon_to_rle
from engine.geometry.rle import MAX_PIXELS, MAX_RUNS, Rle, check_size, validate

OnRefusal = Callable[[str], None]


@dataclass(frozen=True, slots=True)
class CocoImage:
    """One image block; `file_name` is relative and stays inside the images' folder."""

    id: int
    file_name: str
    width: int
    height: int
    extra: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class CocoCategory:
    """One category block."""

    id: int
    name: str
    supercategory: str | None = None
    extra: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class CocoAnnotation:
    """One mask. `area` and `bbox` (x, y, width, height) are what the file says, not what the mask has.

    `from_polygon` tells that `rle` was drawn from outlines, so its pixels are pycocotools' reading of them.
    """

    id: int
    image_id: int
    category_id: int | None
    rle: Rle
    area: float | None = None
    bbox: Box | None = None
    iscrowd: int = 0
    attributes: dict[str, Any] = field(default_factory=dict)
    extra: dict[str, Any] = field(default_factory=dict)
    from_polygon: bool = False


IMAGE_FIELDS = frozenset({"id", "file_name", "width", "height"})
CATEGORY_FIELDS = frozenset({"id", "name", "supercategory"})
ANNOTATION_FIELDS = frozenset(
    {"id", "image_id", "category_id", "segmentation", "area", "bbox", "iscrowd", "attributes"}
)
_Record = TypeVar("_Record", CocoImage, CocoCategory)


@dataclass(frozen=True)
class CocoFile:
    """A file whose JSON was read to its end once; `annotations()` reads it again, one record at a time."""

    path: Path
    info: dict[str, Any]
    licenses: list[Any]
    images: dict[int, CocoImage]
    categories: dict[int, CocoCategory]
    n_annotations: int
    max_runs: int
    max_pixels: int

    def annotations(self, on_refusal: OnRefusal | None = None) -> Iterator[CocoAnnotation]:
        """Every annotation in the file's order. A bad one raises BadInput that names it.

        With `on_refusal` the sentence goes there instead, and the rest is read.
        """
        seen: set[int] = set()
        for position, record in enumerate(_records(self.path, "annotations")):
            name = name_of("annotation", record, position)
            try:
                annotation = self._annotation(record_of(record, name), name)
                _check_new(annotation.id, seen, name)
            except BadInput as refusal:
                _report(refusal, on_refusal)
                continue
            seen.add(annotation.id)
            yield annotation

    def _annotation(self, fields: dict[str, Any], name: str) -> CocoAnnotation:
        image = self._image(fields, name)
        rle, from_polygon = self._mask(fields, image, name)
        return CocoAnnotation(
            id=id_of(fields, "id", name),
            image_id=image.id,
            category_id=self._category_id(fields, name),
            rle=rle,
            area=number_of(fields, "area", name),
            bbox=box_of(fields, "bbox", name),
            iscrowd=flag_of(fields, "iscrowd", name),
            attributes=mapping_of(fields, "attributes", name),
            extra=extra_of(fields, ANNOTATION_FIELDS, name),
            from_polygon=from_polygon,
        )

    def _image(self, fields: dict[str, Any], name: str) -> CocoImage:
        image_id = id_of(fields, "image_id", name)
        if image_id not in self.images:
            raise BadInput(f"{name}: there is no image {image_id}: add its block or leave this out")
        return self.images[image_id]

    def _category_id(self, fields: dict[str, Any], name: str) -> int | None:
        if fields.get("category_id") is None:
            return None
        category_id = id_of(fields, "category_id", name)
        if category_id not in self.categories:
            raise BadInput(f"{name}: there is no category {category_id}: add its block or leave this out")
        return category_id

    def _mask(self, fields: dict[str, Any], image: CocoImage, name: str) -> tuple[Rle, bool]:
        """The mask, and whether it was drawn from polygons."""
        segmentation, hw = fields.get("segmentation"), (image.height, image.width)
        try:
            if segmentation is None:
                raise BadInput("it has no segmentation; only masks are read, not bare boxes")
            if isinstance(segmentation, list):
                return polygon_to_rle(segmentation, hw, max_pixels=self.max_pixels), True
            return validate(segmentation, hw, max_runs=self.max_runs, max_pixels=self.max_pixels), False
        except BadInput as refusal:
            raise BadInput(f"{name}: {refusal}") from None


def read_coco(
    path: Path,
    *,
    on_refusal: OnRefusal | None = None,
    max_bytes: int = MAX_FILE_BYTES,
    max_runs: int = MAX_RUNS,
    max_pixels: int = MAX_PIXELS,
) -> CocoFile:
    """Opens a COCO file: its JSON is read once to the end, images and categories are checked and kept.

    Raises BadInput if it is no strict JSON of COCO's shape. A bad image or category raises too, or is told to
    `on_refusal` and left out (its annotations are then refused one by one).
    """
    check_file(path, max_bytes)
    images: dict[int, CocoImage] = {}
    categories: dict[int, CocoCategory] = {}
    counts: dict[str, int] = {}
    others: dict[str, Any] = {}
    build_image = partial(_image, max_pixels=max_pixels)
    for key, stream in _sections(path):
        if key == "images":
            images = _by_id(stream, "image", build_image, on_refusal)
        elif key == "categories":
            categories = _by_id(stream, "category", _category, on_refusal)
        elif key == "annotations":
            counts[key] = sum(1 for _ in stream.elements())
        else:
            others[key] = stream.value()
            check_plain(others[key], f"{path.name}: {key}")
    if "annotations" not in counts:
        raise BadInput(f"{path.name} has no list of annotations: is it a COCO file?")
    info, licenses = mapping_of(others, "info", path.name), others.get("licenses") or []
    if not isinstance(licenses, list):
        raise BadInput(f"{path.name}: licenses has to be a list")
    return CocoFile(path, info, licenses, images, categories, counts["annotations"], max_runs, max_pixels)


def _image(fields: dict[str, Any], name: str, max_pixels: int) -> CocoImage:
    try:
        height, width = check_size([fields.get("height"), fields.get("width")], None, max_pixels)
    except BadInput as refusal:
        raise BadInput(f"{name}: {refusal}") from None
    file_name, extra = file_name_of(fields, "file_name", name), extra_of(fields, IMAGE_FIELDS, name)
    return CocoImage(id_of(fields, "id", name), file_name, width, height, extra)


def _category(fields: dict[str, Any], name: str) -> CocoCategory:
    extra = extra_of(fields, CATEGORY_FIELDS, name)
    supercategory = fields.get("supercategory") or None
    if supercategory is not None:
        supercategory = text_of(fields, "supercategory", name)
    return CocoCategory(id_of(fields, "id", name), text_of(fields, "name", name), supercategory, extra)


def _sections(path: Path) -> Iterator[tuple[str, JsonStream]]:
    """The keys of the file's one object; the caller reads each value from the stream that comes along."""
    with path.open(encoding="utf-8-sig", newline="") as file:
        stream = JsonStream(file, path.name)
        for key in stream.keys():
            yield key, stream
        stream.end()


def _records(path: Path, wanted: str) -> Iterator[Any]:
    """The elements of one array of the file; what stands before it is walked over."""
    for key, stream in _sections(path):
        if key == wanted:
            yield from stream.elements()
            return
        if stream.peek() == "[":
            sum(1 for _ in stream.elements())
        else:
            stream.value()


def _by_id(
    stream: JsonStream,
    kind: str,
    build: Callable[[dict[str, Any], str], _Record],
    on_refusal: OnRefusal | None,
) -> dict[int, _Record]:
    """The records of an array by their ids; a bad one is refused by name."""
    records: dict[int, _Record] = {}
    for position, fields in enumerate(stream.elements()):
        name = name_of(kind, fields, position)
        try:
            record = build(record_of(fields, name), name)
            _check_new(record.id, records, name)
            records[record.id] = record
        except BadInput as refusal:
            _report(refusal, on_refusal)
    return records


def _check_new(record_id: int, seen: dict[int, Any] | set[int], name: str) -> None:
    if record_id in seen:
        raise BadInput(f"{name}: the id occurs twice; give every record its own")


def _report(refusal: BadInput, on_refusal: OnRefusal | None) -> None:
    if on_refusal is None:
        raise refusal
    on_refusal(str(refusal))
