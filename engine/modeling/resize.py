"""Pillow's antialiased bilinear resize in numpy, bit for bit: what SAM's weights were trained on."""

import math

import numpy as np
from numpy.typing import NDArray

from engine.errors import BadInput
from engine.modeling.sam_config import long_side_hw

# Pillow's fixed point: 32 bits less 8 for the pixel and 2 for headroom.
_PRECISION_BITS = 22


def resize_long_side(image: NDArray[np.uint8], img_size: int) -> NDArray[np.uint8]:
    """(H, W, 3) -> (h, w, 3) with long side `img_size`, rounded as the official ResizeLongestSide does."""
    return resize_bilinear(image, long_side_hw(image.shape[:2], img_size))


def resize_bilinear(image: NDArray[np.uint8], target_hw: tuple[int, int]) -> NDArray[np.uint8]:
    """(H, W, C) uint8 -> (h, w, C) uint8, equal to Pillow's BILINEAR along the width, then along the height.

    That is the order of every Pillow before 13, which does some tall images the other way round (one level
    apart at most): ours stays, so that an upgrade of Pillow moves no embedding.
    """
    if image.dtype != np.uint8 or image.ndim != 3 or 0 in image.shape:
        raise BadInput(f"an image is a uint8 array of (H, W, 3), not {image.dtype} of {image.shape}")
    if target_hw[1] != image.shape[1]:
        image = _resize_rows(image.swapaxes(0, 1), target_hw[1]).swapaxes(0, 1)
    if target_hw[0] != image.shape[0]:
        image = _resize_rows(image, target_hw[0])
    return np.ascontiguousarray(image)


def _resize_rows(image: NDArray[np.uint8], n_out: int) -> NDArray[np.uint8]:
    """Resizes axis 0. Each pass rounds to uint8, so the order (width, then height) matters."""
    starts, weights = _coefficients(image.shape[0], n_out)
    # Half a unit first: the shift at the end then rounds.
    total = np.full((n_out, *image.shape[1:]), 1 << (_PRECISION_BITS - 1), dtype=np.int32)
    last = image.shape[0] - 1
    for tap in range(weights.shape[1]):
        # Beyond the border the weight is zero: any row will do.
        rows = image[np.minimum(starts + tap, last)]
        total += rows * weights[:, tap].reshape(-1, *[1] * (image.ndim - 1))
    resized: NDArray[np.uint8] = np.clip(total >> _PRECISION_BITS, 0, 255).astype(np.uint8)
    return resized


def _coefficients(n_in: int, n_out: int) -> tuple[NDArray[np.intp], NDArray[np.int32]]:
    """First source index (n_out,) and fixed-point weights (n_out, taps) of the triangle filter."""
    scale = n_in / n_out
    # Shrinking widens the filter (antialiasing); enlarging does not narrow it.
    support = max(scale, 1.0)
    centres = (np.arange(n_out) + 0.5) * scale
    starts = np.maximum((centres - support + 0.5).astype(np.intp), 0)
    ends = np.minimum((centres + support + 0.5).astype(np.intp), n_in)
    taps = np.arange(math.ceil(support) * 2 + 1)
    distance = (taps + starts[:, None] - centres[:, None] + 0.5) * (1.0 / support)
    weights = np.where(taps < (ends - starts)[:, None], np.maximum(1.0 - np.abs(distance), 0.0), 0.0)
    # cumsum adds from left to right as Pillow's loop does; sum would pair, and may round otherwise.
    weights = weights / weights.cumsum(axis=1)[:, -1:]
    return starts, (0.5 + weights * (1 << _PRECISION_BITS)).astype(np.int32)
