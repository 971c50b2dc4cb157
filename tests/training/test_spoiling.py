"""Masks made wrong on purpose: each spoiler does what it says, alike for equal seeds."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from engine.training.spoiling import LEAST_LEFT, SPOILERS, spoil, spoil_all
from engine.training.steps import draw_batch, spoilt_prompts, take_step
from engine.training.trainer import TrainConfig, begin
from tests.training.conftest import SMALL, Disks, disk

SIDE = 64


def pair() -> tuple[NDArray[np.bool_], NDArray[np.bool_]]:
    """A mask and its neighbour, three pixels apart."""
    return disk(SIDE, 20, 32, 10), disk(SIDE, 44, 32, 10)


@pytest.mark.parametrize("seed", range(4))
def test_each_spoiler_does_what_its_name_says(seed: int) -> None:
    mask, other = pair()
    wrong = {
        name: spoil(mask, [mask, other], spoiler, np.random.default_rng(seed))
        for name, spoiler in SPOILERS.items()
    }
    assert (wrong["dilation"] & mask).sum() == mask.sum() < wrong["dilation"].sum()
    assert not (wrong["erosion"] & ~mask).any() and 0 < wrong["erosion"].sum() < mask.sum()
    assert not (wrong["bites"] & ~mask).any()
    assert LEAST_LEFT * mask.sum() <= wrong["bites"].sum() < mask.sum()
    # The neighbour is nearer than a radius, so that is where it runs.
    assert (wrong["spill"] & mask).sum() == mask.sum() and (wrong["spill"] & other).any()


@pytest.mark.parametrize("name", SPOILERS)
def test_nothing_becomes_empty_and_equal_seeds_spoil_alike(name: str) -> None:
    full, dot = np.ones((8, 8), bool), np.zeros((8, 8), bool)
    dot[3, 4] = True
    for mask in (full, dot):
        first, again = (spoil(mask, [], SPOILERS[name], np.random.default_rng(1)) for _ in range(2))
        assert first.any() and np.array_equal(first, again)


def test_a_batch_is_spoilt_mask_by_mask() -> None:
    masks = np.stack(pair() * 2)
    spoilt = spoil_all(masks, 2, np.random.default_rng(0))
    assert spoilt.shape == masks.shape and all((a != b).any() for a, b in zip(spoilt, masks, strict=True))


def test_a_step_may_begin_with_spoilt_masks_to_correct(
    quick: TrainConfig, disks: Disks, tmp_path: Path
) -> None:
    """Without a share not a number is drawn for it; with one the same batch is prompted otherwise."""
    losses = []
    for share in (0.0, 1.0):
        run = begin(quick, None, tmp_path / str(share), SMALL.to_dict())
        rng = np.random.default_rng(0)
        batch = draw_batch(disks, 2, 3, SMALL.img_size, quick.views, rng)
        rules = replace(quick.prompts, spoilt_share=share)
        losses.append(take_step(run.sam, None, batch, rules, quick.losses, 0.0, 64, rng).loss)
        # The mask's way into the decoder learns only when masks come in first, or after the first round.
        assert all(p.grad is None or p.grad.isfinite().all() for p in run.parts.parameters())
    assert np.isfinite(losses).all() and losses[0] != losses[1]
    coords, labels, logits = spoilt_prompts(batch, rng)
    assert coords.shape == (6, 2, 2) and labels.tolist() == [[2, 3]] * 6
    assert logits.shape == (6, 1, *batch.targets.shape[1:])
