"""bfloat16 is used where the machine has it; weights and what is reported stay float32."""

import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from engine.training.precision import autocast, has_bfloat16
from engine.training.steps import draw_batch, take_step
from engine.training.trainer import TrainConfig, advance, begin
from tests.training.conftest import SMALL, Disks

CPU = torch.device("cpu")


def test_a_cpu_has_it_when_its_flags_say_so() -> None:
    flags = re.search(r"^flags.*$", Path("/proc/cpuinfo").read_text(), re.MULTILINE)
    assert has_bfloat16(CPU) == bool(flags and re.search(r"\b(avx512_bf16|amx_bf16)\b", flags[0]))


def test_a_context_that_is_off_changes_nothing() -> None:
    layer, x = torch.nn.Linear(8, 8), torch.randn(2, 8)
    with autocast(CPU, False):
        assert torch.equal(layer(x), torch.nn.functional.linear(x, layer.weight, layer.bias))
    with autocast(CPU, True):
        assert layer(x).dtype == torch.bfloat16


def test_a_step_in_bfloat16_moves_float32_weights_nearly_as_in_float32(
    quick: TrainConfig, disks: Disks, tmp_path: Path
) -> None:
    """Emulated where the CPU lacks it: slow, and the same arithmetic."""
    losses = {}
    for bfloat16 in (False, True):
        run = begin(quick, None, tmp_path / str(bfloat16), SMALL.to_dict())
        rng = np.random.default_rng(0)
        batch = draw_batch(disks, 2, 3, SMALL.img_size, quick.views, rng)
        report = take_step(
            run.sam, run.head, batch, quick.prompts, quick.losses, 0.5, 64, rng, bfloat16=bfloat16
        )
        losses[bfloat16] = report.loss
        gradients = [p.grad for p in run.parts.parameters() if p.grad is not None]
        assert {gradient.dtype for gradient in gradients} == {torch.float32}
        assert all(gradient.isfinite().all() for gradient in gradients)
    assert losses[True] == pytest.approx(losses[False], rel=0.05) and losses[True] != losses[False]


def test_two_halves_of_a_batch_make_one_update(quick: TrainConfig, disks: Disks, tmp_path: Path) -> None:
    """Accumulated gradients are means: twice the batches move the weights about as far, not twice as far."""
    moved = []
    for n in (1, 4):
        config = replace(quick, accumulate=n, grouping=0.0, clip_norm=1e9)
        run = begin(config, None, tmp_path / str(n), SMALL.to_dict())
        norms: list[float] = []
        parts = run.parts

        def note(*_: Any, parts: nn.ModuleDict = parts, norms: list[float] = norms) -> None:
            gradients = [p.grad.flatten() for p in parts.parameters() if p.grad is not None]
            norms.append(float(torch.cat(gradients).norm()))

        run.optimizer.register_step_pre_hook(note)
        advance(run, config, disks)
        assert run.step == 1 and len(norms) == 1
        moved.append(norms[0])
    assert moved[1] < 1.5 * moved[0]
