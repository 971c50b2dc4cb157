"""verify finds what is wrong with a file, says where, and survives every file."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from engine.errors import NotFound
from engine.formats.coco import CocoAnnotation, CocoCategory, CocoImage
from engine.formats.coco_writer import CocoWriter
from engine.formats.manifest import MANIFEST_NAME, write_manifest
from engine.formats.verify import MOST_PROBLEMS, verify
from engine.geometry.rle import bbox_sa1b, encode

MASK = np.zeros((6, 8), bool)
MASK[2:4, 1:5] = True
RLE = encode(MASK)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """An export of two masks with its manifest."""
    path = tmp_path / "annotations.json"
    images = [CocoImage(1, "a.png", 8, 6)]
    with CocoWriter(path, info={}, images=images, categories=[CocoCategory(1, "cell")]) as writer:
        writer.write(CocoAnnotation(1, 1, 1, RLE))
        writer.write(CocoAnnotation(2, 1, 1, encode(~MASK)))
    write_manifest(tmp_path, [path], {}, {})
    return tmp_path


def change(path: Path, **changes: Any) -> Path:
    content = json.loads(path.read_bytes())
    content["annotations"][0] |= changes
    path.write_text(json.dumps(content))
    return path


def test_a_sound_export_has_no_problem(folder: Path) -> None:
    report = verify(folder)
    assert report.ok and report.problems == []
    assert (report.n_files, report.n_images, report.n_annotations) == (1, 1, 2)
    assert report.bbox_convention == "coco"


def test_a_changed_byte_is_found_by_the_manifest(folder: Path) -> None:
    path = folder / "annotations.json"
    path.write_bytes(path.read_bytes().replace(b"cell", b"call"))
    (problem,) = verify(folder).problems
    assert problem == f"annotations.json is not the file that {MANIFEST_NAME} describes: it was changed"
    assert verify(path).ok


def test_a_missing_file_and_a_broken_manifest_are_found(folder: Path) -> None:
    (folder / "annotations.json").unlink()
    assert "missing" in verify(folder).problems[0]
    (folder / MANIFEST_NAME).write_text("{")
    assert "not JSON" in verify(folder).problems[0] or "quotes" in verify(folder).problems[0]


FAULTS = {
    "area": ({"area": 9}, "its area is 9, but the mask has 8 pixels"),
    "box": ({"bbox": [1, 2, 4, 4]}, "its bbox is [1, 2, 4, 4], but the mask's is [1, 2, 4, 2]"),
    "no area": ({"area": None}, "it has no area"),
    "no box": ({"bbox": None}, "it has no bbox"),
    "size": ({"segmentation": encode(MASK.T)}, "size is 8 x 6, but the image is 6 x 8"),
    "short": ({"segmentation": {"size": [6, 8], "counts": "11"}}, "counts stop short of the image"),
    "image": ({"image_id": 4}, "there is no image 4"),
    "category": ({"category_id": 4}, "there is no category 4"),
    "empty": ({"segmentation": encode(~MASK & MASK), "area": 0, "bbox": [0] * 4}, "its mask has no pixel"),
}


@pytest.mark.parametrize(("changes", "reason"), FAULTS.values(), ids=FAULTS.keys())
def test_a_fault_is_told_with_the_annotation_it_is_in(folder: Path, changes: Any, reason: str) -> None:
    report = verify(change(folder / "annotations.json", **changes))
    assert report.n_problems == 1 and not report.ok
    assert report.problems[0].startswith("annotations.json: annotation 1: " + reason)


def test_an_id_used_twice_is_found(folder: Path) -> None:
    report = verify(change(folder / "annotations.json", id=2))
    (problem,) = report.problems
    assert problem == "annotations.json: annotation 2: the id occurs twice; give every record its own"


def test_boxes_one_pixel_short_are_known_as_those_of_sa1b(folder: Path) -> None:
    path = change(folder / "annotations.json", bbox=bbox_sa1b(RLE))
    assert verify(path).ok and verify(path).bbox_convention == "mixed"
    content = json.loads(path.read_bytes())
    del content["annotations"][1]
    path.write_text(json.dumps(content))
    assert verify(path).bbox_convention == "sa1b"


def test_outlines_with_fractions_pass(folder: Path) -> None:
    outline = [[0.6, 1.7, 5.4, 1.7, 5.4, 4.2, 0.6, 4.2]]
    changes = {"segmentation": outline, "area": 12.0, "bbox": [0.6, 1.7, 4.8, 2.5]}
    assert verify(change(folder / "annotations.json", **changes)).ok


def test_only_the_first_problems_are_told_and_all_are_counted(folder: Path) -> None:
    path = folder / "annotations.json"
    content = json.loads(path.read_bytes())
    wrong = content["annotations"][0] | {"area": 1}
    content["annotations"] = [wrong | {"id": number} for number in range(MOST_PROBLEMS + 50)]
    path.write_text(json.dumps(content))
    report = verify(path)
    assert (len(report.problems), report.n_problems) == (MOST_PROBLEMS, MOST_PROBLEMS + 50)


NO_COCO = [b"", b"\x00" * 100, b"[]", b"{" * 50_000, b'{"annotations": 5}', b"\xff\xd8\xff"]


@pytest.mark.parametrize("content", NO_COCO)
def test_no_file_stops_it(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "x.json").write_bytes(content)
    (tmp_path / "folder.json").mkdir()
    report = verify(tmp_path)
    assert report.n_problems == 2 and "\n" not in "".join(report.problems)


def test_a_folder_without_coco_files_is_no_success(tmp_path: Path) -> None:
    assert not verify(tmp_path).ok
    with pytest.raises(NotFound, match="does not exist"):
        verify(tmp_path / "absent")


def test_real_masks_of_other_people_have_no_problem(shared: Path) -> None:
    report = verify(shared / "datasets" / "nuclei" / "annotations.json")
    assert report.ok and (report.n_images, report.n_annotations) == (200, 8204)
