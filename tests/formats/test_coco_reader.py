"""COCO files of other people: what is kept, what is refused, and by which words."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from engine.errors import BadInput
from engine.formats.coco import read_coco
from engine.geometry.rle import area, decode, encode, runs_of

MASK = np.zeros((6, 8), bool)
MASK[2:4, 1:5] = True
RLE = encode(MASK)


def coco(*annotations: dict[str, Any], **changes: Any) -> dict[str, Any]:
    return {
        "info": {"description": "a test"},
        "images": [{"id": 7, "file_name": "a/b.png", "width": 8, "height": 6, "split": "train"}],
        "annotations": list(annotations),
        "categories": [{"id": 3, "name": "thing", "supercategory": "all", "colour": "#fff"}],
    } | changes


def annotation(**changes: Any) -> dict[str, Any]:
    fields = {"id": 17, "image_id": 7, "category_id": 3, "segmentation": RLE, "area": 8, "bbox": [1, 2, 4, 2]}
    return fields | {"iscrowd": 0} | changes


@pytest.fixture
def written(tmp_path: Path) -> Any:
    def write(content: object) -> Path:
        path = tmp_path / "in.json"
        path.write_bytes(content if isinstance(content, bytes) else json.dumps(content).encode())
        return path

    return write


def test_every_field_is_kept_also_those_coco_does_not_know(written: Any) -> None:
    file = read_coco(written(coco(annotation(iscrowd=1, attributes={"blurred": True}, annotator=4))))
    (read,) = file.annotations()
    assert (read.id, read.image_id, read.category_id, read.rle, read.area) == (17, 7, 3, RLE, 8)
    assert (read.bbox, read.iscrowd, read.from_polygon) == ((1, 2, 4, 2), 1, False)
    assert read.attributes == {"blurred": True} and read.extra == {"annotator": 4}
    assert file.images[7].extra == {"split": "train"} and file.categories[3].extra == {"colour": "#fff"}
    assert file.info == {"description": "a test"} and file.n_annotations == 1


def test_the_three_spellings_of_a_mask_give_one_mask(written: Any) -> None:
    spellings = [RLE, {"size": [6, 8], "counts": runs_of(RLE).tolist()}, [[1, 2, 5, 2, 5, 4, 1, 4]]]
    records = [annotation(id=place, segmentation=one) for place, one in enumerate(spellings)]
    read = list(read_coco(written(coco(*records))).annotations())
    assert [one.rle for one in read] == [RLE] * 3
    assert [one.from_polygon for one in read] == [False, False, True]


def test_a_category_may_be_missing_and_area_and_box_too(written: Any) -> None:
    record = {"id": 1, "image_id": 7, "segmentation": RLE}
    (read,) = read_coco(written(coco(record))).annotations()
    assert (read.category_id, read.area, read.bbox) == (None, None, None)
    assert (read.iscrowd, read.attributes) == (0, {})


def test_annotations_may_stand_before_the_images(written: Any) -> None:
    content = coco(annotation())
    shuffled = {key: content[key] for key in ("annotations", "categories", "images")}
    assert [one.id for one in read_coco(written(shuffled)).annotations()] == [17]


BAD_ANNOTATIONS = {
    "runs past the image": (annotation(segmentation={"size": [6, 8], "counts": [9, 40]}), "run past"),
    "a run past the image": (annotation(segmentation={"size": [6, 8], "counts": [0, 49]}), "0 and the 48"),
    "another size": (annotation(segmentation={"size": [8, 6], "counts": [48]}), "but the image is 6 x 8"),
    "cut off counts": (annotation(segmentation={"size": [6, 8], "counts": "P"}), "cut off"),
    "no height": (annotation(segmentation={"size": [0, 8], "counts": "0"}), "each side"),
    "a polygon far outside": (annotation(segmentation=[[0, 0, 2e7, 0, 5, 5]]), "leaves the image"),
    "an empty polygon list": (annotation(segmentation=[]), "at least one"),
    "no segmentation": (annotation(segmentation=None), "no segmentation"),
    "an unknown image": (annotation(image_id=8), "no image 8"),
    "an unknown category": (annotation(category_id=4), "no category 4"),
    "text for a category": (annotation(category_id="3"), "category_id has to be"),
    "a crowd of two": (annotation(iscrowd=2), "iscrowd has to be 0 or 1"),
    "three numbers for a box": (annotation(bbox=[1, 2, 3]), "bbox has to be four"),
    "text for an area": (annotation(area="8"), "area has to be"),
    "a list of attributes": (annotation(attributes=[1]), "attributes"),
    "a deep extra": (annotation(deep=json.loads("[" * 40 + "]" * 40)), "deeper than 32"),
    "half a character": (annotation(note="\ud800"), "half of a character"),
    "a number beyond 64 bits": (annotation(note=2**70), "64 bits"),
}


@pytest.mark.parametrize(("record", "reason"), BAD_ANNOTATIONS.values(), ids=BAD_ANNOTATIONS.keys())
def test_a_bad_annotation_is_named_and_the_good_rest_is_read(written: Any, record: Any, reason: str) -> None:
    file = read_coco(written(coco(annotation(id=1), record, annotation(id=18))))
    with pytest.raises(BadInput, match=f"annotation 17: .*{reason}"):
        list(file.annotations())
    refusals: list[str] = []
    assert [one.id for one in file.annotations(refusals.append)] == [1, 18]
    assert len(refusals) == 1 and refusals[0].startswith("annotation 17: ")


@pytest.mark.parametrize("record", [*(annotation(id=bad) for bad in ("x", -1, 2**63)), 5, None, [1]])
def test_an_annotation_without_a_usable_id_is_named_by_its_place(written: Any, record: Any) -> None:
    with pytest.raises(BadInput, match="annotation (at position 1|-1): "):
        list(read_coco(written(coco(annotation(), record))).annotations())


def test_an_id_used_twice_is_refused_and_the_first_is_kept(written: Any) -> None:
    refusals: list[str] = []
    file = read_coco(written(coco(annotation(), annotation(area=9))))
    assert [one.area for one in file.annotations(refusals.append)] == [8]
    assert refusals == ["annotation 17: the id occurs twice; give every record its own"]


IMAGE = {"id": 7, "file_name": "b.png", "width": 8, "height": 6}
BAD_IMAGES = {
    "a path upwards": (IMAGE | {"file_name": "../b.png"}, "leaves its folder"),
    "an absolute path": (IMAGE | {"file_name": "/etc/passwd"}, "leaves its folder"),
    "a drive": (IMAGE | {"file_name": "c:\\b.png"}, "leaves its folder"),
    "a null character": (IMAGE | {"file_name": "b\0.png"}, "no file name"),
    "no name": (IMAGE | {"file_name": ""}, "file_name has to be text"),
    "a name of megabytes": (IMAGE | {"file_name": "b" * 10_000}, "file_name has to be text"),
    "no width": (IMAGE | {"width": None}, "two whole numbers"),
    "a width of zero": (IMAGE | {"width": 0}, "each side"),
    "too many pixels": (IMAGE | {"width": 30_000, "height": 30_000}, "pixels allowed"),
}


@pytest.mark.parametrize(("image", "reason"), BAD_IMAGES.values(), ids=BAD_IMAGES.keys())
def test_a_bad_image_is_named_and_its_annotations_with_it(written: Any, image: Any, reason: str) -> None:
    path = written(coco(annotation(), images=[image]))
    with pytest.raises(BadInput, match=f"image 7: .*{reason}"):
        read_coco(path)
    refusals: list[str] = []
    assert list(read_coco(path, on_refusal=refusals.append).annotations(refusals.append)) == []
    assert len(refusals) == 2 and "there is no image 7" in refusals[1]


def test_an_image_id_used_twice_is_refused(written: Any) -> None:
    with pytest.raises(BadInput, match="image 7: the id occurs twice"):
        read_coco(written(coco(images=[IMAGE, IMAGE])))


BAD_JSON = {
    "NaN": (b'{"annotations": [], "x": NaN}', "NaN"),
    "an infinite number": (b'{"annotations": [], "x": 1e400}', "not finite"),
    "a key twice in a record": (b'{"annotations": [{"id": 1, "id": 2}]}', "'id' twice"),
    "a key twice at the top": (b'{"annotations": [], "annotations": []}', "'annotations' twice"),
    "endless brackets": (b'{"annotations": [' + b"[" * 100_000, "deeper than 32"),
    "brackets in info": (b'{"annotations": [], "info": ' + b"[" * 40 + b"]" * 40 + b"}", "deeper than 32"),
    "a number of many digits": (b'{"annotations": [' + b"9" * 5000 + b"]}", "number"),
    "a list": (b"[]", "expected"),
    "nothing": (b"", "its end"),
    "a cut file": (b'{"annotations": [{"id": 1}', "its end"),
    "a cut record": (b'{"annotations": [{"id": 1', "not JSON"),
    "a cut word": (b'{"annotations": [], "x": "abc', "not JSON"),
    "a missing comma": (b'{"annotations": [] "images": []}', "expected"),
    "a comma at the end of a list": (b'{"annotations": [1,]}', "not JSON"),
    "a comma at the end of the object": (b'{"annotations": [],}', "quotes"),
    "an error far from the end": (b'{"annotations": [{x}' + b" " * 10_000_000 + b"]}", "at character 18"),
    "text after the end": (b'{"annotations": []} {}', "goes on"),
    "no UTF-8": (b'{"annotations": [], "x": "\xff"}', "UTF-8"),
    "UTF-16": ('{"annotations": []}'.encode("utf-16"), "UTF-8"),
    "a key without quotes": (b"{annotations: []}", "quotes"),
    "a control character": (b'{"annotations": [], "x": "\n"}', "not JSON"),
    "an image": (b"\x89PNG\r\n\x1a\n", "UTF-8"),
    "annotations by name": (b'{"annotations": {"1": 2}}', "expected"),
    "no annotations": (b'{"images": []}', "is it a COCO file"),
    "licences by name": (b'{"annotations": [], "licenses": {"1": 2}}', "licenses"),
}


@pytest.mark.parametrize(("content", "reason"), BAD_JSON.values(), ids=BAD_JSON.keys())
def test_what_is_no_strict_json_is_refused_in_one_sentence(written: Any, content: bytes, reason: str) -> None:
    with pytest.raises(BadInput, match=reason) as refusal:
        read_coco(written(content))
    assert "in.json" in str(refusal.value) and "\n" not in str(refusal.value)


def test_a_file_larger_than_allowed_is_not_opened(written: Any, tmp_path: Path) -> None:
    with pytest.raises(BadInput, match="more than 10: split it"):
        read_coco(written(coco()), max_bytes=10)
    with pytest.raises(BadInput, match="not a file"):
        read_coco(tmp_path / "absent.json")


def test_a_byte_order_mark_is_passed_over(written: Any) -> None:
    assert read_coco(written(b"\xef\xbb\xbf" + json.dumps(coco()).encode())).n_annotations == 0


def test_records_on_every_chunk_border_are_read_whole(written: Any) -> None:
    records = [annotation(id=place, note="n" * (place % 97), scale=place) for place in range(12_000)]
    file = read_coco(written(json.dumps(coco(*records), indent=1).encode()))
    assert file.path.stat().st_size > 3 * 2**20 and file.n_annotations == 12_000
    assert [(one.id, one.extra["scale"]) for one in file.annotations()] == [(n, n) for n in range(12_000)]


@pytest.mark.parametrize(("folder", "n_masks"), [("nuclei", 8204), ("scenes", 6834)])
def test_real_files_are_read_whole(shared: Path, folder: str, n_masks: int) -> None:
    file = read_coco(shared / "datasets" / folder / "annotations.json")
    read = list(file.annotations())
    assert len(read) == file.n_annotations == n_masks
    assert all(area(one.rle) == one.area for one in read[:500])
    image = file.images[read[0].image_id]
    assert decode(read[0].rle).shape == (image.height, image.width)
