"""What clicks give without a model: flood fill and a local Otsu threshold. Evaluations quote both."""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from engine.geometry.points import interior_point
from engine.training.dataset import Sample
from engine.training.evaluate import iou

Mask = NDArray[np.bool_]
Segmenter = Callable[[NDArray[np.uint8], tuple[int, int]], Mask]

TOLERANCES = (4.0, 8.0, 12.0, 16.0, 24.0, 32.0, 48.0, 64.0)
WINDOW_RADII_PX = (16, 24, 32, 48, 64)


def connected_at(mask: Mask, xy: tuple[int, int]) -> Mask:
    """The 4-connected part of a mask (H, W) that holds the pixel; empty if the pixel is not in it."""
    parts, _ = ndimage.label(mask)
    here = parts[xy[1], xy[0]]
    return np.asarray(parts == here) if here else np.zeros_like(mask)


def flood_fill(image: NDArray[np.uint8], xy: tuple[int, int], tolerance: float) -> Mask:
    """Pixels connected to the clicked one whose colour is within `tolerance` (largest channel difference)."""
    difference = np.abs(image.astype(np.int16) - image[xy[1], xy[0]].astype(np.int16)).max(axis=2)
    return connected_at(difference <= tolerance, xy)


def otsu_threshold(values: NDArray[np.uint8]) -> int:
    """The grey level that best splits the values in two (Otsu, 1979): the lower side is <= it."""
    counts = np.bincount(values.ravel(), minlength=256).astype(np.float64)
    below, levels = np.cumsum(counts), np.arange(256)
    mass = np.cumsum(counts * levels)
    above = below[-1] - below
    with np.errstate(divide="ignore", invalid="ignore"):
        spread = below * above * (mass / below - (mass[-1] - mass) / above) ** 2
    return int(np.nan_to_num(spread).argmax())


def local_otsu(image: NDArray[np.uint8], xy: tuple[int, int], radius_px: int) -> Mask:
    """Otsu's split of the grey picture in a square around the click; the connected side that was clicked."""
    x, y = xy
    rows = slice(max(0, y - radius_px), y + radius_px + 1)
    columns = slice(max(0, x - radius_px), x + radius_px + 1)
    grey = image[rows, columns].mean(axis=2).astype(np.uint8)
    bright = grey > otsu_threshold(grey)
    inside = (x - columns.start, y - rows.start)
    mask = np.zeros(image.shape[:2], dtype=np.bool_)
    mask[rows, columns] = connected_at(bright == bright[inside[1], inside[0]], inside)
    return mask


@dataclass(frozen=True)
class SegmenterBackend:
    """A segmenter in the place of a model (`ClickBackend`), so that it is measured by the same clicks.

    Each click claims the region that the segmenter finds there; a pixel claimed by several clicks goes to the
    nearest of them, and is mask where that one is positive. The logits, at the picture's size, remember it:
    1 / (1 + distance) to the click that has the pixel, below 0 where that one is negative, 0 where no one is.
    """

    segment: Segmenter

    def encode(self, image: NDArray[np.uint8]) -> NDArray[np.uint8]:
        """Nothing is computed beforehand."""
        return image

    def decode(
        self,
        embedding: NDArray[np.uint8],
        hw: tuple[int, int],
        coords: NDArray[np.float32],
        labels: NDArray[np.int64],
        mask_input: NDArray[np.float32] | None,
        multimask: bool,
    ) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
        """What was claimed before and the last click: one candidate (B, 1, H, W), scores of 1."""
        logits = np.zeros((len(coords), 1, *hw), np.float32) if mask_input is None else mask_input.copy()
        for row, (xy, label) in enumerate(zip(coords[:, -1], labels[:, -1], strict=True)):
            x, y = int(xy[0]), int(xy[1])
            rows, columns = np.ogrid[: hw[0], : hw[1]]
            nearness = (1 / (1 + np.hypot(columns - x, rows - y))).astype(np.float32)
            claimed = self.segment(embedding, (x, y)) & (nearness > np.abs(logits[row, 0]))
            logits[row, 0][claimed] = nearness[claimed] * (1 if label else -1)
        return logits, np.ones((len(coords), 1), np.float32)

    def upscale(self, low_res_logits: NDArray[np.float32], hw: tuple[int, int]) -> NDArray[np.float32]:
        """They have the picture's size already."""
        return low_res_logits


def mean_one_click_iou(segment: Segmenter, samples: Iterable[Sample], min_area_px: int = 64) -> float:
    """Mean IoU over all masks of at least `min_area_px`, clicked at the point farthest from the border."""
    ious = []
    for sample in samples:
        for index in range(len(sample.masks)):
            truth = sample.mask(index)
            if np.count_nonzero(truth) >= min_area_px:
                ious.append(iou(segment(sample.image, interior_point(truth)), truth))
    return float(np.mean(ious)) if ious else 0.0


def best_flood_fill(samples: Sequence[Sample]) -> tuple[float, Segmenter]:
    """The tolerance that does best on these samples, and flood fill at that tolerance."""
    scores = {t: mean_one_click_iou(at_tolerance(t), samples) for t in TOLERANCES}
    best = max(scores, key=scores.__getitem__)
    return best, at_tolerance(best)


def best_local_otsu(samples: Sequence[Sample]) -> tuple[int, Segmenter]:
    """The window that does best on these samples, and local Otsu with that window."""
    scores = {r: mean_one_click_iou(in_window(r), samples) for r in WINDOW_RADII_PX}
    best = max(scores, key=scores.__getitem__)
    return best, in_window(best)


def at_tolerance(tolerance: float) -> Segmenter:
    """Flood fill at one tolerance."""
    return lambda image, xy: flood_fill(image, xy, tolerance)


def in_window(radius_px: int) -> Segmenter:
    """Local Otsu in one window."""
    return lambda image, xy: local_otsu(image, xy, radius_px)
