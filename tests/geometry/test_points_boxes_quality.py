"""Clicks, boxes and scores of masks."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from engine.errors import BadInput
from engine.geometry.boxes import box_iou, clip_xyxy, xywh_to_xyxy, xyxy_to_xywh
from engine.geometry.points import error_point, interior_point
from engine.geometry.quality import connected_components, iou_masks, stability_score


def disc(hw: tuple[int, int], x: int, y: int, radius: float) -> np.ndarray:
    rows, columns = np.mgrid[: hw[0], : hw[1]]
    return (rows - y) ** 2 + (columns - x) ** 2 <= radius**2


def test_the_interior_point_of_a_disc_is_its_centre() -> None:
    assert interior_point(disc((60, 80), 50, 30, 12)) == (50, 30)


def test_the_interior_point_of_a_ring_lies_on_the_ring() -> None:
    ring = disc((60, 60), 30, 30, 20) & ~disc((60, 60), 30, 30, 10)
    x, y = interior_point(ring)
    assert ring[y, x]


def test_the_edge_of_the_image_counts_as_border() -> None:
    assert interior_point(np.ones((9, 21), bool)) == (4, 4)


def test_equal_depths_give_the_uppermost_leftmost_pixel() -> None:
    mask = np.zeros((20, 20), bool)
    mask[12, 3] = mask[2, 15] = mask[2, 9] = True
    assert interior_point(mask) == (9, 2)


def test_an_empty_mask_has_no_interior_point() -> None:
    with pytest.raises(BadInput, match="empty"):
        interior_point(np.zeros((4, 4), bool))


@settings(max_examples=100, deadline=None)
@given(st.integers(0, 2**32 - 1), st.sampled_from([0.05, 0.5, 0.95]))
def test_an_error_point_lies_in_the_error_with_the_label_of_the_truth(seed: int, share: float) -> None:
    random = np.random.default_rng(seed)
    truth, prediction = random.random((2, 17, 23)) < share
    found = error_point(truth, prediction)
    if found is None:
        assert np.array_equal(truth, prediction)
        return
    x, y, label = found
    assert truth[y, x] == bool(label) != prediction[y, x]
    assert error_point(truth, prediction) == found


def test_the_larger_error_is_corrected_first() -> None:
    truth, prediction = disc((64, 64), 15, 15, 5), disc((64, 64), 45, 45, 9)
    assert error_point(truth, prediction) == (45, 45, 0)
    assert error_point(prediction, truth) == (45, 45, 1)
    assert error_point(truth, truth) is None


def test_at_equal_depth_missed_foreground_goes_first() -> None:
    truth, prediction = disc((64, 64), 45, 45, 5), disc((64, 64), 15, 15, 5)
    assert error_point(truth, prediction) == (45, 45, 1)


def test_boxes_go_there_and_back() -> None:
    boxes = np.array([[1.0, 2, 3, 4], [0, 0, 10, 5]])
    assert xywh_to_xyxy(boxes).tolist() == [[1, 2, 4, 6], [0, 0, 10, 5]]
    assert xyxy_to_xywh(xywh_to_xyxy(boxes)).tolist() == boxes.tolist()
    assert clip_xyxy(np.array([-3, 2, 50, 9]), (8, 20)).tolist() == [0, 2, 20, 8]


def test_box_iou_is_the_ratio_of_areas_and_zero_without_area() -> None:
    boxes = np.array([[0.0, 0, 4, 4], [2, 2, 6, 6], [9, 9, 9, 9]])
    ious = box_iou(boxes, boxes)
    assert ious.shape == (3, 3) and np.allclose(np.diag(ious), [1, 1, 0])
    assert ious[0, 1] == pytest.approx(4 / 28)


def test_equal_masks_have_iou_one_also_when_empty() -> None:
    first, second = disc((30, 30), 10, 10, 5), disc((30, 30), 12, 10, 5)
    assert iou_masks(first, first) == iou_masks(first & False, first & False) == 1.0
    assert iou_masks(first, second) == (first & second).sum() / (first | second).sum()


def test_stability_is_the_iou_of_two_cuts_and_zero_without_a_mask() -> None:
    logits = np.array([[[-2.0, -0.5, 0.5, 2.0]], [[-5, -5, -5, -5]], [[9, 9, 9, 9]]])
    assert stability_score(logits).tolist() == [1 / 3, 0, 1]
    assert float(stability_score(logits[0], offset=0.25)) == 1.0


def test_regions_that_touch_at_a_corner_are_one() -> None:
    mask = np.zeros((6, 6), bool)
    mask[0, 0] = mask[1, 1] = mask[4, 4] = True
    labels, areas = connected_components(mask)
    assert areas.tolist() == [2, 1] and labels[0, 0] == labels[1, 1] != labels[4, 4]
