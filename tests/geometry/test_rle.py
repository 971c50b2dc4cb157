"""Masks there and back, against pycocotools as the reference."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from pycocotools import mask as coco_mask

from engine.errors import BadInput
from engine.geometry import rle as rle_module
from engine.geometry.rle import (
    area,
    bbox_sa1b,
    bbox_xywh,
    decode,
    decode_by_pycocotools,
    encode,
    from_uncompressed,
    iou,
    merge,
    validate,
)

Mask = NDArray[np.bool_]


@st.composite
def masks(draw: st.DrawFn, hw: tuple[int, int] | None = None) -> Mask:
    """Noise, blobs with holes, single pixels, full and empty masks."""
    height, width = hw or (draw(st.integers(1, 40)), draw(st.integers(1, 40)))
    random = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    kind = draw(st.sampled_from(["noise", "ring", "pixel", "full", "empty"]))
    mask = np.zeros((height, width), bool)
    if kind == "noise":
        mask = random.random((height, width)) < draw(st.sampled_from([0.03, 0.5, 0.97]))
    elif kind == "ring":
        y, x = np.mgrid[:height, :width]
        distance = np.hypot(y - random.integers(height), x - random.integers(width))
        mask = (distance < max(height, width) / 2) & (distance > max(height, width) / 5)
    elif kind == "pixel":
        mask[random.integers(height), random.integers(width)] = True
    return ~mask if kind == "full" else mask


pairs = st.tuples(st.integers(1, 24), st.integers(1, 24)).flatmap(lambda hw: st.tuples(masks(hw), masks(hw)))


def reference(mask: Mask) -> dict[str, object]:
    encoded: dict[str, object] = coco_mask.encode(np.asfortranarray(mask, np.uint8))
    return encoded


@settings(max_examples=300, deadline=None)
@given(masks())
def test_a_mask_encodes_to_the_reference_string_and_comes_back(mask: Mask) -> None:
    encoded, expected = encode(mask), reference(mask)
    assert encoded == {"size": list(mask.shape), "counts": expected["counts"].decode()}
    assert np.array_equal(decode(encoded), mask) and decode(encoded).dtype == np.bool_
    assert np.array_equal(decode_by_pycocotools(encoded), mask)
    assert validate(encoded, mask.shape) == encoded


@settings(max_examples=150, deadline=None)
@given(masks())
def test_area_and_box_are_those_of_the_reference(mask: Mask) -> None:
    encoded, expected = encode(mask), reference(mask)
    assert area(encoded) == coco_mask.area(expected)
    assert list(bbox_xywh(encoded)) == coco_mask.toBbox(expected).tolist()
    x, y, width, height = bbox_xywh(encoded)
    assert bbox_sa1b(encoded) == (x, y, max(width - 1, 0), max(height - 1, 0))


@settings(max_examples=150, deadline=None)
@given(pairs)
def test_merge_and_iou_are_those_of_the_pixels(pair: tuple[Mask, Mask]) -> None:
    first, second = pair
    union = np.count_nonzero(first | second)
    assert merge([encode(first), encode(second)]) == encode(first | second)
    assert merge([encode(first), encode(second)], intersect=True) == encode(first & second)
    assert iou(encode(first), encode(second)) == (np.count_nonzero(first & second) / union if union else 1.0)


@settings(max_examples=100, deadline=None)
@given(masks())
def test_a_list_of_run_lengths_gives_the_same_mask(mask: Mask) -> None:
    counts = rle_module.runs_of(encode(mask)).tolist()
    assert validate({"size": list(mask.shape), "counts": counts}, mask.shape) == encode(mask)


@pytest.mark.parametrize("values", [np.uint8([[0, 2], [255, 1]]), np.float32([[0, 0.5], [-1, 3]])])
def test_every_value_but_zero_is_foreground(values: NDArray[np.generic]) -> None:
    assert encode(values) == encode(np.array([[False, True], [True, True]]))


@pytest.mark.parametrize("shape", [(0, 4), (4,), (1, 2, 3)])
def test_only_masks_of_two_filled_dimensions_are_encoded(shape: tuple[int, ...]) -> None:
    with pytest.raises(BadInput, match="two dimensions"):
        encode(np.zeros(shape, bool))


def test_a_valid_string_that_is_not_canonical_is_kept_byte_for_byte() -> None:
    with_empty_runs = from_uncompressed([2, 0, 3, 4, 0, 0, 7], (4, 4))
    kept = validate(with_empty_runs, (4, 4))
    assert kept == with_empty_runs
    assert np.array_equal(decode(kept), decode_by_pycocotools(kept))
    assert merge([kept]) == encode(decode(kept)) != kept
    assert bbox_xywh(kept) == bbox_xywh(encode(decode(kept)))


def test_bytes_of_pycocotools_are_accepted_and_become_text() -> None:
    mask = np.eye(5, dtype=bool)
    assert validate(reference(mask), (5, 5)) == encode(mask)


def test_a_mask_as_large_as_an_image_may_be_comes_back() -> None:
    mask = np.zeros((5000, 10_000), bool)
    mask[4999, 9999] = True
    encoded = encode(mask)
    assert validate(encoded, None) == encoded and area(encoded) == 1
    assert bbox_xywh(encoded) == (9999, 4999, 1, 1)


def test_masks_of_different_sizes_have_no_union() -> None:
    with pytest.raises(BadInput, match="different sizes"):
        merge([encode(np.ones((2, 3))), encode(np.ones((3, 2)))])
    with pytest.raises(BadInput, match="at least one"):
        merge([])
