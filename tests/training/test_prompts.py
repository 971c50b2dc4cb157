import numpy as np
import torch

from engine.training.prompts import (
    PromptRules,
    box_around,
    error_points,
    jittered_box,
    point_in,
    rounds_without_point,
)
from engine.training.steps import first_point


def ring() -> np.ndarray:
    ys, xs = np.mgrid[:60, :80]
    distance = np.hypot(xs - 40, ys - 30)
    return np.asarray((distance < 20) & (distance > 12))


def test_first_points_lie_in_the_mask_and_reach_all_of_it() -> None:
    rng, mask = np.random.default_rng(0), ring()
    points = np.array([point_in(mask, rng) for _ in range(400)], dtype=int)
    assert mask[points[:, 1], points[:, 0]].all()
    assert {(x > 40, y > 30) for x, y in points} == {(a, b) for a in (True, False) for b in (True, False)}


def test_box_noise_has_a_tenth_of_the_side_and_never_passes_twenty_pixels() -> None:
    rng, rules = np.random.default_rng(1), PromptRules()
    mask = np.zeros((1000, 1000), dtype=bool)
    mask[300:320, 200:700] = True
    tight = box_around(mask)
    assert tight.tolist() == [200, 300, 700, 320]
    noise = np.array([jittered_box(mask, rules, rng) - tight for _ in range(500)])
    assert np.abs(noise[:, [0, 2]]).max() == 20
    assert 1.7 < noise[:, [1, 3]].std() < 2.3


def test_boxes_stay_in_the_picture_and_in_order() -> None:
    rng, mask = np.random.default_rng(2), np.zeros((20, 20), dtype=bool)
    mask[0:19, 5] = True
    boxes = np.array([jittered_box(mask, PromptRules(), rng) for _ in range(200)])
    assert boxes.min() >= 0 and boxes.max() <= 20
    assert (boxes[:, 0] <= boxes[:, 2]).all() and (boxes[:, 1] <= boxes[:, 3]).all()


def test_two_of_eleven_rounds_bring_no_point_and_the_last_is_one() -> None:
    rng = np.random.default_rng(3)
    drawn = [rounds_without_point(PromptRules(), rng) for _ in range(50)]
    assert all(len(rounds) == 2 and 10 in rounds and 0 not in rounds for rounds in drawn)
    assert len({min(rounds) for rounds in drawn}) > 5
    assert rounds_without_point(PromptRules(rounds=3), rng) == frozenset()


def test_later_points_come_from_the_error_with_its_sign() -> None:
    target = torch.zeros(2, 16, 16)
    target[:, 4:12, 4:12] = 1
    logits = torch.full((2, 16, 16), -1.0)
    logits[1, 4:12, 4:16] = 1.0  # the second mask is too much on its right
    coords, labels = error_points(logits, target, 4, torch.Generator().manual_seed(0))
    assert labels[:, 0].tolist() == [1, 0]
    x, y = ((coords[1, 0] + 0.5) / 4).tolist()
    assert 12 <= x < 16 and 4 <= y < 12


def test_a_perfect_prediction_is_clicked_inside_its_mask() -> None:
    target = torch.zeros(1, 16, 16)
    target[:, 2:5, 7:9] = 1
    coords, labels = error_points(target * 2 - 1, target, 4, torch.Generator().manual_seed(0))
    x, y = ((coords[0, 0] + 0.5) / 4).int().tolist()
    assert target[0, y, x] == 1 and labels.item() == 1


def test_a_first_click_is_the_innermost_point_as_often_as_the_rules_say() -> None:
    mask = np.zeros((40, 40), dtype=bool)
    mask[10:31, 10:31] = True
    rng = np.random.default_rng(2)
    clicks = [first_point(mask, PromptRules(centre_share=0.5), rng) for _ in range(200)]
    assert 70 < clicks.count((20.0, 20.0)) < 130
    always = PromptRules(centre_share=1.0)
    assert first_point(mask, always, rng) == (20.0, 20.0)
