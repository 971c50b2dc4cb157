"""Each step after the decoder against what the official code computed on the same masks (parity README)."""

import json
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from engine.geometry.crops import crop_boxes, point_grid
from engine.geometry.quality import stability_score
from engine.geometry.regions import (
    Region,
    clean_runs,
    drop_small_islands,
    fill_small_holes,
    region_runs,
)
from engine.geometry.rle import bbox_of_runs
from engine.geometry.runs import format_runs, mask_to_runs, runs_to_mask

HW = (180, 220)
MIN_AREA_PX = 150


@dataclass(frozen=True)
class Official:
    """The stored answers; `masks` (24, 180, 220) are its logits above 0."""

    arrays: dict[str, NDArray]
    lists: dict

    @property
    def masks(self) -> NDArray[np.bool_]:
        return self.arrays["logits"] > 0

    def cleaned(self, mode: str) -> tuple[NDArray[np.bool_], NDArray[np.bool_]]:
        packed = self.arrays[f"{mode}{MIN_AREA_PX}.masks"]
        masks = np.unpackbits(packed)[: self.masks.size].reshape(self.masks.shape).astype(bool)
        return masks, self.arrays[f"{mode}{MIN_AREA_PX}.changed"]


@pytest.fixture(scope="module")
def official(shared: Path) -> Official:
    with np.load(shared / "parity" / "postprocess.npz") as stored:
        arrays = {key: stored[key] for key in stored.files}
    return Official(arrays, json.loads((shared / "parity" / "postprocess.json").read_text()))


def regions(masks: NDArray[np.bool_]) -> list[Region]:
    """Each mask by its own box, the empty one by the image's corner."""
    boxes = [bbox_of_runs(mask_to_runs(mask), HW[0]) for mask in masks]
    return [
        Region(np.ascontiguousarray(mask[y : y + height, x : x + width].T), x, y)
        for mask, (x, y, width, height) in zip(masks, boxes, strict=True)
    ]


def test_stability_scores_are_the_official_ones_and_zero_for_the_empty_mask(official: Official) -> None:
    theirs = np.nan_to_num(official.arrays["stability_offset1"], nan=0.0)
    assert np.abs(stability_score(official.arrays["logits"]) - theirs).max() < 1e-6


def test_boxes_are_the_official_inclusive_corners(official: Official) -> None:
    ours = [region.box_xyxy() for region in regions(official.masks)]
    assert np.array_equal(ours, official.arrays["boxes"])


def test_runs_and_strings_of_regions_are_the_official_ones(official: Official) -> None:
    ours = [region_runs(region, HW) for region in regions(official.masks)]
    assert [runs.tolist() for runs in ours] == [rle["counts"] for rle in official.lists["uncompressed_rle"]]
    assert [format_runs(runs) for runs in ours] == [rle["counts"] for rle in official.lists["coco_rle"]]


@pytest.mark.parametrize("mode", ["holes", "islands"])
def test_small_holes_and_islands_go_as_in_the_official_code(official: Official, mode: str) -> None:
    remove = {"holes": fill_small_holes, "islands": drop_small_islands}[mode]
    for mask, wanted, changed in zip(official.masks, *official.cleaned(mode), strict=True):
        ours, ours_changed = remove(mask, MIN_AREA_PX)
        assert ours_changed == changed and np.array_equal(ours, wanted)


def test_cleaning_a_region_equals_cleaning_the_whole_image(official: Official) -> None:
    for mask in official.masks:
        filled, was_filled = fill_small_holes(mask, MIN_AREA_PX)
        wanted, was_dropped = drop_small_islands(filled, MIN_AREA_PX)
        runs, changed = clean_runs(mask_to_runs(mask), HW, MIN_AREA_PX)
        assert changed == (was_filled or was_dropped)
        assert np.array_equal(runs_to_mask(runs, HW), wanted)


def test_crop_boxes_are_the_official_ones(official: Official) -> None:
    for key, wanted in official.lists["crop_boxes_xyxy"].items():
        size, n_layers = key.split(":layers")
        height, width = map(int, size.split("x"))
        crops = crop_boxes((height, width), int(n_layers), 512 / 1500)
        assert [box for box, _ in crops] == wanted
        assert [layer for _, layer in crops] == sorted(layer for _, layer in crops)


def test_the_point_grid_is_the_official_one(official: Official) -> None:
    assert np.allclose(point_grid(4), official.lists["point_grid_4"], atol=1e-12)
