"""The threshold's promise: of what is prefilled no more than the stated share is false."""

import numpy as np
import pytest

from engine.errors import BadInput
from engine.training.detector_targets import DetectorSample
from engine.training.detector_threshold import (
    ScoredBoxes,
    choose_threshold,
    cross_fitted,
    false_share,
    falseness_of,
)


def scored_of(scores: np.ndarray, is_match: np.ndarray) -> ScoredBoxes:
    return ScoredBoxes(scores, np.where(is_match, 0.0, 1.0), np.zeros(len(scores), np.int64))


def test_the_threshold_is_the_lowest_that_keeps_the_rate() -> None:
    scores = np.linspace(1, 0, 200)
    is_match = np.arange(200) < 100
    scored = scored_of(scores, is_match)
    threshold = choose_threshold(scored, 0.2)
    assert threshold == pytest.approx(scores[124])  # 25 of 125 are false
    told = scores >= threshold
    assert (~is_match[told]).mean() == 0.2
    assert choose_threshold(scored, 0.0) == pytest.approx(scores[99])
    assert choose_threshold(scored, 0.5) == scores[-1]


def test_a_few_lucky_boxes_set_no_threshold() -> None:
    scored = scored_of(np.linspace(1, 0, 200), np.arange(200) < 12)
    assert choose_threshold(scored, 0.3) is None
    assert choose_threshold(scored, 0.3, min_count=10) is not None
    assert choose_threshold(scored_of(np.zeros(0), np.zeros(0, np.bool_)), 0.3) is None


def test_equal_scores_are_told_together() -> None:
    scores = np.repeat([0.9, 0.5], 60)
    matches = np.concatenate([np.ones(60, np.bool_), np.ones(30, np.bool_), np.zeros(30, np.bool_)])
    assert choose_threshold(scored_of(scores, matches), 0.1) == 0.9


@pytest.mark.parametrize("rate", [-0.1, 1.0])
def test_an_impossible_rate_is_refused(rate: float) -> None:
    with pytest.raises(BadInput, match="between 0 and 1"):
        choose_threshold(scored_of(np.zeros(0), np.zeros(0, np.bool_)), rate)


def test_what_was_refused_is_false_and_what_nobody_drew_in_part() -> None:
    boxes = np.array([[0, 0, 10, 10], [20, 0, 30, 10], [40, 0, 50, 10]], float)
    truth, refused = boxes[:1], boxes[1:2]
    for complete, expected in ((False, [0.0, 1.0, 0.25]), (True, [0.0, 1.0, 1.0])):
        sample = DetectorSample(np.zeros((1, 1, 1)), (60, 60), truth, refused, complete)
        found = falseness_of(boxes, np.array([0.9, 0.8, 0.7]), sample, 0.25)
        assert found.tolist() == expected
    # The wheel of a car that was drawn whole, and a box around the car and half the street.
    parts = np.array([[2, 2, 6, 6], [0, 0, 18, 10]], float)
    sample = DetectorSample(np.zeros((1, 1, 1)), (60, 60), truth, truth[:0], False)
    assert falseness_of(parts, np.array([0.9, 0.8]), sample, 0.25).tolist() == [1.0, 0.0]
    assert falseness_of(parts * [1, 1, 2, 1], np.array([0.9, 0.8]), sample, 0.25).tolist() == [1.0, 1.0]
    nothing = DetectorSample(np.zeros((1, 1, 1)), (60, 60), np.zeros((0, 4)), np.zeros((0, 4)), False)
    assert falseness_of(np.zeros((0, 4)), np.zeros(0), nothing, 0.25).tolist() == []


def test_a_half_is_measured_with_the_other_halfs_threshold() -> None:
    # Image 0: right above 0.5, false below. Image 1: right above 0.8 only.
    scores = np.linspace(1, 0, 101)
    both = ScoredBoxes(
        np.concatenate([scores, scores]),
        np.concatenate([np.where(scores >= 0.5, 0.0, 1.0), np.where(scores >= 0.8, 0.0, 1.0)]),
        np.repeat([0, 1], 101),
    )
    halves = np.array([True, False])
    thresholds = cross_fitted(both, halves, 0.0)
    assert thresholds is not None and thresholds.tolist() == pytest.approx([0.8, 0.5])
    # Of 21 boxes of image 0 none is false; of 51 of image 1 there are 30.
    assert false_share(both, thresholds) == pytest.approx(30 / 72)
    assert false_share(both, np.array([2.0, 2.0])) is None


def test_a_half_without_enough_boxes_is_not_crossed() -> None:
    few = ScoredBoxes(np.linspace(1, 0, 30), np.zeros(30), np.repeat([0, 1], [25, 5]))
    assert choose_threshold(few, 0.2) == 0.0
    assert cross_fitted(few, np.array([True, False]), 0.2) is None
