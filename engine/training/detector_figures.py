"""How good a detector is: average recall as COCO defines it, precision, recall, and baselines beside it."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from engine.errors import BadInput
from engine.modeling.detector import Detector, build_detector, propose_boxes
from engine.modeling.sam_config import SamConfig
from engine.training.detector_targets import DetectorSample
from engine.training.matching import MATCH_IOU, greedy_matches

Floats = NDArray[np.floating]

AR_IOUS = np.linspace(0.5, 0.95, 10)  # COCO's

Proposer = Callable[[DetectorSample], tuple[Floats, Floats]]


@dataclass(frozen=True)
class ProposalFigures:
    """One source of boxes. `precision` and `recall` are of `n_proposed` boxes at IoU 0.5; a precision of no
    boxes is None."""

    average_recall: float
    precision: float | None
    recall: float
    n_proposed: int


@dataclass(frozen=True)
class DetectorFigures:
    """The detector above its threshold, and on the same images as many boxes per image of an untrained head
    (same sizes, `seed`) and of random boxes whose sizes are drawn from the true ones."""

    detector: ProposalFigures
    untrained: ProposalFigures
    random_boxes: ProposalFigures
    max_boxes: int
    n_images: int
    n_boxes: int


@dataclass(frozen=True)
class _Answer:
    truth: Floats
    boxes: Floats
    scores: Floats


def evaluate_detector(
    detector: Detector,
    samples: Sequence[DetectorSample],
    config: SamConfig,
    thresholds: Floats | float,
    *,
    max_boxes: int = 100,
    nms_iou: float = 0.6,
    seed: int = 0,
) -> DetectorFigures:
    """Figures on held-out samples: AR over the best `max_boxes` of each image, precision and recall from
    `thresholds` on, one for all or one for each sample. Raises BadInput when no sample holds a box.

    Where the truth is incomplete a found thing that nobody drew counts as false, so precision is a floor.
    """
    true_boxes = [np.asarray(sample.boxes_xyxy, np.float64).reshape(-1, 4) for sample in samples]
    n_boxes = sum(len(boxes) for boxes in true_boxes)
    if n_boxes == 0:
        raise BadInput("there is nothing to measure on: give held-out images with at least one mask")
    untrained = build_detector(detector.config, seed).eval()
    # Only the head is untrained: it reads its input at the same scale.
    untrained.channel_mean.copy_(detector.channel_mean)
    untrained.channel_scale.copy_(detector.channel_scale)
    sources: list[Proposer] = [
        _proposer(detector, config, max_boxes, nms_iou),
        _proposer(untrained, config, max_boxes, nms_iou),
        _random_boxes(np.concatenate(true_boxes), max_boxes, np.random.default_rng(seed)),
    ]
    answers = [
        [_Answer(truth, *propose(sample)) for truth, sample in zip(true_boxes, samples, strict=True)]
        for propose in sources
    ]
    of_image = np.broadcast_to(thresholds, len(samples))
    n_told = [int((answer.scores >= least).sum()) for answer, least in zip(answers[0], of_image, strict=True)]
    ours, of_untrained, of_random = (_figures(of_source, n_told) for of_source in answers)
    return DetectorFigures(ours, of_untrained, of_random, max_boxes, len(samples), n_boxes)


def average_recall(answers: Sequence[tuple[Floats, Floats, Floats]]) -> float:
    """Mean over IoU 0.5, 0.55 ... 0.95 of the share of true boxes found; per image (boxes, scores, truth)."""
    found = [
        (greedy_matches(boxes, scores, truth, iou) >= 0).sum()
        for boxes, scores, truth in answers
        for iou in AR_IOUS
    ]
    return float(sum(found) / len(AR_IOUS) / sum(len(truth) for _, _, truth in answers))


def _figures(answers: Sequence[_Answer], n_told: Sequence[int]) -> ProposalFigures:
    """Precision and recall of each image's best `n_told` boxes."""
    n_right = 0
    for answer, n_best in zip(answers, n_told, strict=True):
        best = np.argsort(-answer.scores, kind="stable")[:n_best]
        right = greedy_matches(answer.boxes[best], answer.scores[best], answer.truth, MATCH_IOU) >= 0
        n_right += int(right.sum())
    n_proposed = sum(min(n, len(a.boxes)) for n, a in zip(n_told, answers, strict=True))
    return ProposalFigures(
        average_recall([(answer.boxes, answer.scores, answer.truth) for answer in answers]),
        n_right / n_proposed if n_proposed else None,
        n_right / sum(len(answer.truth) for answer in answers),
        n_proposed,
    )


def _proposer(detector: Detector, config: SamConfig, max_boxes: int, nms_iou: float) -> Proposer:
    def propose(sample: DetectorSample) -> tuple[Floats, Floats]:
        embedding = np.asarray(sample.embedding, np.float32)
        # Score 0 keeps every box, so that recall is limited by the number of boxes alone.
        return propose_boxes(detector, embedding, sample.original_hw, config, 0.0, max_boxes, nms_iou)

    return propose


def _random_boxes(true_boxes: Floats, n_boxes: int, rng: np.random.Generator) -> Proposer:
    sizes = true_boxes[:, 2:] - true_boxes[:, :2]

    def propose(sample: DetectorSample) -> tuple[Floats, Floats]:
        image_wh = np.array([sample.original_hw[1], sample.original_hw[0]])
        drawn = np.minimum(sizes[rng.integers(len(sizes), size=n_boxes)], image_wh)
        corners = rng.uniform(size=drawn.shape) * (image_wh - drawn)
        return np.concatenate([corners, corners + drawn], axis=1), rng.uniform(size=n_boxes)

    return propose
