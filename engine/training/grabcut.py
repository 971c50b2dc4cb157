"""GrabCut (Rother et al., 2004) as people use it with clicks: the baseline of interactive segmentation.

Needs OpenCV (`pip install 'maskloop[grabcut]'`), which nothing else here does.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from importlib.util import find_spec

import numpy as np
from numpy.typing import NDArray

from engine.geometry.points import interior_point
from engine.training.baselines import connected_at
from engine.training.dataset import Sample
from engine.training.evaluate import iou

Mask = NDArray[np.bool_]

WINDOW_RADII_PX = (16, 32, 64)
N_ITERATIONS = 3
# Around a click so much is certain: a disc of one pixel teaches the colour models nothing.
CLICK_RADIUS_PX = 2
# The window is chosen on so many masks: a run costs a hundred times what a threshold does.
N_CHOSEN_ON = 60


def is_installed() -> bool:
    """Whether OpenCV is there."""
    return find_spec("cv2") is not None


def grab_cut(
    image: NDArray[np.uint8], clicks: NDArray[np.int64], labels: NDArray[np.int64], radius_px: int
) -> Mask:
    """The mask (H, W) for clicks (n, 2) and labels (n,), the first positive.

    Around the first click a square of 2 * radius + 1 px is unknown, its inner half probably object; what
    lies outside is not mask. A later click outside the square widens it. Clicks are certain. Only parts
    that hold a positive click are kept.
    """
    import cv2

    left, top = np.maximum(clicks.min(axis=0), 0)
    right, bottom = clicks.max(axis=0)
    x, y = clicks[0]
    rows = slice(max(0, min(y - radius_px, top - 4)), max(y + radius_px, bottom + 4) + 1)
    columns = slice(max(0, min(x - radius_px, left - 4)), max(x + radius_px, right + 4) + 1)
    part = np.ascontiguousarray(image[rows, columns])
    trimap = np.full(part.shape[:2], cv2.GC_PR_BGD, np.uint8)
    ys, xs = np.ogrid[: part.shape[0], : part.shape[1]]

    def disc(xy: NDArray[np.int64], radius: float) -> Mask:
        return np.asarray((xs + columns.start - xy[0]) ** 2 + (ys + rows.start - xy[1]) ** 2 <= radius**2)

    trimap[disc(clicks[0], radius_px / 2)] = cv2.GC_PR_FGD
    for xy, label in zip(clicks, labels, strict=True):
        trimap[disc(xy, CLICK_RADIUS_PX)] = cv2.GC_FGD if label else cv2.GC_BGD
    # Its colour models begin from a random clustering; equal clicks should give equal masks.
    cv2.setRNGSeed(0)
    # The rectangle is not looked at where there is a mask.
    models, nowhere = (np.zeros((1, 65)), np.zeros((1, 65))), (0, 0, 1, 1)
    cv2.grabCut(part, trimap, nowhere, models[0], models[1], N_ITERATIONS, cv2.GC_INIT_WITH_MASK)
    inside = (trimap == cv2.GC_FGD) | (trimap == cv2.GC_PR_FGD)
    found = np.zeros(image.shape[:2], np.bool_)
    for xy, label in zip(clicks, labels, strict=True):
        if label:
            found[rows, columns] |= connected_at(
                inside, (int(xy[0]) - columns.start, int(xy[1]) - rows.start)
            )
    return found


@dataclass(frozen=True)
class GrabCutBackend:
    """GrabCut in the place of a model (`ClickBackend`): all clicks so far, from the start each time."""

    radius_px: int

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
        """One candidate (B, 1, H, W), above 0 where mask, and scores of 1."""
        masks = [
            grab_cut(embedding, xy.astype(np.int64), label, self.radius_px)
            for xy, label in zip(coords, labels, strict=True)
        ]
        logits = np.stack(masks)[:, None].astype(np.float32) - 0.5
        return logits, np.ones((len(coords), 1), np.float32)

    def upscale(self, low_res_logits: NDArray[np.float32], hw: tuple[int, int]) -> NDArray[np.float32]:
        """They have the picture's size already."""
        return low_res_logits


def best_grab_cut(samples: Sequence[Sample], min_area_px: int = 64) -> GrabCutBackend:
    """The window that does best at one click on masks spread over these samples."""
    every = [
        (s, i) for s in samples for i in range(len(s.masks)) if np.count_nonzero(s.mask(i)) >= min_area_px
    ]
    chosen = every[:: max(1, len(every) // N_CHOSEN_ON)]

    def score(radius_px: int) -> float:
        ious = []
        for sample, index in chosen:
            truth = sample.mask(index)
            click = np.array([interior_point(truth)])
            ious.append(iou(grab_cut(sample.image, click, np.ones(1, np.int64), radius_px), truth))
        return float(np.mean(ious)) if ious else 0.0

    return GrabCutBackend(max(WINDOW_RADII_PX, key=score))
