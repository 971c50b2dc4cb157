"""Low resolution logits to image size, only where a mask can be: exact, at the mask's cost. numpy only."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from engine.geometry.quality import stability_score
from engine.geometry.regions import Region, region_runs
from engine.geometry.runs import Runs
from engine.modeling.sam_config import SamConfig
from engine.modeling.upscale import Floats, composed_matrix

STABILITY_OFFSET = 1.0


@dataclass(frozen=True)
class RegionLogits:
    """`columns` (width, height) of logits from column x0 and row y0 on; outside all are at most the cut."""

    columns: Floats
    x0: int
    y0: int


@dataclass(frozen=True)
class _Axis:
    """(n_out, n_low) weights, and for each output pixel the first and last low resolution one it reads."""

    weights: Floats
    first_read: NDArray[np.intp]
    last_read: NDArray[np.intp]

    def around(self, low: NDArray[np.intp]) -> tuple[slice, slice]:
        """The outputs that read anything between low[0] and low[-1], and all that those outputs read."""
        # Both tables only rise, so a search finds the ends.
        start = int(np.searchsorted(self.last_read, low[0]))
        stop = int(np.searchsorted(self.first_read, low[-1], side="right"))
        if start >= stop:  # all of it lies in the padding
            return slice(0, 0), slice(0, 0)
        return slice(start, stop), slice(int(self.first_read[start]), int(self.last_read[stop - 1]) + 1)


class RegionUpscaler:
    """Upscales masks of one image size; make it once per image or crop."""

    def __init__(self, config: SamConfig, original_hw: tuple[int, int]) -> None:
        self.original_hw = original_hw
        self._rows, self._columns = (
            _axis(composed_matrix(config.logits_size, config.img_size, n_input, n_original))
            for n_input, n_original in zip(config.input_hw(original_hw), original_hw, strict=True)
        )

    def above(self, low_res_logits: Floats, cut: float) -> RegionLogits:
        """(4g, 4g) -> every pixel whose logit is above `cut`, and the rest of their rectangle.

        An upscaled logit is an average of low resolution ones, so it exceeds the cut only near one that
        does: nothing is lost, and a typical mask costs a hundredth of the image.
        """
        high = low_res_logits > cut
        high_rows, high_columns = np.flatnonzero(high.any(axis=1)), np.flatnonzero(high.any(axis=0))
        if high_rows.size == 0:
            return RegionLogits(np.zeros((0, 0), np.float32), x0=0, y0=0)
        rows, low_rows = self._rows.around(high_rows)
        columns, low_columns = self._columns.around(high_columns)
        # Transposed as it is made: masks are read column by column from here on.
        low = low_res_logits[low_rows, low_columns].T
        weights = self._columns.weights[columns, low_columns], self._rows.weights[rows, low_rows]
        upscaled = weights[0] @ low @ weights[1].T
        return RegionLogits(np.asarray(upscaled, np.float32), columns.start, rows.start)

    def mask_of(self, low_res_logits: Floats, threshold: float = 0.0) -> tuple[Runs, float]:
        """(4g, 4g) -> the runs of the mask at image size, and how stable it is when the cut moves by 1."""
        logits = self.above(low_res_logits, threshold - STABILITY_OFFSET)
        stability = stability_score(logits.columns, mask_threshold=threshold, offset=STABILITY_OFFSET)
        mask: NDArray[np.bool_] = logits.columns > threshold
        region = Region(mask, logits.x0, logits.y0) if mask.any() else Region(mask[:0], 0, 0)
        return region_runs(region, self.original_hw), float(stability)


def _axis(weights: Floats) -> _Axis:
    reads = weights > 0
    return _Axis(weights, reads.argmax(axis=1), weights.shape[1] - 1 - reads[:, ::-1].argmax(axis=1))
