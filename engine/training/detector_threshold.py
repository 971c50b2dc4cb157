"""From which score on a box is prefilled: chosen for a stated share of false boxes, on held-out images.

A box is false when somebody refused it, when every thing in the picture has its box and it is none of them,
or when it covers what somebody drew, and fits it badly. On pictures that people drew on in the time they had,
a box where nobody drew is no proof: it counts as `undrawn_is_false` of a false one. LVIS leaves such boxes
out of its precision altogether (Gupta et al. 2019, section 3.2), which would never punish a detector that
proposes everywhere.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from engine.errors import BadInput
from engine.geometry.boxes import box_iou
from engine.modeling.detector import Detector, propose_boxes
from engine.modeling.sam_config import SamConfig
from engine.training.detector_targets import DetectorSample
from engine.training.matching import MATCH_IOU, greedy_matches

Floats = NDArray[np.floating]

# Below this many boxes a share says little: with 20 boxes and a true rate of 0.2 the share seen still strays
# by 0.09 (one standard error), with 5 by 0.18, and the lowest of many thresholds would be the luckiest one.
FEWEST_BOXES = 20
# Two boxes lie in one place when the larger one holds this share of the smaller one.
_SAME_PLACE = 0.5


@dataclass(frozen=True)
class ScoredBoxes:
    """Proposed boxes of many images: `scores` (N,), how much of a false box each is (N,) 0..1, and the
    number of its image (N,)."""

    scores: Floats
    falseness: Floats
    image: NDArray[np.int64]

    def of(self, is_chosen: NDArray[np.bool_]) -> "ScoredBoxes":
        """Those of the images chosen by number."""
        here = is_chosen[self.image]
        return ScoredBoxes(self.scores[here], self.falseness[here], self.image[here])


def scored_boxes(
    detector: Detector,
    samples: Sequence[DetectorSample],
    config: SamConfig,
    undrawn_is_false: float,
    *,
    max_boxes: int = 300,
    nms_iou: float = 0.6,
) -> ScoredBoxes:
    """Every proposal on the samples with its score and falseness: what a threshold is chosen on."""
    scores: list[Floats] = [np.zeros(0)]
    falseness: list[Floats] = [np.zeros(0)]
    image: list[NDArray[np.int64]] = [np.zeros(0, np.int64)]
    for number, sample in enumerate(samples):
        embedding = np.asarray(sample.embedding, np.float32)
        boxes, of_image = propose_boxes(
            detector, embedding, sample.original_hw, config, 0.0, max_boxes, nms_iou
        )
        scores.append(of_image)
        falseness.append(falseness_of(boxes, of_image, sample, undrawn_is_false))
        image.append(np.full(len(boxes), number))
    return ScoredBoxes(np.concatenate(scores), np.concatenate(falseness), np.concatenate(image))


def falseness_of(
    boxes_xyxy: Floats, scores: Floats, sample: DetectorSample, undrawn_is_false: float
) -> Floats:
    """0 for each of N boxes that has a true box of its own, 1 for what is false, between for what is not
    known."""
    is_right = greedy_matches(boxes_xyxy, scores, sample.boxes_xyxy, MATCH_IOU) >= 0
    refused = np.asarray(sample.negatives_xyxy, np.float64).reshape(-1, 4)
    is_false = (box_iou(boxes_xyxy, refused) >= MATCH_IOU).sum(1) > 0
    is_false |= (_share_of_smaller(boxes_xyxy, sample.boxes_xyxy) >= _SAME_PLACE).sum(1) > 0
    unknown = 1.0 if sample.complete else undrawn_is_false
    return np.where(is_right, 0.0, np.where(is_false, 1.0, unknown))


def _share_of_smaller(first: Floats, second: Floats) -> Floats:
    """(N, M): how much of the smaller box of each pair lies in the other one."""
    one, other = np.asarray(first).reshape(-1, 1, 4), np.asarray(second, np.float64).reshape(1, -1, 4)
    low, high = np.maximum(one[..., :2], other[..., :2]), np.minimum(one[..., 2:], other[..., 2:])
    smaller = np.minimum((one[..., 2:] - one[..., :2]).prod(-1), (other[..., 2:] - other[..., :2]).prod(-1))
    shares: Floats = (high - low).clip(0).prod(-1) / smaller.clip(1e-9)
    return shares


def choose_threshold(
    scored: ScoredBoxes, false_prefill_rate: float, min_count: int = FEWEST_BOXES
) -> float | None:
    """The lowest score at which at most that share of the boxes scored as high is false; None if none.

    At least `min_count` boxes must stand above it, so that the promise is no luck. Choose it on images the
    detector did not learn from.
    """
    if not 0 <= false_prefill_rate < 1:
        raise BadInput(f"a false-prefill rate lies between 0 and 1, and {false_prefill_rate} does not")
    order = np.argsort(-scored.scores, kind="stable")
    scores, n_told = scored.scores[order], np.arange(1, len(order) + 1)
    n_false = np.cumsum(scored.falseness[order])
    # Of equal scores all or none are told.
    is_last = np.append(scores[1:] != scores[:-1], True)[: len(scores)]
    # Sums of quarters and the like stray by rounding.
    holds = is_last & (n_told >= min_count) & (n_false <= false_prefill_rate * n_told + 1e-9)
    return float(scores[np.flatnonzero(holds)[-1]]) if holds.any() else None


def cross_fitted(
    scored: ScoredBoxes, is_first_half: NDArray[np.bool_], false_prefill_rate: float
) -> Floats | None:
    """A threshold for each image, chosen on the other half of them: what is measured with these has not been
    chosen on the same images. None where a half is too small to choose on."""
    for_first, for_second = (
        choose_threshold(scored.of(other), false_prefill_rate, FEWEST_BOXES // 2)
        for other in (~is_first_half, is_first_half)
    )
    if for_first is None or for_second is None:
        return None
    return np.where(is_first_half, for_first, for_second)


def false_share(scored: ScoredBoxes, thresholds: Floats) -> float | None:
    """Share of false boxes among those at or above their image's threshold (n_images,); None of none."""
    is_told = scored.scores >= thresholds[scored.image]
    return float(scored.falseness[is_told].mean()) if is_told.any() else None
