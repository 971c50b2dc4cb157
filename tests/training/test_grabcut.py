"""GrabCut with clicks: what it finds, what a correction changes, and that equal clicks give equal masks."""

import numpy as np
import pytest
from numpy.typing import NDArray

from engine.training.dataset import Sample
from engine.training.evaluate import evaluate_clicks, iou
from engine.training.grabcut import GrabCutBackend, best_grab_cut, grab_cut, is_installed

pytestmark = pytest.mark.skipif(not is_installed(), reason="OpenCV is not installed: maskloop[grabcut]")


def picture() -> tuple[NDArray[np.uint8], NDArray[np.bool_]]:
    """A bright disc beside another one on a dark, noisy ground; the mask of the first."""
    ys, xs = np.ogrid[:90, :120]
    first, second = ((ys - 45) ** 2 + (xs - x) ** 2 <= 18**2 for x in (40, 74))
    image = np.random.default_rng(0).integers(20, 60, (90, 120, 3))
    image[first | second] += 150
    return image.astype(np.uint8), np.asarray(first)


CLICK, POSITIVE = np.array([[40, 45]]), np.ones(1, np.int64)


def test_one_click_finds_what_stands_out_in_its_window() -> None:
    image, truth = picture()
    found = grab_cut(image, CLICK, POSITIVE, 24)
    assert iou(found, truth) > 0.8
    assert np.array_equal(found, grab_cut(image, CLICK, POSITIVE, 24))


def test_a_click_outside_the_window_widens_it_and_a_negative_one_is_never_mask() -> None:
    image, _ = picture()
    clicks = np.array([[40, 45], [110, 45]])
    wide = grab_cut(image, clicks, np.array([1, 1]), 16)
    assert wide[45, 40] and wide[45, 110]
    without = grab_cut(image, clicks, np.array([1, 0]), 16)
    assert without[45, 40] and not without[45, 110]


def test_clicks_at_the_border_stay_inside_the_picture() -> None:
    image, _ = picture()
    found = grab_cut(image, np.array([[0, 0], [119, 89]]), np.array([1, 0]), 16)
    assert found.shape == (90, 120) and found[0, 0]


def test_it_follows_the_protocol_as_a_model_does() -> None:
    image, truth = picture()
    sample = Sample(image, [truth])
    best = best_grab_cut([sample])
    assert best == GrabCutBackend(best.radius_px)
    scores = evaluate_clicks(best, [sample], n_clicks=(1, 3), cap=3)
    assert scores.ious.shape == (1, 3) and scores.mean_iou(3) > 0.8
