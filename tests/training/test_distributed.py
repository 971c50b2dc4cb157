"""Two processes train one model: equal weights, equal to one process that averages the two gradients."""

import os
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor, nn

from engine.training.dataset import write_folder
from engine.training.distributed import ALONE, Ranks
from engine.training.state import STATE_NAME, pack
from engine.training.steps import draw_batch, take_step
from engine.training.trainer import MODEL_NAME, Run, TrainConfig, begin, learning_rate, set_mode
from tests.training.conftest import SMALL, Disks
from tests.training.test_trainer import assert_same_bits

N_STEPS = 3

RANK = """
import os, sys
from pathlib import Path
import torch
from engine.training.dataset import FolderSamples
from engine.training.distributed import joined, leave
from engine.training.losses import LossWeights
from engine.training.prompts import PromptRules
from engine.training.state import pack, save_state
from engine.training.trainer import TrainConfig, advance, begin, train
from engine.training.views import ViewRules
from tests.training.conftest import SMALL

torch.set_num_threads(1)
what, samples, out = sys.argv[1], FolderSamples(Path(sys.argv[2])), Path(sys.argv[3])
config = {config!r}
with joined() as ranks:
    if what == "steps":
        run = begin(config, None, out, SMALL.to_dict())
        for _ in range({n_steps}):
            advance(run, config, samples, ranks)
        save_state(out / str(ranks.rank), pack(run.parts, run.ema, run.optimizer), {{}})
    else:
        train(config, samples, None, out, lambda progress: print(progress.step, flush=True),
              architecture=SMALL.to_dict(), ranks=ranks)
leave(0)
"""


@contextmanager
def two_ranks(
    config: TrainConfig, what: str, samples: Path, out: Path
) -> Iterator[list[subprocess.Popen[str]]]:
    """Both ranks, as torchrun starts them."""
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    shared = {"WORLD_SIZE": "2", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port), "OMP_NUM_THREADS": "1"}
    ranks = [
        subprocess.Popen(
            [sys.executable, "-c", RANK.format(config=config, n_steps=N_STEPS), what, str(samples), str(out)],
            cwd=Path(__file__).parents[2],
            env=os.environ | shared | {"RANK": str(n), "LOCAL_RANK": str(n), "GLOO_SOCKET_IFNAME": "lo"},
            stdout=subprocess.PIPE,
            text=True,
        )
        for n in range(2)
    ]
    try:
        yield ranks
    finally:
        for rank in ranks:
            if rank.poll() is None:
                rank.kill()
            rank.communicate()


def run_to_the_end(config: TrainConfig, what: str, samples: Path, out: Path) -> list[int]:
    """The steps that rank 0 told of."""
    with two_ranks(config, what, samples, out) as ranks:
        printed = [rank.communicate(timeout=240)[0] for rank in ranks]
    assert [rank.returncode for rank in ranks] == [0, 0]
    assert printed[1] == "", "only rank 0 speaks"
    return [int(line) for line in printed[0].split()]


@pytest.fixture
def samples(disks: Disks, tmp_path: Path) -> Path:
    write_folder((disks[n] for n in range(4)), tmp_path / "samples")
    return tmp_path / "samples"


def averaged_by_hand(config: TrainConfig, disks: Disks, folder: Path) -> Run:
    """What the ranks are to equal: one process, both batches of each step, gradients and norms averaged."""
    run = begin(config, None, folder, SMALL.to_dict())
    for step in range(N_STEPS):
        statistics = [statistic.clone() for statistic in floating_buffers(run.sam)]
        both_gradients, both_statistics = [], []
        for seed in ((config.seed, step), (config.seed, step, 1)):
            for buffer, kept in zip(floating_buffers(run.sam), statistics, strict=True):
                buffer.copy_(kept)
            rng = np.random.default_rng(seed)
            rng.integers(1 << 62)
            set_mode(run.sam, config.freeze_norm)
            batch = draw_batch(disks, config.n_images, config.n_masks, SMALL.img_size, config.views, rng)
            take_step(run.sam, run.head, batch, config.prompts, config.losses, 0.0, config.n_decoded, rng)
            both_gradients.append([p.grad for p in run.parts.parameters()])
            both_statistics.append([statistic.clone() for statistic in floating_buffers(run.sam)])
            run.optimizer.zero_grad(set_to_none=True)
        for parameter, one, other in zip(run.parts.parameters(), *both_gradients, strict=True):
            parameter.grad = None if one is None or other is None else (one + other) / 2
        for buffer, one, other in zip(floating_buffers(run.sam), *both_statistics, strict=True):
            buffer.copy_((one + other) / 2)
        for group in run.optimizer.param_groups:
            group["lr"] = learning_rate(step, config.steps, config) * group["lr_scale"]
        nn.utils.clip_grad_norm_(run.parts.parameters(), config.clip_norm)
        run.optimizer.step()
        run.optimizer.zero_grad(set_to_none=True)
    return run


def floating_buffers(model: nn.Module) -> list[Tensor]:
    return [buffer for buffer in model.buffers() if buffer.is_floating_point()]


def test_two_ranks_hold_equal_weights_that_equal_averaged_gradients(quick, disks, samples, tmp_path) -> None:
    config = replace(quick, grouping=0.0, grouping_steps=0)
    run_to_the_end(config, "steps", samples, tmp_path)
    first, second = (load_file(tmp_path / str(rank) / STATE_NAME) for rank in range(2))
    assert all(torch.equal(first[name], second[name]) for name in first)
    by_hand = averaged_by_hand(config, disks, tmp_path / "by_hand")
    expected = pack(by_hand.parts, {}, by_hand.optimizer)
    assert {name for name in expected if name.startswith("model.")} <= first.keys()
    # How many batches a norm has seen is counted, not averaged: by hand it saw both ranks'.
    counted = {name for name in expected if name.endswith("num_batches_tracked")}
    for name in expected.keys() - counted:
        torch.testing.assert_close(first[name], expected[name], rtol=1e-4, atol=1e-6, msg=name)
    alone = begin(config, None, tmp_path / "alone", SMALL.to_dict())
    start = pack(alone.parts, {}, alone.optimizer)
    assert any(not torch.equal(first[name], value) for name, value in start.items()), "nothing was learned"


@pytest.mark.slow
def test_a_run_of_two_ranks_killed_in_the_middle_ends_with_the_same_bits(quick, samples, tmp_path) -> None:
    config, killed = replace(quick, steps=8), tmp_path / "killed"
    with two_ranks(config, "train", samples, killed) as ranks:
        assert ranks[0].stdout is not None
        for line in ranks[0].stdout:
            if int(line) == 5:  # one step past the last saved state
                for rank in ranks:
                    os.kill(rank.pid, signal.SIGKILL)
                break
    assert not (killed / MODEL_NAME).exists()
    assert run_to_the_end(config, "train", samples, killed) == [5, 6, 7, 8]
    run_to_the_end(config, "train", samples, tmp_path / "whole")
    assert_same_bits(killed / MODEL_NAME, tmp_path / "whole" / MODEL_NAME)


def test_a_process_alone_averages_nothing_and_draws_as_ever() -> None:
    weight = nn.Parameter(torch.ones(3))
    weight.grad = gradient = torch.tensor([1.0, 2.0, 3.0])
    ALONE.average_gradients(iter([weight]))
    assert weight.grad is gradient
    assert (ALONE.decided(7), ALONE.average((1.5, 2.5))) == (7, (1.5, 2.5))
    assert ALONE.seed_of(3, 5) == (3, 5) == Ranks(rank=0, count=2).seed_of(3, 5)
    assert Ranks(rank=1, count=2).seed_of(3, 5) == (3, 5, 1)
