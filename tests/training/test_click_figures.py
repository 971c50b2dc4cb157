"""Figures of an evaluation: intervals resample pictures, sizes are COCO's."""

import numpy as np
import pytest

from engine.training.click_figures import Resampling, by_size, gains, with_interval
from engine.training.evaluate import ClickScores


def scores_of(ious: np.ndarray, area_px: list[int], pictures: list[int]) -> ClickScores:
    """Scores of masks whose IoU at each click is given, counted to 0.9."""
    reached = ious >= 0.9
    clicks = np.where(reached.any(1), reached.argmax(1) + 1, ious.shape[1])
    index = np.arange(len(ious))
    return ClickScores(ious.astype(np.float32), clicks, np.array(area_px), np.array(pictures), index, 0.9)


def test_pictures_are_resampled_and_not_masks() -> None:
    """Twenty equal masks on each of two pictures say as much of the spread as one on each."""
    values, pictures = np.array([0.0, 1.0]), np.array([3, 7])
    few = with_interval(values, pictures, Resampling(seed=1))
    many = with_interval(values.repeat(20), pictures.repeat(20), Resampling(seed=1))
    assert few == pytest.approx(many) and (few["mean"], few["low"], few["high"]) == (0.5, 0.0, 1.0)


def test_an_interval_covers_the_truth_about_as_often_as_it_says() -> None:
    rng = np.random.default_rng(0)
    n_covered = 0
    for seed in range(200):
        found = with_interval(rng.normal(0.5, 0.1, 40), np.arange(40), Resampling(300, seed))
        n_covered += found["low"] <= 0.5 <= found["high"]
    assert 0.88 <= n_covered / 200 <= 0.99


def test_one_picture_has_no_interval_and_none_no_mean() -> None:
    alone = with_interval(np.array([0.2, 0.4]), np.array([5, 5]), Resampling())
    assert alone == {"mean": pytest.approx(0.3), "low": None, "high": None}
    assert set(with_interval(np.zeros(0), np.zeros(0, np.int64), Resampling()).values()) == {None}


def test_masks_are_told_apart_by_cocos_sizes() -> None:
    ious = np.array([[0.5, 0.95], [0.9, 0.9], [0.1, 0.2]])
    found = by_size(scores_of(ious, [1023, 1024, 96**2], [0, 1, 2]), (1, 2), (0.85, 0.9), 2, Resampling(100))
    assert [found[size]["masks"] for size in ("all", "small", "medium", "large")] == [3, 1, 1, 1]
    assert found["small"]["miou"]["2"]["mean"] == pytest.approx(0.95)
    # 2, 1 and never, which counts the cap.
    assert found["all"]["noc"]["0.85"]["mean"] == pytest.approx(5 / 3)
    assert found["all"]["reached"]["0.90"] == pytest.approx(2 / 3)
    assert found["all"]["oracle_miou"] is None and found["all"]["unreachable"] is None


def test_a_gain_is_of_the_same_masks() -> None:
    first = scores_of(np.array([[0.1], [0.9]]), [100, 100], [0, 1])
    second = scores_of(np.array([[0.2], [1.0]]), [100, 100], [0, 1])
    found = gains(second, first, (1,), Resampling(200))["1"]
    # Each is better by a tenth, however unlike they are.
    assert [found[key] for key in ("mean", "low", "high")] == pytest.approx([0.1, 0.1, 0.1])
