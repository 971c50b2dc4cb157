"""What each location of the detector should say about one image, and how much that counts."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor

from engine.errors import BadInput
from engine.modeling.detector import Locations
from engine.modeling.prompts import to_model_frame
from engine.modeling.sam_config import SamConfig

Floats = NDArray[np.float32]

# Half side of the middle region that answers for a box (FCOS's centre sampling): at least this many strides,
# or this share of the box, whichever is more. Off-centre locations see too little of the other end.
CENTRE_STRIDES = 1.5
CENTRE_SHARE = 0.15
# People in stage 1 have a time budget and draw what is prominent, so a place without a mask may well hold a
# thing. It still says "probably nothing" (else the detector would propose everywhere), but softly.
INCOMPLETE_WEIGHT = 0.25
# A person looked at this very box and threw it out: worth several places that nobody looked at.
REJECTED_WEIGHT = 4.0
BOX_WEIGHT = 2.0


@dataclass(frozen=True)
class DetectorSample:
    """One image to learn from: `embedding` (C, g, g), boxes (n, 4) of human masks and (m, 4) of proposals
    that a person rejected, both xyxy in original pixels; `complete` when every thing in it has its box."""

    embedding: NDArray[np.floating]
    original_hw: tuple[int, int]
    boxes_xyxy: NDArray[np.floating]
    negatives_xyxy: NDArray[np.floating]
    complete: bool


@dataclass(frozen=True)
class Targets:
    """Of one image: `box_index` (L,) the row of `boxes_px` (n, 4, frame pixels) each location answers for, -1
    for none; `weights` (L,) of its logit, 0 in the padding."""

    box_index: Tensor
    weights: Tensor
    boxes_px: Tensor


def make_targets(sample: DetectorSample, locations: Locations, config: SamConfig) -> Targets:
    """Where boxes overlap, the smaller one gets the location, as in FCOS. Raises BadInput on bad boxes."""
    input_hw = config.input_hw(sample.original_hw)
    boxes = _framed(sample.boxes_xyxy, sample.original_hw, input_hw)
    negatives = _framed(sample.negatives_xyxy, sample.original_hw, input_hw)
    box_index = _answering(boxes, locations)
    weights = torch.full((len(box_index),), 1.0 if sample.complete else INCOMPLETE_WEIGHT)
    # A rejected proposal on top of a drawn box was a bad mask of a real thing; the box wins.
    weights[_answering(negatives, locations) >= 0] = REJECTED_WEIGHT
    weights[box_index >= 0] = 1.0
    outside = (locations.centres_px >= torch.tensor([input_hw[1], input_hw[0]])).any(1)
    weights[outside] = 0.0
    return Targets(box_index.to(torch.int16), weights.half(), boxes)


def _framed(
    boxes_xyxy: NDArray[np.floating], original_hw: tuple[int, int], input_hw: tuple[int, int]
) -> Tensor:
    boxes = np.asarray(boxes_xyxy, np.float64).reshape(-1, 2, 2)
    if not np.isfinite(boxes).all() or (boxes[:, 1] <= boxes[:, 0]).any():
        raise BadInput("a training box needs finite corners, the second right of and below the first")
    return torch.from_numpy(to_model_frame(boxes, original_hw, input_hw).reshape(-1, 4))


def _answering(boxes: Tensor, locations: Locations) -> Tensor:
    """(L,) index of the smallest box in whose middle region each location lies, else -1."""
    chosen = torch.full((len(locations.centres_px),), -1, dtype=torch.long)
    sides = boxes[:, 2:] - boxes[:, :2]
    # Large first, so that smaller ones overwrite them.
    for index in torch.argsort(sides.prod(1), descending=True).tolist():
        box, longest = boxes[index], sides[index].max()
        at_level = (longest > locations.min_sides_px) & (longest <= locations.max_sides_px)
        reach = torch.maximum(CENTRE_STRIDES * locations.strides_px[:, None], CENTRE_SHARE * sides[index])
        # Never beyond the box itself, but a sliver keeps the location next to its middle.
        reach = torch.minimum(reach, torch.maximum(sides[index] / 2, locations.strides_px[:, None] / 2))
        off = (locations.centres_px - (box[:2] + box[2:]) / 2).abs()
        chosen[at_level & (off <= reach).all(1)] = index
    return chosen


def detector_loss(logits: Tensor, boxes: Tensor, targets: Sequence[Targets]) -> Tensor:
    """Quality focal loss (Li et al. 2020) plus GIoU over a batch: logits (B, L), boxes (B, L, 4); a scalar.

    A location that answers for a box learns the IoU its own box has with it, all others learn 0: the score
    then ranks by fit and no second "centerness" is needed.
    """
    box_index = torch.stack([target.box_index for target in targets])
    weights = torch.stack([target.weights for target in targets]).float()
    rows, places = torch.nonzero(box_index >= 0, as_tuple=True)
    offsets = np.cumsum([0, *(len(target.boxes_px) for target in targets[:-1])])
    truth = torch.cat([target.boxes_px for target in targets])
    truth = truth[box_index[rows, places].long() + torch.from_numpy(offsets)[rows]]
    ious, gious = paired_iou(boxes[rows, places], truth)
    quality = torch.zeros_like(logits)
    quality[rows, places] = ious.detach()
    focal = (logits.detach().sigmoid() - quality).square()
    told = F.binary_cross_entropy_with_logits(logits, quality, reduction="none") * focal * weights
    return (told.sum() + BOX_WEIGHT * (1 - gious).sum()) / max(1, len(rows))


def paired_iou(first: Tensor, second: Tensor) -> tuple[Tensor, Tensor]:
    """IoU and generalised IoU (Rezatofighi et al. 2019) of (K, 4) with (K, 4) boxes xyxy: (K,) each."""
    low, high = torch.minimum(first, second), torch.maximum(first, second)
    intersection = (low[:, 2:] - high[:, :2]).clamp(min=0).prod(1)
    areas = (first[:, 2:] - first[:, :2]).prod(1) + (second[:, 2:] - second[:, :2]).prod(1)
    union = (areas - intersection).clamp(min=1e-6)
    hull = (high[:, 2:] - low[:, :2]).prod(1).clamp(min=1e-6)
    iou = intersection / union
    return iou, iou - (hull - union) / hull
