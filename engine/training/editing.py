"""What one click makes of a mask that is wrong: corrected as a mask prompt, or begun anew with that click.

Each true mask is spoilt in every way of `spoiling`; the corrective click is the protocol's (the centre of the
largest error), and the mask enters by the rule of modeling/mask_prompt.py, through the fold the page uses.
Beginning anew gets the best single click there is: the point farthest from the border, most confident mask.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from engine.geometry.points import interior_point
from engine.modeling.mask_prompt import mask_prompt
from engine.modeling.predictor import TorchPrompts, encode_image
from engine.modeling.prompts import Candidates, fold
from engine.modeling.sam import Sam
from engine.modeling.upscale import upscale_logits
from engine.training.dataset import Sample
from engine.training.evaluate import iou, next_click
from engine.training.spoiling import SPOILERS, spoil

Floats = NDArray[np.float32]
Mask = NDArray[np.bool_]


@dataclass(frozen=True)
class EditScores:
    """IoU with the truth per mask and spoiler, (n, k) in the order of SPOILERS: as spoilt, and after one
    click on it; `anew` (n,) after one click without it; the number of each mask's sample."""

    spoilt: Floats
    corrected: Floats
    anew: Floats
    sample_index: NDArray[np.int64]


def evaluate_editing(sam: Sam, samples: Iterable[Sample], seed: int = 0, min_area_px: int = 64) -> EditScores:
    """Spoils and corrects every mask of at least `min_area_px` pixels; equal seeds spoil alike."""
    spoilt: list[list[float]] = []
    corrected: list[list[float]] = []
    anew: list[float] = []
    numbers: list[int] = []
    for number, sample in enumerate(samples):
        everything = sample.every_mask()
        truths = everything[: len(sample.masks)]
        if not any(np.count_nonzero(truth) >= min_area_px for truth in truths):
            continue
        image = _Image(sam, sample.image)
        for index, truth in enumerate(truths):
            if np.count_nonzero(truth) < min_area_px:
                continue
            wrong = [
                spoil(truth, everything, spoiler, np.random.default_rng([seed, number, index, kind]))
                for kind, spoiler in enumerate(SPOILERS.values())
            ]
            spoilt.append([iou(mask, truth) for mask in wrong])
            corrected.append([iou(image.corrected(mask, truth), truth) for mask in wrong])
            anew.append(iou(image.begun(truth), truth))
            numbers.append(number)
    return EditScores(
        np.array(spoilt, dtype=np.float32).reshape(-1, len(SPOILERS)),
        np.array(corrected, dtype=np.float32).reshape(-1, len(SPOILERS)),
        np.array(anew, dtype=np.float32),
        np.array(numbers, dtype=np.int64),
    )


class _Image:
    """One embedded picture, prompted as the page prompts it."""

    def __init__(self, sam: Sam, image: NDArray[np.uint8]) -> None:
        self.config, self.hw = sam.config, (int(image.shape[0]), int(image.shape[1]))
        self.decoder = TorchPrompts(sam, encode_image(sam, image), self.hw)

    def corrected(self, mask: Mask, truth: Mask) -> Mask:
        """The mask (H, W) after one corrective click on it."""
        begun = mask_prompt(mask, self.config)
        prompts = [begun.prompt, _click(*next_click(mask, truth))]
        return self._shown(fold(self.decoder, prompts, [0], answer=begun.low_res_logits))

    def begun(self, truth: Mask) -> Mask:
        """The mask (H, W) after one click where nothing was before."""
        return self._shown(fold(self.decoder, [_click(*interior_point(truth), 1)], []))

    def _shown(self, candidates: Candidates) -> Mask:
        logits = candidates.low_res_logits[candidates.best][None]
        return np.asarray(upscale_logits(logits, self.hw, self.config)[0] > 0)


def _click(x: int, y: int, label: int) -> dict[str, Any]:
    return {"kind": "point", "x": float(x), "y": float(y), "label": label}
