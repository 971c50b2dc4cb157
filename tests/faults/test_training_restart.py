"""Drill 9: a training killed at random steps ends with the bits of one that was left alone."""

import os
import subprocess
import sys
from pathlib import Path

import torch
from safetensors.torch import load_file

from engine.training.dataset import write_folder
from engine.training.state import load_state
from engine.training.trainer import MODEL_NAME
from tests.conftest import REPOSITORY
from tests.faults.drill import Drill, full_only
from tests.training.conftest import Disks

STEPS_PER_KILL = 6


def run_until(samples: Path, out_dir: Path, steps: int, last: int | None) -> int:
    """Starts the training and kills it -9 as soon as it says that step `last` is done; the steps it did."""
    command = [sys.executable, "-m", "tests.faults.training_run", str(samples), str(out_dir), str(steps)]
    n_done = 0
    ours = os.environ | {"OMP_NUM_THREADS": "1"}
    with subprocess.Popen(command, cwd=REPOSITORY, env=ours, stdout=subprocess.PIPE, text=True) as child:
        assert child.stdout is not None
        for line in child.stdout:
            n_done += 1
            if last is not None and int(line) >= last:
                child.kill()
                break
    assert last is not None or child.returncode == 0
    return n_done


def loads_whole(out_dir: Path) -> bool:
    """Whether what a killed run left is nothing or a whole state."""
    saved = load_state(out_dir)
    return saved is None or all(tensor.isfinite().all() for tensor in saved[0].values())


@full_only()
def test_training_restart(drill: Drill, tmp_path: Path) -> None:
    disks, n_kills = Disks(), drill.n(10)
    write_folder((disks[i] for i in range(4)), tmp_path / "samples")
    steps = n_kills * STEPS_PER_KILL
    # One kill in each stretch of steps, anywhere in it: between two saves, at one, or just after.
    kills = [STEPS_PER_KILL * n + int(drill.rng.integers(1, STEPS_PER_KILL)) for n in range(n_kills)]
    n_broken, n_steps = 0, 0
    for last in kills:
        n_steps += run_until(tmp_path / "samples", tmp_path / "killed", steps, last)
        n_broken += not loads_whole(tmp_path / "killed")
        assert not (tmp_path / "killed" / MODEL_NAME).exists()
    n_steps += run_until(tmp_path / "samples", tmp_path / "killed", steps, None)
    run_until(tmp_path / "samples", tmp_path / "whole", steps, None)
    killed, whole = (load_file(tmp_path / name / MODEL_NAME) for name in ("killed", "whole"))
    assert killed.keys() == whole.keys()
    drill.note("kills", len(kills))
    drill.note("steps", steps)
    drill.note("steps done again", n_steps - steps)
    drill.claim("half-written states", n_broken, 0)
    drill.claim("tensors that differ", sum(not torch.equal(killed[name], whole[name]) for name in whole), 0)
    drill.end()
