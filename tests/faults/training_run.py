"""`python -m tests.faults.training_run SAMPLES OUT STEPS`: a training of seconds that prints its steps."""

import sys
from pathlib import Path

import torch

from engine.training.dataset import FolderSamples
from engine.training.prompts import PromptRules
from engine.training.trainer import Progress, TrainConfig, train
from engine.training.views import ViewRules
from tests.training.conftest import SMALL


def recipe(steps: int) -> TrainConfig:
    """Every part of a real recipe, small."""
    return TrainConfig(
        "drill",
        steps=steps,
        n_images=2,
        n_masks=3,
        views=ViewRules(window_px=64, min_area_px=20),
        prompts=PromptRules(rounds=2),
        warmup_steps=2,
        grouping=0.5,
        grouping_steps=4,
        checkpoint_every=2,
    )


def run(samples: Path, out_dir: Path, steps: int) -> None:
    """Begins, or goes on where the last one was killed."""
    torch.set_num_threads(1)

    def say(progress: Progress) -> None:
        print(progress.step, flush=True)

    train(recipe(steps), FolderSamples(samples), None, out_dir, say, architecture=SMALL.to_dict())


if __name__ == "__main__":
    run(Path(sys.argv[1]), Path(sys.argv[2]), int(sys.argv[3]))
