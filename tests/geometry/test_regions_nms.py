"""Masks by their own rectangle equal masks by their image; suppression equals its definition."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from engine.errors import BadInput
from engine.geometry.boxes import box_iou
from engine.geometry.crops import crop_boxes, layer_point_grids, touches_inner_crop_edge
from engine.geometry.nms import nms
from engine.geometry.regions import (
    Region,
    clean_runs,
    drop_small_islands,
    fill_small_holes,
    region_runs,
    runs_region,
)
from engine.geometry.runs import mask_to_runs, runs_to_mask

SIDES = st.integers(1, 30)


def speckled(hw: tuple[int, int], seed: int) -> NDArray[np.bool_]:
    """A rectangle somewhere in the image, with holes in it and islands around it."""
    random = np.random.default_rng(seed)
    rows, columns = (np.sort(random.integers(0, side + 1, 2)) for side in hw)
    mask = np.zeros(hw, bool)
    mask[rows[0] : rows[1], columns[0] : columns[1]] = True
    return mask ^ (random.random(hw) < random.choice([0.0, 0.03, 0.3]))


@settings(max_examples=200, deadline=None)
@given(SIDES, SIDES, st.integers(0, 2**32 - 1))
def test_any_rectangle_around_a_mask_has_the_masks_runs(height: int, width: int, seed: int) -> None:
    random, mask = np.random.default_rng(seed), speckled((height, width), seed)
    y0, x0 = int(random.integers(0, height)), int(random.integers(0, width))
    mask[:y0], mask[:, :x0] = False, False
    region = Region(np.ascontiguousarray(mask[y0:, x0:].T), x0, y0)
    runs = region_runs(region, (height, width))
    assert np.array_equal(runs, mask_to_runs(mask))
    again = runs_region(runs, (height, width), (x0, y0, width, height))
    assert np.array_equal(again.columns, region.columns)
    assert region.area == mask.sum()


@settings(max_examples=300, deadline=None)
@given(SIDES, SIDES, st.integers(1, 60), st.booleans(), st.integers(0, 2**32 - 1))
def test_cleaning_by_region_equals_cleaning_the_whole_image(
    height: int, width: int, min_area: int, keep_largest: bool, seed: int
) -> None:
    mask = speckled((height, width), seed)
    filled, was_filled = fill_small_holes(mask, min_area)
    wanted, was_dropped = drop_small_islands(filled, min_area, keep_largest=keep_largest)
    runs, changed = clean_runs(mask_to_runs(mask), mask.shape, min_area, keep_largest=keep_largest)
    assert changed == (was_filled or was_dropped)
    assert np.array_equal(runs_to_mask(runs, mask.shape), wanted)


def test_a_mask_of_specks_keeps_the_largest_or_nothing() -> None:
    mask = np.zeros((20, 20), bool)
    mask[2:4, 2:4] = mask[10:13, 10:13] = True
    kept, changed = drop_small_islands(mask, 50)
    assert changed and kept.sum() == 9 and kept[11, 11]
    assert not drop_small_islands(mask, 50, keep_largest=False)[0].any()


def by_definition(boxes: NDArray[np.float64], scores: NDArray[np.float64], threshold: float) -> list[int]:
    kept: list[int] = []
    for index in sorted(range(len(boxes)), key=lambda place: (-scores[place], place)):
        if not (box_iou(boxes[[index]], boxes[kept]) > threshold).any():
            kept.append(index)
    return kept


@settings(max_examples=200, deadline=None)
@given(st.integers(0, 40), st.sampled_from([0.0, 0.33, 0.7, 1.0]), st.integers(0, 2**32 - 1))
def test_suppression_is_greedy_and_stable(n_boxes: int, threshold: float, seed: int) -> None:
    random = np.random.default_rng(seed)
    corners = np.sort(random.integers(0, 12, (n_boxes, 2, 2)), axis=1)
    boxes, scores = corners.reshape(-1, 4), random.integers(0, 4, n_boxes) / 4
    assert nms(boxes, scores, threshold).tolist() == by_definition(boxes, scores, threshold)


def test_boxes_without_area_suppress_nothing() -> None:
    assert nms(np.array([[3, 3, 3, 3], [3, 3, 3, 3]]), np.array([0.5, 0.9]), 0.7).tolist() == [1, 0]


@settings(max_examples=100, deadline=None)
@given(st.tuples(st.integers(1, 400), st.integers(1, 400)), st.integers(0, 4), st.floats(0, 0.99))
def test_crops_lie_in_the_image_and_every_layer_covers_it(
    hw: tuple[int, int], n_layers: int, overlap_ratio: float
) -> None:
    crops = crop_boxes(hw, n_layers, overlap_ratio)
    for layer in range(n_layers + 1):
        covered = np.zeros(hw, bool)
        for x0, y0, x1, y1 in (box for box, at in crops if at == layer):
            assert 0 <= x0 < x1 <= hw[1] and 0 <= y0 < y1 <= hw[0]
            covered[y0:y1, x0:x1] = True
        assert covered.all()


def test_only_inner_crop_borders_count_as_edges() -> None:
    hw, crop = (100, 200), [0, 0, 120, 100]
    assert not touches_inner_crop_edge(np.array([0, 0, 50, 99]), crop, hw)
    assert touches_inner_crop_edge(np.array([60, 40, 100, 60]), crop, hw)
    assert not touches_inner_crop_edge(np.array([60, 40, 99, 60]), crop, hw)


def test_a_layer_without_points_is_refused() -> None:
    assert [len(grid) for grid in layer_point_grids(32, 2, 2)] == [1024, 256, 64]
    with pytest.raises(BadInput, match="raise points_per_side"):
        layer_point_grids(3, 2, 2)
