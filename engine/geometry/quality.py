"""How good a mask is, as numbers."""

from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage


def iou_masks(first: NDArray[np.bool_], second: NDArray[np.bool_]) -> float:
    """Intersection over union of two (H, W) masks; two empty masks are equal, so 1.0."""
    intersection = int(np.count_nonzero(first & second))
    union = int(np.count_nonzero(first)) + int(np.count_nonzero(second)) - intersection
    return intersection / union if union else 1.0


def stability_score(
    logits: NDArray[Any], *, mask_threshold: float = 0.0, offset: float = 1.0
) -> NDArray[np.float64]:
    """How little masks (..., H, W) change when the threshold moves by `offset` either way: (...), 0 to 1.

    The high cut lies within the low one, so their IoU is the ratio of their areas (SAM paper, section 4).
    Logits that are nowhere above the low cut have 0.
    """
    high = np.count_nonzero(logits > mask_threshold + offset, axis=(-2, -1))
    low = np.asarray(np.count_nonzero(logits > mask_threshold - offset, axis=(-2, -1)))
    ratio: NDArray[np.float64] = np.divide(high, low, out=np.zeros(low.shape), where=low > 0)
    return ratio


def connected_components(mask: NDArray[np.bool_]) -> tuple[NDArray[np.int32], NDArray[np.int64]]:
    """Regions of a (H, W) mask, corners touching: labels (H, W), 0 for background, and areas (N,) of 1..N."""
    labels, n_regions = ndimage.label(mask, structure=np.ones((3, 3), bool))
    areas = np.bincount(labels.reshape(-1), minlength=n_regions + 1)[1:]
    return labels, areas
