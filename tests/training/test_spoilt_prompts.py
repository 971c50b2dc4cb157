"""Training on existing masks: sessions that begin with a spoilt true mask instead of with nothing."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from safetensors.torch import load_file

from engine.modeling.mask_prompt import mask_prompt
from engine.training.prompts import PromptRules, rounds_without_point
from engine.training.recipes import RECIPES
from engine.training.spoiling import spoil_all
from engine.training.steps import (
    first_prompts,
    spoilt_prompts,
)
from engine.training.trainer import train
from tests.training.sessions import rounds


def test_the_prompt_of_training_is_that_of_the_page(batch, small) -> None:
    """A window that is the whole frame: same box, same logits as for a mask (H, W) of the image."""
    coords, labels, logits = spoilt_prompts(batch, np.random.default_rng(5))
    spoilt = spoil_all(batch.masks, 3, np.random.default_rng(5))
    for number, mask in enumerate(spoilt):
        begun = mask_prompt(mask, small)
        assert coords[number].flatten().tolist() == [begun.prompt[name] for name in ("x0", "y0", "x1", "y1")]
        assert np.allclose(logits[number, 0].numpy(), begun.low_res_logits, atol=1e-4)
    assert labels.tolist() == [[2, 3]] * 6


def test_a_session_on_a_mask_begins_with_its_box_a_correction_and_one_answer(sam, batch) -> None:
    listener = rounds(sam, batch, PromptRules(rounds=2, spoilt_share=1.0), np.random.default_rng(5))
    assert [multimask for *_, multimask in listener.asked] == [False, False]
    coords, labels, mask_input, _ = listener.asked[0]
    assert coords.shape == (6, 3, 2) and labels[:, :2].tolist() == [[2, 3]] * 6
    assert mask_input is not None
    for (x, y), label, mask, truth in zip(
        coords[:, 2].tolist(), labels[:, 2].tolist(), mask_input[:, 0], batch.targets, strict=True
    ):
        cell = int((y + 0.5) // 4), int((x + 0.5) // 4)
        assert bool(truth[cell] > 0.5) == bool(label)
        assert bool(mask[cell] > 0) != bool(label) or bool(((mask > 0) == (truth > 0.5)).all())
    assert listener.asked[1][0].shape == (6, 4, 2)


def test_even_one_round_teaches_the_mask_branch(sam, batch) -> None:
    for share, is_taught in ((0.0, False), (1.0, True)):
        sam.zero_grad()
        rounds(sam, batch, PromptRules(rounds=1, spoilt_share=share), np.random.default_rng(0))
        weight = sam.prompt_encoder.mask_downscaling[0].weight
        assert (weight.grad is not None and bool(weight.grad.any())) == is_taught


def test_without_a_share_nothing_more_is_drawn(sam, batch) -> None:
    """Equal seeds give the weights that they gave before there were spoilt masks."""
    rules, ours, before = PromptRules(rounds=5), np.random.default_rng(7), np.random.default_rng(7)
    listener = rounds(sam, batch, rules, ours)
    first_prompts(batch, rules, before)
    rounds_without_point(rules, before)
    assert ours.bit_generator.state == before.bit_generator.state
    assert [multimask for *_, multimask in listener.asked] == [True] + [False] * 4


def test_the_share_is_how_often_sessions_begin_with_a_mask(sam, batch) -> None:
    rng, rules = np.random.default_rng(1), PromptRules(rounds=1, spoilt_share=0.4)
    begun = [rounds(sam, batch, rules, rng).asked[0][2] is not None for _ in range(60)]
    assert 14 <= sum(begun) <= 34


def test_runs_with_spoilt_masks_repeat_their_bits(quick, disks, small, tmp_path: Path) -> None:
    config = replace(quick, prompts=replace(quick.prompts, spoilt_share=0.5))
    weights = []
    for name in ("one", "other"):
        written = train(config, disks, None, tmp_path / name, architecture=small.to_dict())
        assert written is not None
        weights.append(load_file(written))
    assert all(torch.equal(weights[0][name], weights[1][name]) for name in weights[0])


def test_the_papers_recipes_begin_with_nothing_and_the_last_bundled_stage_and_finetune_with_masks() -> None:
    stages = [stage for stages in RECIPES.values() for stage in stages if stage.prompts.spoilt_share > 0]
    assert {stage.recipe for stage in stages} == {"bundled-tiny.8", "finetune"}
