"""Simulated prompts of training (paper appendix A): a first point or box, then points drawn from the error.

Coordinates are pixels of the model's frame, x then y; whole numbers are pixel centres, as in the official
prompt encoder, which adds the half pixel itself.
"""

from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor


@dataclass(frozen=True)
class PromptRules:
    """How prompts are drawn. The paper's 11 rounds: a first prompt, eight points, two without a new one."""

    rounds: int = 11
    box_share: float = 0.5
    box_jitter: float = 0.1
    box_jitter_cap_px: float = 20.0
    n_rounds_without_point: int = 2
    # Up to so many rounds more, drawn anew each step, lie between the first and the second: they are answered
    # and corrected but not learned from, at a third of a round's cost. So few rounds teach long sessions.
    unlearned_rounds: int = 0
    # How often the first point is the mask's innermost one, as people click, instead of any.
    centre_share: float = 0.0
    # How often a step's sessions begin with a spoilt true mask to be corrected, instead of with nothing.
    spoilt_share: float = 0.0


def point_in(mask: NDArray[np.bool_], rng: np.random.Generator) -> tuple[float, float]:
    """A pixel (x, y) drawn uniformly from a mask (H, W) that is not empty."""
    chosen = rng.choice(np.flatnonzero(mask))
    y, x = divmod(int(chosen), mask.shape[1])
    return float(x), float(y)


def box_around(mask: NDArray[np.bool_]) -> NDArray[np.float32]:
    """The tight box (4,) as x0, y0, x1, y1 of a mask that is not empty; x1 and y1 lie just outside."""
    ys, xs = np.flatnonzero(mask.any(axis=1)), np.flatnonzero(mask.any(axis=0))
    return np.array([xs[0], ys[0], xs[-1] + 1, ys[-1] + 1], dtype=np.float32)


def jittered_box(
    mask: NDArray[np.bool_], rules: PromptRules, rng: np.random.Generator
) -> NDArray[np.float32]:
    """The tight box with noise on each coordinate: sd a tenth of the side, never more than 20 px."""
    box = box_around(mask)
    side = np.tile(box[2:] - box[:2], 2)
    noise = rng.normal(0.0, 1.0, 4) * rules.box_jitter * side
    noise = np.clip(noise, -rules.box_jitter_cap_px, rules.box_jitter_cap_px)
    h, w = mask.shape
    moved = np.clip(box + noise, 0, [w, h, w, h])
    x0, x1 = sorted((moved[0], moved[2]))
    y0, y1 = sorted((moved[1], moved[3]))
    return np.array([x0, y0, x1, y1], dtype=np.float32)


def rounds_without_point(rules: PromptRules, rng: np.random.Generator) -> frozenset[int]:
    """Rounds (counted from 0) that only feed the logits back: the last one, and one drawn before it."""
    if rules.rounds < 4 or rules.n_rounds_without_point == 0:
        return frozenset()
    last = rules.rounds - 1
    drawn = rng.choice(np.arange(1, last), size=rules.n_rounds_without_point - 1, replace=False)
    return frozenset([last, *(int(number) for number in drawn)])


def error_points(
    logits: Tensor, target: Tensor, stride_px: int, generator: torch.Generator
) -> tuple[Tensor, Tensor]:
    """One point per mask, uniform over the cells where the prediction is wrong.

    `logits` (B, h, w), `target` (B, h, w) in 0..1, on a grid of `stride_px` model pixels. Returns coordinates
    (B, 1, 2) in pixels, at the centres of cells, and labels (B, 1): 1 where mask was missed, 0 where there
    is too much. A prediction without error gets another point inside its mask.
    """
    truth = target > 0.5
    wrong = (logits > 0) != truth
    fallback = torch.where(truth.flatten(1).any(dim=1)[:, None, None], target, torch.ones_like(target))
    weights = torch.where(wrong.flatten(1).any(dim=1)[:, None, None], wrong.float(), fallback)
    cells = torch.multinomial(weights.flatten(1), 1, generator=generator)
    labels = torch.gather(truth.flatten(1), 1, cells).long()
    width = target.shape[-1]
    xy = torch.stack([cells % width, cells // width], dim=-1)
    return (xy.float() + 0.5) * stride_px - 0.5, labels
