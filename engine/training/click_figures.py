"""Figures of an evaluation: means over masks with bootstrap intervals, of all masks and by their size.

Masks of one picture are not independent, so pictures are resampled, each with all of its masks (the cluster
bootstrap); the interval runs from the 2.5th to the 97.5th percentile of the resampled means.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from engine.training.editing import EditScores
from engine.training.evaluate import ClickScores
from engine.training.spoiling import SPOILERS

Floats = NDArray[np.floating[Any]]

# COCO's bounds, in pixels of the original image: from the first, below the second.
SIZES = {"all": (0, None), "small": (0, 32**2), "medium": (32**2, 96**2), "large": (96**2, None)}
LEVEL = 0.95


@dataclass(frozen=True)
class Resampling:
    """How intervals are made: so many resamples, drawn from this seed."""

    n_resamples: int = 1000
    seed: int = 0


def with_interval(values: Floats, groups: NDArray[np.int64], resampling: Resampling) -> dict[str, Any]:
    """{"mean", "low", "high"} of values (n,), one per mask, whose pictures are `groups` (n,).

    All None without a value; no interval for a single picture, whose spread nobody knows.
    """
    if not len(values):
        return {"mean": None, "low": None, "high": None}
    mean = float(np.mean(values))
    _, picture = np.unique(groups, return_inverse=True)
    n_pictures = int(picture.max()) + 1
    if n_pictures < 2:
        return {"mean": mean, "low": None, "high": None}
    sums, counts = np.bincount(picture, values), np.bincount(picture)
    rng = np.random.default_rng(resampling.seed)
    drawn = rng.multinomial(n_pictures, np.full(n_pictures, 1 / n_pictures), resampling.n_resamples)
    means = (drawn @ sums) / (drawn @ counts)
    low, high = np.quantile(means, [(1 - LEVEL) / 2, (1 + LEVEL) / 2])
    return {"mean": mean, "low": float(low), "high": float(high)}


def by_size(
    scores: ClickScores, n_clicks: Sequence[int], targets: Sequence[float], cap: int, resampling: Resampling
) -> dict[str, Any]:
    """`figures` of all masks and of each of COCO's sizes, by name."""
    found = {}
    for name, (least, most) in SIZES.items():
        rows = np.flatnonzero((scores.area_px >= least) & (scores.area_px < (most or np.inf)))
        found[name] = figures(scores, rows, n_clicks, targets, cap, resampling)
    return found


def figures(
    scores: ClickScores,
    rows: NDArray[np.int64],
    n_clicks: Sequence[int],
    targets: Sequence[float],
    cap: int,
    resampling: Resampling,
) -> dict[str, Any]:
    """Figures of the masks `rows`, as JSON.

    {"masks", "images", "miou": {"1": interval}, "oracle_miou", "noc": {"0.85": interval}, "reached": share
    per target, "unreachable": share per target of masks that the logits' size cannot express that well};
    what was not measured is None.
    """
    groups = scores.sample_index[rows]

    def interval(values: Floats) -> dict[str, Any]:
        return with_interval(values[rows], groups, resampling)

    def of_clicks(ious: Floats | None) -> dict[str, Any] | None:
        return None if ious is None else {str(n): interval(ious[:, n - 1]) for n in n_clicks}

    def share(met: NDArray[np.bool_]) -> float | None:
        return float(met[rows].mean()) if len(rows) else None

    ceilings = scores.ceilings
    return {
        "masks": len(rows),
        "images": len(np.unique(groups)),
        "miou": of_clicks(scores.ious),
        "oracle_miou": of_clicks(scores.oracle_ious),
        "noc": {f"{t:.2f}": interval(scores.clicks_to(t, cap).astype(float)) for t in targets},
        "reached": {f"{t:.2f}": share(scores.reached(t, cap)) for t in targets},
        "unreachable": None if ceilings is None else {f"{t:.2f}": share(ceilings < t) for t in targets},
    }


def gains(
    scores: ClickScores, first: ClickScores, n_clicks: Sequence[int], resampling: Resampling
) -> dict[str, Any]:
    """How much higher the IoU is than `first`'s on the same masks, {"1": interval}: the difference of each
    mask is resampled, so what is hard for both does not widen the interval."""
    difference = scores.ious - first.ious
    return {str(n): with_interval(difference[:, n - 1], scores.sample_index, resampling) for n in n_clicks}


def editing_figures(scores: EditScores, resampling: Resampling) -> dict[str, Any]:
    """By spoiler, and of all: mean IoU as spoilt, corrected by one click, begun anew by one, and what the
    correction gains over either."""
    found = {}
    for name, columns in [*((n, [k]) for k, n in enumerate(SPOILERS)), ("all", list(range(len(SPOILERS))))]:
        spoilt, corrected = (values[:, columns].mean(axis=1) for values in (scores.spoilt, scores.corrected))
        found[name] = {
            key: with_interval(values, scores.sample_index, resampling)
            for key, values in {
                "spoilt": spoilt,
                "corrected": corrected,
                "anew": scores.anew,
                "gain_over_spoilt": corrected - spoilt,
                "gain_over_anew": corrected - scores.anew,
            }.items()
        }
    return {"masks": len(scores.anew)} | found
