"""What annotators have in mind, and in which order they see it."""

import numpy as np
import pytest

from engine.errors import NotFound
from engine.geometry.rle import Rle, area, encode
from engine.simulation.truth import Truth, by_prominence, draw_masks


def square(x: int, y: int, side: int) -> Rle:
    mask = np.zeros((60, 80), bool)
    mask[y : y + side, x : x + side] = True
    return encode(mask)


def test_truth_is_found_by_whole_name_or_by_its_last_part() -> None:
    truth = Truth({"a.png": [square(0, 0, 4)], "deep/b.png": [square(0, 0, 5)]})
    assert truth.of("folder/a.png") == truth.of("a.png") == [square(0, 0, 4)]
    assert truth.of("deep/b.png") == [square(0, 0, 5)]
    assert truth.of("c.png") == ()


def test_a_truth_file_of_other_pictures_is_refused() -> None:
    with pytest.raises(NotFound, match="names no picture"):
        Truth({"a.png": [square(0, 0, 4)]}).check_covers({1: "z.png"})


def test_what_is_large_and_stands_out_comes_first() -> None:
    pixels = np.full((60, 80, 3), 100, np.uint8)
    pixels[5:25, 5:25] = 130  # large and faint
    pixels[5:25, 40:60] = 250  # large and bright
    pixels[40:46, 10:16] = 250  # small and bright
    assert by_prominence(pixels, [square(10, 40, 6), square(5, 5, 20), square(40, 5, 20)]) == [2, 1, 0]


def test_a_mask_that_fills_the_picture_has_no_contrast() -> None:
    pixels = np.zeros((60, 80, 3), np.uint8)
    assert by_prominence(pixels, [encode(np.ones((60, 80), bool)), square(3, 3, 9)]) == [0, 1]


def test_measured_masks_depend_on_the_seed_only_and_are_large_enough() -> None:
    truth = Truth({f"{n}.png": [square(k, k, 4 + k) for k in range(20)] for n in range(5)})
    names = {n + 1: f"{n}.png" for n in range(4)}
    first = draw_masks(truth, names, n_masks=30, min_area_px=64, seed=1)
    assert first == draw_masks(truth, names, n_masks=30, min_area_px=64, seed=1)
    assert first != draw_masks(truth, names, n_masks=30, min_area_px=64, seed=2)
    assert sum(map(len, first.values())) == 30
    assert set(first) <= set(names)
    assert all(area(rle) >= 64 for rles in first.values() for rle in rles)
    assert sum(map(len, draw_masks(truth, names, n_masks=999, min_area_px=64, seed=1).values())) == 4 * 16


def test_without_masks_nothing_is_measured() -> None:
    assert draw_masks(Truth({}), {1: "a.png"}, n_masks=5, min_area_px=64, seed=0) == {}
