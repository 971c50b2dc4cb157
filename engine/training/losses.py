"""The losses of Segment Anything (appendix A): focal and dice 20:1, and squared error on the predicted IoU.

Targets may be soft: the share of a logit cell that the mask covers. For targets of 0 and 1 the focal loss
is the one of Lin et al.; for shares it is its continuous form, so the zero of the logits sits where half a
cell is covered and masks keep their border when they are upscaled.
"""

from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional as F


@dataclass(frozen=True)
class LossWeights:
    """Weights of the sum, and the focal loss's two constants; `focal_alpha` None weighs both sides alike.

    `shown` is the share of the mask loss that goes to the candidate with the highest score instead of the
    best one: 0 in the paper. It is what a person sees first, and where scores choose badly it learns to be
    wrong by less.
    """

    focal: float = 20.0
    dice: float = 1.0
    iou: float = 1.0
    focal_alpha: float | None = 0.25
    focal_gamma: float = 2.0
    shown: float = 0.0


def focal_loss(logits: Tensor, target: Tensor, alpha: float | None = 0.25, gamma: float = 2.0) -> Tensor:
    """Per-mask mean focal loss; (..., h, w) logits and targets in 0..1 give (...,)."""
    cross_entropy = F.binary_cross_entropy_with_logits(logits, target, reduction="none")
    loss = cross_entropy * (torch.sigmoid(logits) - target).abs().pow(gamma)
    if alpha is not None:
        loss = loss * (alpha * target + (1 - alpha) * (1 - target))
    return loss.mean(dim=(-2, -1))


def dice_loss(logits: Tensor, target: Tensor) -> Tensor:
    """Per-mask dice loss with one cell of smoothing; (..., h, w) give (...,)."""
    probability = torch.sigmoid(logits)
    overlap = (probability * target).sum(dim=(-2, -1))
    total = probability.sum(dim=(-2, -1)) + target.sum(dim=(-2, -1))
    return 1 - (2 * overlap + 1) / (total + 1)


@torch.no_grad()
def mask_iou(logits: Tensor, target: Tensor) -> Tensor:
    """IoU of `logits > 0` with `target > 0.5`, per mask; an empty union counts 0."""
    predicted, truth = logits > 0, target > 0.5
    overlap = (predicted & truth).sum(dim=(-2, -1)).float()
    union = (predicted | truth).sum(dim=(-2, -1)).float()
    return overlap / union.clamp(min=1)


def prompt_loss(logits: Tensor, predicted_iou: Tensor, target: Tensor, weights: LossWeights) -> Tensor:
    """The mean loss of one decoder call.

    `logits` (B, n, h, w), `predicted_iou` (B, n), `target` (B, h, w). Of n candidates only the one with the
    lowest mask loss is back-propagated (ambiguity, appendix A); every candidate's IoU score is taught,
    because the score is what later chooses among them.
    """
    truth = target[:, None].expand_as(logits)
    masks = weights.focal * focal_loss(logits, truth, weights.focal_alpha, weights.focal_gamma)
    masks = masks + weights.dice * dice_loss(logits, truth)
    score_error = (predicted_iou - mask_iou(logits, truth)).pow(2)
    taught = masks.min(dim=1).values
    if weights.shown:
        shown = masks.gather(1, predicted_iou.detach().argmax(dim=1, keepdim=True))[:, 0]
        taught = (1 - weights.shown) * taught + weights.shown * shown
    return taught.mean() + weights.iou * score_error.mean()
