"""What is written is complete or absent, equal for equal input, and opens in pycocotools."""

import contextlib
import io
import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval

from engine.errors import BadInput
from engine.formats.coco import CocoAnnotation, CocoCategory, CocoFile, CocoImage, read_coco
from engine.formats.coco_writer import CocoWriter
from engine.geometry.rle import decode, encode, from_uncompressed

IMAGES = [CocoImage(5, "a.png", 8, 6), CocoImage(2, "b.png", 8, 6, {"split": "val"})]
CATEGORIES = [CocoCategory(1, "cell")]
MASK = np.zeros((6, 8), bool)
MASK[2:4, 1:5] = True


def mask_of(number: int, **changes: Any) -> CocoAnnotation:
    return replace(CocoAnnotation(number, 5, 1, encode(MASK)), **changes)


def write(path: Path, *annotations: CocoAnnotation, info: dict[str, Any] | None = None) -> dict[str, Any]:
    with CocoWriter(path, info=info or {}, images=IMAGES, categories=CATEGORIES) as writer:
        for annotation in annotations:
            writer.write(annotation)
    content: dict[str, Any] = json.loads(path.read_bytes())
    return content


def copy(file: CocoFile, path: Path) -> None:
    writer = CocoWriter(
        path,
        info=file.info,
        images=file.images.values(),
        categories=file.categories.values(),
        licenses=file.licenses,
    )
    with writer:
        for annotation in file.annotations():
            writer.write(annotation)


def test_area_and_box_come_from_the_mask_as_plain_numbers(tmp_path: Path) -> None:
    content = write(tmp_path / "out.json", mask_of(1))
    assert content["annotations"] == [
        {
            **{"id": 1, "image_id": 5, "category_id": 1, "segmentation": encode(MASK)},
            **{"area": 8, "bbox": [1, 2, 4, 2], "iscrowd": 0},
        }
    ]
    assert [image["id"] for image in content["images"]] == [5, 2]
    assert isinstance(content["annotations"][0]["segmentation"]["counts"], str)


def test_scores_and_attributes_are_written_beside_the_official_fields(tmp_path: Path) -> None:
    extra = {"predicted_iou": 0.91, "stability_score": 0.97, "crop_box": [0, 0, 8, 6]}
    extra |= {"point_coords": [[3.5, 2.0]]}
    content = write(tmp_path / "out.json", mask_of(1, extra=extra, attributes={"blurred": False}, iscrowd=1))
    (written,) = content["annotations"]
    assert written["attributes"] == {"blurred": False} and written["iscrowd"] == 1
    assert {key: written[key] for key in extra} == extra


def test_equal_input_gives_equal_bytes_whatever_the_order_of_keys(tmp_path: Path) -> None:
    one = mask_of(1, attributes={"a": 1, "b": {"x": 1, "y": 2}})
    other = mask_of(1, attributes={"b": {"y": 2, "x": 1}, "a": 1})
    write(tmp_path / "one.json", one, info={"x": 1, "y": 2})
    write(tmp_path / "other.json", other, info={"y": 2, "x": 1})
    assert (tmp_path / "one.json").read_bytes() == (tmp_path / "other.json").read_bytes()


def test_a_failure_leaves_the_old_file_and_nothing_half_written(tmp_path: Path) -> None:
    path = tmp_path / "out.json"
    write(path, mask_of(1))
    before = path.read_bytes()
    with pytest.raises(BadInput, match="image 9 is not in this file"):
        write(path, mask_of(1), mask_of(2, image_id=9))
    with pytest.raises(BadInput, match="given twice"):
        CocoWriter(path, info={}, images=IMAGES * 2, categories=CATEGORIES).__enter__()
    assert path.read_bytes() == before and list(tmp_path.iterdir()) == [path]


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"category_id": 9}, "category 9 is not in this file"),
        ({"extra": {"area": 1}}, "COCO's own"),
        ({"extra": {"predicted_iou": float("nan")}}, "not finite"),
        ({"attributes": {"score": float("inf")}}, "not finite"),
        ({"extra": {"x": object()}}, "cannot be written"),
    ],
)
def test_what_json_cannot_say_is_refused(tmp_path: Path, changes: dict[str, Any], reason: str) -> None:
    with pytest.raises(BadInput, match=reason):
        write(tmp_path / "out.json", mask_of(1, **changes))
    assert list(tmp_path.iterdir()) == []


def test_an_empty_dataset_is_a_valid_file(tmp_path: Path) -> None:
    path = tmp_path / "out.json"
    with CocoWriter(path, info={}, images=[], categories=[]):
        pass
    file = read_coco(path)
    assert (file.images, file.categories, file.n_annotations) == ({}, {}, 0)


@pytest.mark.parametrize(("folder", "n_masks"), [("nuclei", 8204), ("scenes", 6834)])
def test_a_real_dataset_comes_back_with_every_field_equal(
    shared: Path, tmp_path: Path, folder: str, n_masks: int
) -> None:
    source = shared / "datasets" / folder / "annotations.json"
    copy(read_coco(source), tmp_path / "out.json")
    before, after = json.loads(source.read_bytes()), json.loads((tmp_path / "out.json").read_bytes())
    assert len(after["annotations"]) == n_masks
    assert after == before | {"licenses": []}


def test_a_counts_string_that_is_not_canonical_comes_back_byte_for_byte(tmp_path: Path) -> None:
    odd = from_uncompressed([2, 0, 3, 4, 0, 0, 39], (6, 8))
    assert odd != encode(decode(odd))
    write(tmp_path / "one.json", mask_of(1, rle=odd))
    copy(read_coco(tmp_path / "one.json"), tmp_path / "two.json")
    assert json.loads((tmp_path / "two.json").read_bytes())["annotations"][0]["segmentation"] == odd


def test_pycocotools_loads_and_evaluates_what_is_written(shared: Path, tmp_path: Path) -> None:
    source = read_coco(shared / "datasets" / "nuclei" / "annotations.json")
    images = [image for image in source.images.values() if image.extra["split"] == "val"][:12]
    chosen = {image.id for image in images}
    path = tmp_path / "out.json"
    with CocoWriter(path, info={}, images=images, categories=source.categories.values()) as writer:
        for annotation in source.annotations():
            if annotation.image_id in chosen:
                writer.write(replace(annotation, extra={"score": 1.0}))
    with contextlib.redirect_stdout(io.StringIO()):
        truth = COCO(str(path))
        found = truth.loadRes(json.loads(path.read_bytes())["annotations"])
        evaluation = COCOeval(truth, found, "segm")
        evaluation.params.maxDets = [1, 100, 1000]
        evaluation.evaluate()
        evaluation.accumulate()
    precision = evaluation.eval["precision"][:, :, :, 0, 2]
    assert len(truth.anns) > 100 and precision[precision > -1].min() == 1.0
