"""A mask without logits as a prompt: the rule keeps what the mask says, on the grid of any model."""

import numpy as np
import pytest

from engine.errors import BadInput
from engine.modeling.mask_prompt import (
    INSIDE,
    OUTSIDE,
    covered_share,
    logits_of_share,
    mask_prompt,
    reachable_iou,
)
from engine.modeling.registry import build_sam
from engine.modeling.sam_config import CONFIGS, SamConfig, TinyVitConfig
from engine.modeling.upscale import upscale_logits

SMALL = SamConfig("small", 128, TinyVitConfig((8, 8, 16, 16), (1, 1, 1, 1), (1, 1, 2, 2), (4, 4, 8, 4)))


def disc(hw: tuple[int, int], x: int, y: int, radius: int) -> np.ndarray:
    rows, columns = np.ogrid[: hw[0], : hw[1]]
    return np.asarray((columns - x) ** 2 + (rows - y) ** 2 <= radius**2)


@pytest.mark.parametrize("hw", [(90, 120), (300, 200), (64, 64)])
@pytest.mark.parametrize("config", [SMALL, CONFIGS["tiny"], CONFIGS["vit_b"]])
def test_the_logits_upscale_to_the_mask_again(hw: tuple[int, int], config: SamConfig) -> None:
    mask = disc(hw, hw[1] // 3, hw[0] // 2, 18)
    begun = mask_prompt(mask, config)
    assert begun.low_res_logits.shape == (config.logits_size,) * 2
    again = upscale_logits(begun.low_res_logits[None], hw, config)[0] > 0
    # On the coarsest grid here the disc is four cells across, and the smoothing tells.
    assert reachable_iou(mask, config) > 0.9 and (again & mask).sum() / (again | mask).sum() > 0.7


def test_shares_are_exact_and_the_padding_is_empty() -> None:
    config = CONFIGS["tiny"]
    share = covered_share(np.ones((100, 200), bool), config)
    # 100 of 200 rows: half of the grid's height, the rest is padding.
    assert share[:64].min() == pytest.approx(1) and share[64:].max() == 0
    assert covered_share(disc((100, 200), 60, 50, 20), config).sum() * (200 / 128) ** 2 == pytest.approx(
        disc((100, 200), 60, 50, 20).sum(), rel=1e-5
    )


def test_the_rule_reaches_its_ends_inside_and_outside_and_zero_at_a_half() -> None:
    share = np.zeros((9, 9), np.float32)
    share[:, :5] = 1
    logits = logits_of_share(share)
    assert logits[4, 0] == INSIDE and logits[4, -1] == OUTSIDE
    assert logits[4, 4] > 0 > logits[4, 5]
    assert (logits_of_share(np.full((4, 4), 0.5, np.float32)) == 0).all()
    # A line of one cell keeps its sign.
    line = np.zeros((9, 9), np.float32)
    line[4] = 1
    assert (logits_of_share(line)[4] > 0).all()


def test_the_box_is_the_masks_own_and_an_empty_mask_is_refused() -> None:
    assert mask_prompt(disc((50, 50), 20, 25, 5), SMALL).prompt == {
        "kind": "box",
        "x0": 15,
        "y0": 20,
        "x1": 26,
        "y1": 31,
    }
    with pytest.raises(BadInput, match="begin with a click"):
        mask_prompt(np.zeros((5, 5), bool), SMALL)


def test_an_architecture_of_other_sizes_takes_the_same_prompt() -> None:
    sam = build_sam(SMALL, seed=0)
    begun = mask_prompt(disc((96, 128), 40, 40, 20), sam.config)
    assert begun.low_res_logits.dtype == np.float32
