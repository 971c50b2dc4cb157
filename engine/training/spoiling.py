"""True masks made wrong the way masks in need of a correction are: too wide, too narrow, bitten, or spilt
into a neighbour. Training corrects them by clicks, and the evaluation measures what one click makes of them.

Sizes go by the mask's radius, that of the disc of its area, so small and large masks suffer alike.
"""

import math
from collections.abc import Callable, Sequence

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

Mask = NDArray[np.bool_]
Spoiler = Callable[[Mask, Sequence[Mask], np.random.Generator], Mask]

MAX_BITES = 3
# What bites leave at least: less is another mask, not a bitten one.
LEAST_LEFT = 0.25
# No spoiler reaches farther than this from the mask, in radii.
REACH = 2.5


def spoil(mask: Mask, others: Sequence[Mask], spoiler: Spoiler, rng: np.random.Generator) -> Mask:
    """The mask (H, W), not empty, after one spoiler; `others` are the picture's other masks. Never empty;
    where nothing could be spoilt (a mask of a pixel, a mask of the whole picture) it is as it was."""
    margin = math.ceil(REACH * radius_px(mask)) + 2
    rows, columns = np.flatnonzero(mask.any(axis=1)), np.flatnonzero(mask.any(axis=0))
    frame = (
        slice(max(0, int(rows[0]) - margin), int(rows[-1]) + margin + 1),
        slice(max(0, int(columns[0]) - margin), int(columns[-1]) + margin + 1),
    )
    near = [other[frame] for other in others if (other[frame] & ~mask[frame]).any()]
    spoilt = mask.copy()
    spoilt[frame] = spoiler(mask[frame], near, rng)
    return spoilt if spoilt.any() else mask


def radius_px(mask: Mask) -> float:
    """Radius of the disc that has the mask's area."""
    return math.sqrt(np.count_nonzero(mask) / math.pi)


def dilate(mask: Mask, others: Sequence[Mask], rng: np.random.Generator) -> Mask:
    """Too wide all around, by 0.15 to 0.4 radii and at least a pixel."""
    by_px = max(1.0, radius_px(mask) * rng.uniform(0.15, 0.4))
    return np.asarray(ndimage.distance_transform_edt(~mask) <= by_px)


def erode(mask: Mask, others: Sequence[Mask], rng: np.random.Generator) -> Mask:
    """Too narrow all around, by 0.15 to 0.35 radii and at least a pixel; thin parts are lost."""
    by_px = max(1.0, radius_px(mask) * rng.uniform(0.15, 0.35))
    return np.asarray(ndimage.distance_transform_edt(np.pad(mask, 1))[1:-1, 1:-1] > by_px)


def bite(mask: Mask, others: Sequence[Mask], rng: np.random.Generator) -> Mask:
    """One to three discs of 0.3 to 0.7 radii are missing at the border; a quarter is left at least."""
    radius, left = radius_px(mask), mask
    rim = np.argwhere(mask & ~ndimage.binary_erosion(mask, border_value=1))
    # A mask that fills its picture has no border but the picture's.
    rim = rim if len(rim) else np.argwhere(mask)
    for _ in range(int(rng.integers(1, MAX_BITES + 1))):
        y, x = rim[rng.integers(len(rim))]
        bitten = left & ~disc(mask.shape, int(x), int(y), radius * rng.uniform(0.3, 0.7))
        if np.count_nonzero(bitten) >= LEAST_LEFT * np.count_nonzero(mask):
            left = bitten
    return left


def spill(mask: Mask, others: Sequence[Mask], rng: np.random.Generator) -> Mask:
    """Runs over into the nearest other mask, 0.6 to 1.5 radii deep; where none is within a radius, into a
    disc of up to that radius at the border."""
    radius = radius_px(mask)
    reach, away = radius * rng.uniform(0.6, 1.5), ndimage.distance_transform_edt(~mask)
    gaps = [float(away[other & ~mask].min()) for other in others]
    if gaps and min(gaps) <= radius:
        gap = min(gaps)
        other = others[gaps.index(gap)] & ~mask
        bridge = away + ndimage.distance_transform_edt(~other) <= gap + 2
        return np.asarray(mask | (other & (away <= gap + reach)) | bridge)
    rim = np.argwhere(away == 1)
    if not len(rim):
        return mask
    y, x = rim[rng.integers(len(rim))]
    return mask | disc(mask.shape, int(x), int(y), 0.8 * reach)


def disc(hw: tuple[int, ...], x: int, y: int, radius: float) -> Mask:
    """The pixels of an (H, W) picture within `radius` of one of them."""
    rows, columns = np.ogrid[: hw[0], : hw[1]]
    return np.asarray((columns - x) ** 2 + (rows - y) ** 2 <= radius**2)


def spoil_all(masks: NDArray[np.bool_], n_per_picture: int, rng: np.random.Generator) -> NDArray[np.bool_]:
    """Every mask of a batch (B, S, S) by a spoiler of its own; so many in a row share a picture."""
    kinds = list(SPOILERS.values())
    spoilt = []
    for number, mask in enumerate(masks):
        first = number - number % n_per_picture
        others = list(masks[first : first + n_per_picture])
        spoilt.append(spoil(mask, others, kinds[int(rng.integers(len(kinds)))], rng))
    return np.stack(spoilt)


SPOILERS: dict[str, Spoiler] = {"dilation": dilate, "erosion": erode, "bites": bite, "spill": spill}
