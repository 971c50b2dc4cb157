import os
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from engine.errors import BadInput
from engine.modeling.checkpoint import read_header
from engine.modeling.registry import build_sam
from engine.training.dataset import FolderSamples, write_folder
from engine.training.grouping import GroupingHead
from engine.training.prompts import PromptRules
from engine.training.state import STATE_NAME
from engine.training.steps import PromptedDecoder, draw_batch, take_step
from engine.training.trainer import MODEL_NAME, TrainConfig, learning_rate, train
from engine.training.views import ViewRules

CHILD = """
import sys
from dataclasses import replace
from pathlib import Path
import torch
sys.path[:0] = [{tests!r}]
from conftest import SMALL
from engine.training.dataset import FolderSamples
from engine.training.grouping import GroupingHead
from engine.training.prompts import PromptRules
from engine.training.trainer import TrainConfig, train
from engine.training.views import ViewRules

torch.set_num_threads(1)
config = {config!r}
train(config, FolderSamples(Path({samples!r})), None, Path({out!r}),
      lambda progress: print(progress.step, flush=True), architecture=SMALL.to_dict())
"""


def child_source(config: TrainConfig, samples: Path, out: Path) -> str:
    source = CHILD.format(config=config, samples=str(samples), out=str(out), tests=str(Path(__file__).parent))
    return source.replace("from engine.training.views import ViewRules", IMPORTS)


IMPORTS = """from engine.training.views import ViewRules
from engine.training.losses import LossWeights"""


def assert_same_bits(one: Path, other: Path) -> None:
    first, second = load_file(one), load_file(other)
    assert first.keys() == second.keys()
    assert all(torch.equal(first[name], second[name]) for name in first)


def test_a_run_killed_at_any_step_ends_with_the_same_bits(quick, disks, small, tmp_path: Path) -> None:
    write_folder((disks[i] for i in range(4)), tmp_path / "samples")
    config, killed = replace(quick, steps=8), tmp_path / "killed"
    command = [sys.executable, "-c", child_source(config, tmp_path / "samples", killed)]
    with subprocess.Popen(command, cwd=Path(__file__).parents[2], stdout=subprocess.PIPE, text=True) as child:
        assert child.stdout is not None
        for line in child.stdout:
            if int(line) == 5:  # one step past the last saved state
                os.kill(child.pid, signal.SIGKILL)
                break
    assert child.returncode == -signal.SIGKILL
    assert not (killed / MODEL_NAME).exists()
    samples, steps = FolderSamples(tmp_path / "samples"), []
    resumed = train(
        config, samples, None, killed, lambda p: steps.append(p.step), architecture=small.to_dict()
    )
    whole = train(config, samples, None, tmp_path / "whole", architecture=small.to_dict())
    assert steps == [5, 6, 7, 8]
    assert resumed is not None and whole is not None
    assert_same_bits(resumed, whole)


def test_a_stopped_run_is_saved_and_goes_on_where_it_was(quick, disks, small, tmp_path: Path) -> None:
    seen: list[int] = []

    def train_into(folder: str, n_calls: int) -> Path | None:
        calls = iter([False] * n_calls + [True])
        return train(
            quick,
            disks,
            None,
            tmp_path / folder,
            lambda progress: seen.append(progress.step),
            lambda: next(calls),
            architecture=small.to_dict(),
        )

    assert train_into("stopped", 3) is None
    resumed = train_into("stopped", 100)
    assert seen == [1, 2, 3, 4, 5, 6]
    whole = train_into("whole", 100)
    assert resumed is not None and whole is not None
    assert_same_bits(resumed, whole)


def test_a_finished_run_called_again_changes_nothing(quick, disks, small, tmp_path: Path) -> None:
    first = train(quick, disks, None, tmp_path, architecture=small.to_dict())
    assert first is not None
    content = first.read_bytes()
    steps: list[int] = []
    train(quick, disks, None, tmp_path, lambda p: steps.append(p.step), architecture=small.to_dict())
    assert steps == [] and first.read_bytes() == content


def test_another_recipe_may_not_go_on_in_the_same_folder(quick, disks, small, tmp_path: Path) -> None:
    train(quick, disks, None, tmp_path, architecture=small.to_dict())
    with pytest.raises(BadInput, match="another folder"):
        train(replace(quick, recipe="other"), disks, None, tmp_path, architecture=small.to_dict())


def test_the_checkpoint_says_what_made_it(quick, disks, small, tmp_path: Path) -> None:
    path = train(quick, disks, None, tmp_path, architecture=small.to_dict())
    assert path is not None
    config, facts = read_header(path)
    assert config == small
    assert (facts["recipe"], facts["seed"], facts["steps"]) == ("quick", "0", "6")
    assert build_sam(None, checkpoint=path).config == small


def test_a_time_boxed_run_writes_down_the_steps_it_planned(quick, disks, small, tmp_path: Path) -> None:
    config = replace(quick, steps=100_000, max_seconds=4.0)
    steps: list[tuple[int, int]] = []
    began = time.monotonic()
    path = train(
        config, disks, None, tmp_path, lambda p: steps.append((p.step, p.steps)), architecture=small.to_dict()
    )
    assert time.monotonic() - began < 12
    assert path is not None and path.is_file() and (tmp_path / STATE_NAME).is_file()
    assert steps[-1][0] < 100_000
    assert read_header(path)[1]["steps"] == str(steps[-1][0])


def test_one_picture_can_be_learned_by_heart(quick, disks, small, tmp_path: Path) -> None:
    config = replace(
        quick,
        steps=80,
        n_images=1,
        views=ViewRules(window_px=64, min_area_px=20, flip=False),
        prompts=PromptRules(rounds=1, box_share=0.0),
        lr=5e-3,
        warmup_steps=5,
        grouping_steps=100,
        checkpoint_every=1000,
    )
    losses: list[float] = []
    train(
        config,
        [disks[0]],
        None,
        tmp_path,
        lambda p: losses.append(p.report.loss),
        architecture=small.to_dict(),
    )
    assert np.mean(losses[-10:]) < 0.5 * np.mean(losses[:10])


def test_frozen_norms_keep_their_statistics(quick, disks, small, tmp_path: Path) -> None:
    start = train(quick, disks, None, tmp_path / "start", architecture=small.to_dict())
    tuned = train(replace(quick, freeze_norm=True), disks, start, tmp_path / "tuned")
    assert start is not None and tuned is not None
    before, after = load_file(start), load_file(tuned)
    name = "image_encoder.patch_embed.seq.0.bn.running_mean"
    assert torch.equal(before[name], after[name])
    assert not torch.equal(
        before[name.replace("running_mean", "weight")], after[name.replace("running_mean", "weight")]
    )


def test_the_rate_warms_up_and_cools_down() -> None:
    config = TrainConfig("rates", steps=100, lr=1.0, warmup_steps=10, cooldown_share=0.3)
    rates = [learning_rate(step, 100, config) for step in range(100)]
    assert rates[0] == pytest.approx(0.1) and rates[9:71] == pytest.approx([1.0] * 62)
    assert rates[-1] < 0.05 and rates[70:] == sorted(rates[70:], reverse=True)


def test_a_window_is_decoded_as_its_part_of_the_whole_frame(disks, small) -> None:
    """Position codes and clicks of a window equal those of the frame at its place."""
    sam = build_sam(small, seed=0)
    batch = draw_batch(disks, 1, 2, 64, ViewRules(window_px=32, min_area_px=20), np.random.default_rng(3))
    decode = PromptedDecoder(sam, torch.zeros(1, small.prompt_dim, 2, 2), batch)
    x, y = batch.cell_xy
    whole = sam.prompt_encoder.get_dense_pe()
    assert torch.equal(decode.position, whole[..., y : y + 2, x : x + 2])
    assert decode.origin_px.tolist() == [16 * x, 16 * y]
    logits, scores = decode(torch.zeros(2, 1, 2), torch.ones(2, 1), None, multimask=True)
    assert logits.shape == (2, 3, 8, 8) and scores.shape == (2, 3)


def test_detail_goes_past_the_transformer_and_is_taught_with_the_rest(quick, disks, small) -> None:
    sam = build_sam(replace(small, detail_channels=2), seed=0).train()
    batch = draw_batch(disks, 1, 2, 64, ViewRules(window_px=64, min_area_px=20), np.random.default_rng(3))
    head = GroupingHead(sam.config.embedding_channels)
    take_step(sam, head, batch, quick.prompts, quick.losses, 1.0, 1, np.random.default_rng(0))
    assert all(weight.grad is not None for weight in sam.image_encoder.parameters())
    assert sam.mask_decoder.detail_reading.weight.grad.abs().sum() > 0


def test_empty_samples_are_refused(quick, tmp_path: Path) -> None:
    with pytest.raises(BadInput, match="nothing to train on"):
        train(quick, [], None, tmp_path)
