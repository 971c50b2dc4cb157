"""The resize that SAM's weights expect, bit for bit."""

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

from engine.errors import BadInput
from engine.modeling.resize import resize_bilinear, resize_long_side

SIZES = [((321, 481), (171, 256)), ((64, 48), (512, 384)), ((37, 91), (208, 512)), ((500, 7), (512, 7))]
SIZES += [((1, 1), (5, 9)), ((900, 1201), (3, 1)), ((333, 333), (333, 100)), ((2, 400), (1, 512))]


def by_pillow(image: NDArray[np.uint8], to_hw: tuple[int, int]) -> NDArray[np.uint8]:
    """Pillow axis by axis: in one call, Pillow 13 chooses the order by the image's shape."""
    wide = Image.fromarray(image).resize((to_hw[1], image.shape[0]), Image.Resampling.BILINEAR)
    return np.asarray(wide.resize((to_hw[1], to_hw[0]), Image.Resampling.BILINEAR))


def test_ordinary_photographs_equal_one_call_of_pillow() -> None:
    for from_hw, to_hw in (((480, 640), (384, 512)), ((256, 320), (410, 512)), ((640, 480), (512, 384))):
        image = np.random.default_rng(2).integers(0, 256, (*from_hw, 3), dtype=np.uint8)
        pillow = Image.fromarray(image).resize((to_hw[1], to_hw[0]), Image.Resampling.BILINEAR)
        assert np.array_equal(resize_long_side(image, 512), np.asarray(pillow))


@pytest.mark.parametrize(("from_hw", "to_hw"), SIZES)
def test_every_pixel_equals_pillow(from_hw: tuple[int, int], to_hw: tuple[int, int]) -> None:
    image = np.random.default_rng(0).integers(0, 256, (*from_hw, 3), dtype=np.uint8)
    assert np.array_equal(resize_bilinear(image, to_hw), by_pillow(image, to_hw))


def test_random_sizes_equal_pillow() -> None:
    rng = np.random.default_rng(1)
    for _ in range(60):
        height, width, out_height, out_width = rng.integers(1, 300, 4).tolist()
        image = rng.integers(0, 256, (height, width, 3), dtype=np.uint8)
        to_hw = (out_height, out_width)
        assert np.array_equal(resize_bilinear(image, to_hw), by_pillow(image, to_hw))


def test_long_side_becomes_img_size_with_official_rounding() -> None:
    assert resize_long_side(np.zeros((321, 481, 3), np.uint8), 256).shape == (171, 256, 3)
    assert resize_long_side(np.zeros((4000, 2, 3), np.uint8), 256).shape == (256, 1, 3)


def test_anything_but_uint8_pixels_is_refused() -> None:
    with pytest.raises(BadInput, match="uint8"):
        resize_bilinear(np.zeros((4, 4, 3), np.float32), (2, 2))
