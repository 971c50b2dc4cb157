"""Every mask known to kill pycocotools, and its relatives, is refused by our own code before C sees it."""

import sys

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from engine.errors import BadInput
from engine.geometry.polygons import MAX_VERTICES, polygon_to_rle
from engine.geometry.rle import area, bbox_xywh, decode, decode_by_pycocotools, encode, iou, merge, validate
from engine.geometry.runs import format_runs, parse_runs

HW = (64, 64)


def written(*runs: int) -> str:
    return format_runs(np.array(runs, np.int64))


# The rows of the table measured on pycocotools 2.0.11, then their neighbours: (segmentation, reason).
HOSTILE = {
    "size of no height": ({"size": [0, 64], "counts": written(0)}, "each side lies between"),
    "more runs than pixels": ({"size": [64, 64], "counts": "1" * 5000}, "run past|negative"),
    "empty counts": ({"size": [64, 64], "counts": ""}, "empty"),
    "empty list": ({"size": [64, 64], "counts": []}, "0 runs"),
    "list of 0 and 2^32-1": ({"size": [64, 64], "counts": [0, 2**32 - 1] * 100}, "lies between 0 and"),
    "size of 2^31-1 squared": ({"size": [2**31 - 1] * 2, "counts": written(5)}, "each side lies between"),
    "more pixels than allowed": ({"size": [32_768, 32_768], "counts": written(2**28)}, "pixels allowed"),
    "runs that stop short": ({"size": [64, 64], "counts": written(10, 5)}, "stop short"),
    "runs that go past": ({"size": [64, 64], "counts": written(4000, 200)}, "run past"),
    "one pixel too many": ({"size": [64, 64], "counts": written(0, 4097)}, "run past"),
    "list that stops short": ({"size": [64, 64], "counts": [10, 5]}, "stop short"),
    "list that goes past": ({"size": [64, 64], "counts": [4000, 200]}, "run past"),
    "continuation at the end": ({"size": [64, 64], "counts": written(4090, 6) + "P"}, "cut off"),
    "nothing but continuations": ({"size": [64, 64], "counts": "o" * 100}, "cut off"),
    "a run of seven characters": ({"size": [64, 64], "counts": "PPPPPP0" + written(4096)}, "characters"),
    "a run of twenty characters": ({"size": [64, 64], "counts": "o" * 20 + "0"}, "characters"),
    "a negative run": ({"size": [64, 64], "counts": "O" + written(4096)}, "negative"),
    "a character below the alphabet": ({"size": [64, 64], "counts": "00 0"}, "position 2"),
    "a character above the alphabet": ({"size": [64, 64], "counts": "00p0"}, "position 2"),
    "a null character": ({"size": [64, 64], "counts": "0\0"}, "position 1"),
    "characters outside ASCII": ({"size": [64, 64], "counts": "0é"}, "ASCII"),
    "a lone surrogate": ({"size": [64, 64], "counts": "\ud800"}, "ASCII"),
    "bytes outside ASCII": ({"size": [64, 64], "counts": b"\xff\xfe"}, "ASCII"),
    "a string for too many runs": ({"size": [64, 64], "counts": "0" * 1_300_000}, "more than"),
    "too many runs in few characters": ({"size": [64, 64], "counts": "0" * 250_000}, "runs"),
    "a list of too many runs": ({"size": [64, 64], "counts": [0] * 250_000}, "runs"),
    "a fraction in the list": ({"size": [64, 64], "counts": [4095.5, 0.5]}, "whole"),
    "a truth value in the list": ({"size": [64, 64], "counts": [True, 4095]}, "whole"),
    "text in the list": ({"size": [64, 64], "counts": ["4096"]}, "whole"),
    "a negative number in the list": ({"size": [64, 64], "counts": [-1, 4097]}, "lies between 0 and"),
    "a huge number in the list": ({"size": [64, 64], "counts": [10**400]}, "lies between 0 and"),
    "counts that are a number": ({"size": [64, 64], "counts": 7}, "counts is int"),
    "counts that are null": ({"size": [64, 64], "counts": None}, "counts is NoneType"),
    "size of text": ({"size": ["64", "64"], "counts": written(4096)}, "two whole numbers"),
    "size of fractions": ({"size": [64.0, 64.0], "counts": written(4096)}, "two whole numbers"),
    "size of truth values": ({"size": [True, True], "counts": written(1)}, "two whole numbers"),
    "size of three": ({"size": [64, 64, 1], "counts": written(4096)}, "two whole numbers"),
    "size that is null": ({"size": None, "counts": written(4096)}, "two whole numbers"),
    "a negative size": ({"size": [-64, -64], "counts": written(4096)}, "each side lies between"),
    "the size of another image": ({"size": [32, 128], "counts": written(4096)}, "but the image is 64 x 64"),
    "no counts": ({"size": [64, 64]}, "segmentation is"),
    "no size": ({"counts": written(4096)}, "segmentation is"),
    "no object": ([[1, 2, 3]], "segmentation is"),
    "nothing": (None, "segmentation is"),
}


@pytest.mark.parametrize(("segmentation", "reason"), HOSTILE.values(), ids=HOSTILE.keys())
def test_a_hostile_mask_is_refused_with_its_reason(segmentation: object, reason: str) -> None:
    with pytest.raises(BadInput, match=reason):
        validate(segmentation, HW)


READERS = [
    decode,
    decode_by_pycocotools,
    area,
    bbox_xywh,
    lambda rle: iou(rle, rle),
    lambda rle: merge([rle]),
]


@pytest.mark.parametrize("read", READERS)
def test_every_reader_checks_again_what_it_is_given(read: object) -> None:
    for counts in ("", "o", "0", "1" * 5000, written(10, 5), written(0, 4097)):
        with pytest.raises(BadInput):
            read({"size": [64, 64], "counts": counts})
    with pytest.raises(BadInput):
        read({"size": [0, 64], "counts": written(0)})


@settings(max_examples=400, deadline=None)
@given(st.text("/0123456789:@NOPQ_`lmnop", min_size=1, max_size=12))
def test_what_the_validator_accepts_decodes_equally_in_c(counts: str) -> None:
    try:
        n_pixels = int(parse_runs(counts).sum())
        rle = validate({"size": [n_pixels, 1], "counts": counts}, (n_pixels, 1))
    except BadInput:
        return
    assert np.array_equal(decode(rle), decode_by_pycocotools(rle))


@settings(max_examples=200, deadline=None)
@given(st.lists(st.integers(0, 9), min_size=1, max_size=9))
def test_any_runs_that_fill_the_image_are_accepted(runs: list[int]) -> None:
    height = max(sum(runs), 1)
    runs = runs if sum(runs) else [1]
    rle = validate({"size": [height, 1], "counts": written(*runs)}, None)
    assert area(rle) == sum(runs[1::2]) == np.count_nonzero(decode_by_pycocotools(rle))


POLYGONS = {
    "coordinate of 2e7": ([[0.0, 0.0, 2e7, 0.0, 5.0, 5.0]], "leaves the image"),
    "infinite": ([[0.0, 0.0, float("inf"), 0.0, 5.0, 5.0]], "finite"),
    "not a number": ([[0.0, 0.0, float("nan"), 0.0, 5.0, 5.0]], "finite"),
    "a number beyond floats": ([[0, 0, 10**400, 0, 5, 5]], "finite"),
    "text": ([["0", "0", "9", "0", "5", "5"]], "finite"),
    "truth values": ([[True, False, True, True, False, False]], "finite"),
    "two corners": ([[0, 0, 5, 5]], "three corners"),
    "half a corner": ([[0, 0, 5, 5, 9, 0, 7]], "three corners"),
    "a box instead of outlines": ([0, 0, 5, 5], "three corners"),
    "nothing": ([], "at least one"),
    "a number": (7, "at least one"),
    "too many corners": ([[1, 1] * (MAX_VERTICES + 1)], "corners"),
    "too many corners together": ([[1, 1] * 60_000] * 2, "corners"),
    "an outline without end": ([[0, 0, 64, 64] * 10_000 + [1, 1]], "outlines are longer"),
}


@pytest.mark.parametrize(("polygons", "reason"), POLYGONS.values(), ids=POLYGONS.keys())
def test_a_hostile_polygon_is_refused_with_its_reason(polygons: object, reason: str) -> None:
    with pytest.raises(BadInput, match=reason):
        polygon_to_rle(polygons, HW)


@pytest.mark.parametrize("hw", [(0, 64), (2**31 - 1, 2**31 - 1)])
def test_a_polygon_needs_an_image_of_possible_size(hw: tuple[int, int]) -> None:
    with pytest.raises(BadInput, match="each side"):
        polygon_to_rle([[0, 0, 5, 0, 5, 5]], hw)


def test_refusing_a_long_string_takes_no_memory_worth_naming() -> None:
    with pytest.raises(BadInput) as refusal:
        validate({"size": [64, 64], "counts": "1" * 50_000_000}, HW)
    assert sys.getsizeof(str(refusal.value)) < 500


def test_a_mask_of_noise_passes_while_it_has_fewer_runs_than_allowed() -> None:
    noise = np.indices((300, 300)).sum(0) % 2 == 0
    assert validate(encode(noise), (300, 300))["size"] == [300, 300]
    with pytest.raises(BadInput, match="simplify"):
        validate(encode(noise), (300, 300), max_runs=50_000)
