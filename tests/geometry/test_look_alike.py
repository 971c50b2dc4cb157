"""Copies of a picture fall into one group, other pictures do not."""

import io

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image as Picture
from scipy import ndimage

from engine.geometry.look_alike import LookAlikes, difference_hash


def scene(seed: int, height: int = 120, width: int = 160) -> NDArray[np.uint8]:
    noise = ndimage.gaussian_filter(np.random.default_rng(seed).normal(size=(height, width, 3)), (9, 9, 0))
    return ((noise - noise.min()) / np.ptp(noise) * 255).astype(np.uint8)


def as_jpeg(pixels: NDArray[np.uint8], quality: int) -> NDArray[np.uint8]:
    buffer = io.BytesIO()
    Picture.fromarray(pixels).save(buffer, "JPEG", quality=quality)
    return np.asarray(Picture.open(buffer).convert("RGB"))


def smaller(pixels: NDArray[np.uint8]) -> NDArray[np.uint8]:
    return np.asarray(Picture.fromarray(pixels).resize((pixels.shape[1] // 2, pixels.shape[0] // 2)))


def brighter(pixels: NDArray[np.uint8]) -> NDArray[np.uint8]:
    return np.asarray((pixels * 0.8 + 40).astype(np.uint8))


@pytest.mark.parametrize("seed", range(8))
def test_reencoded_resized_and_brightened_copies_join_their_picture(seed: int) -> None:
    groups, original = LookAlikes(), difference_hash(scene(seed))
    groups.add(original)
    for copy in (as_jpeg(scene(seed), 40), smaller(scene(seed)), brighter(scene(seed))):
        assert groups.group_of(difference_hash(copy)) == original


def test_other_pictures_and_mirrored_ones_are_groups_of_their_own() -> None:
    groups = LookAlikes()
    pictures = [scene(seed) for seed in range(100)] + [scene(seed)[:, ::-1] for seed in range(100)]
    for pixels in pictures:
        own = difference_hash(pixels)
        assert groups.group_of(own) == own
        groups.add(own)
    assert all(groups.group_of(difference_hash(pixels)) == difference_hash(pixels) for pixels in pictures)


@pytest.mark.parametrize("hw", [(1, 1), (1, 500), (500, 1), (3, 17), (16, 16), (15, 31)])
def test_any_size_of_picture_has_a_hash(hw: tuple[int, int]) -> None:
    pixels = np.random.default_rng(0).integers(0, 255, (*hw, 3), np.uint8)
    assert len(bytes.fromhex(difference_hash(pixels))) == 30


def test_a_group_known_twice_is_one_group() -> None:
    groups, own = LookAlikes(), difference_hash(scene(0))
    for _ in range(70):
        groups.add(own)
    assert groups.group_of(own) == own
