import math

import pytest
import torch

from engine.training.losses import LossWeights, dice_loss, focal_loss, mask_iou, prompt_loss


def test_focal_loss_of_an_undecided_mask_is_the_hand_computed_value() -> None:
    logits, target = torch.zeros(1, 2, 2), torch.tensor([[[1.0, 0.0], [0.0, 0.0]]])
    # p = 1/2 everywhere: weight (1/2)^2, entropy ln 2; alpha 1/4 on the one mask cell, 3/4 on three others
    expected = (0.25 * 1 + 0.75 * 3) / 4 * 0.25 * math.log(2)
    assert focal_loss(logits, target).item() == pytest.approx(expected)


def test_focal_loss_of_a_covered_share_is_least_at_that_share() -> None:
    share = torch.full((1, 1, 1), 0.3)
    values = [focal_loss(torch.logit(torch.full((1, 1, 1), p)), share).item() for p in (0.1, 0.3, 0.5)]
    assert values[1] < values[0] and values[1] < values[2]


def test_dice_loss_of_right_and_wrong_masks() -> None:
    target = torch.zeros(1, 4, 4)
    target[:, :2] = 1
    assert dice_loss((target * 2 - 1) * 50, target).item() == pytest.approx(0.0, abs=1e-6)
    # no overlap: 1 - 1 / (8 + 8 + 1)
    assert dice_loss((1 - target * 2) * 50, target).item() == pytest.approx(1 - 1 / 17)


def test_iou_is_intersection_over_union_and_zero_for_two_empty_masks() -> None:
    logits, target = torch.tensor([[[1.0, 1.0, -1.0]]]), torch.tensor([[[1.0, 0.0, 1.0]]])
    assert mask_iou(logits, target).item() == pytest.approx(1 / 3)
    assert mask_iou(-torch.ones(1, 1, 2), torch.zeros(1, 1, 2)).item() == 0.0


def test_only_the_best_of_three_masks_is_taught() -> None:
    target = torch.zeros(1, 4, 4)
    target[:, :2] = 1
    logits = torch.stack([target * 4 - 2, -(target * 4 - 2), torch.zeros(1, 4, 4)], dim=1).requires_grad_()
    prompt_loss(logits, torch.zeros(1, 3), target, LossWeights()).backward()
    assert logits.grad is not None
    assert logits.grad[0, 0].abs().sum() > 0
    assert logits.grad[0, 1:].abs().sum() == 0


def test_every_candidates_score_is_taught_its_iou() -> None:
    target = torch.ones(1, 4, 4)
    logits = torch.stack([torch.ones(1, 4, 4), -torch.ones(1, 4, 4), torch.ones(1, 4, 4)], dim=1)
    scores = torch.tensor([[0.5, 0.5, 1.0]], requires_grad=True)
    prompt_loss(logits, scores, target, LossWeights()).backward()
    assert scores.grad is not None
    # d/ds of mean (s - iou)^2 over three, with true IoU 1, 0, 1
    assert torch.allclose(scores.grad, torch.tensor([[-1 / 3, 1 / 3, 0.0]]))


def test_the_candidate_that_is_shown_learns_in_its_share_beside_the_best_one() -> None:
    target = torch.ones(1, 2, 2)
    # The second candidate is right, the first has the higher score.
    logits = torch.stack([-target, target], dim=1).requires_grad_()
    scores = torch.tensor([[0.9, 0.1]])
    prompt_loss(logits, scores, target, LossWeights(iou=0.0)).backward()
    assert logits.grad is not None
    assert logits.grad[0, 0].abs().sum() == 0 and logits.grad[0, 1].abs().sum() > 0
    alone = logits.grad[0, 1].clone()
    logits.grad = None
    prompt_loss(logits, scores, target, LossWeights(iou=0.0, shown=0.25)).backward()
    assert logits.grad is not None
    assert torch.allclose(logits.grad[0, 1], 0.75 * alone) and logits.grad[0, 0].abs().sum() > 0
