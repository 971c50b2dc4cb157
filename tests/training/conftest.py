"""The smallest model and pictures that still have every part."""

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from engine.modeling.registry import build_sam
from engine.modeling.sam import Sam
from engine.modeling.sam_config import SamConfig, TinyVitConfig
from engine.training.dataset import Sample
from engine.training.prompts import PromptRules
from engine.training.steps import Batch, draw_batch
from engine.training.trainer import TrainConfig
from engine.training.views import ViewRules

SMALL = SamConfig(
    "small",
    img_size=64,
    encoder=TinyVitConfig(
        embed_dims=(8, 16, 16, 32), depths=(1, 1, 1, 1), num_heads=(1, 1, 1, 2), window_sizes=(4, 4, 4, 4)
    ),
    prompt_dim=32,
    mlp_dim=32,
    iou_hidden=16,
    decoder_depth=1,
    decoder_heads=2,
)


class Disks:
    """Pictures of three bright disks on dark ground; number i is drawn from seed i."""

    def __init__(self, n_pictures: int = 4, side_px: int = 64) -> None:
        self.n_pictures, self.side_px = n_pictures, side_px

    def __len__(self) -> int:
        return self.n_pictures

    def __getitem__(self, index: int) -> Sample:
        rng = np.random.default_rng(index)
        image = np.full((self.side_px, self.side_px, 3), 40, dtype=np.uint8)
        masks = []
        for number in range(3):
            mask = disk(self.side_px, 12 + 20 * number, int(rng.integers(14, 50)), int(rng.integers(6, 10)))
            image[mask] = rng.integers(120, 255, 3)
            masks.append(mask)
        return Sample(image, masks)


def disk(side_px: int, x: int, y: int, radius_px: int) -> NDArray[np.bool_]:
    ys, xs = np.mgrid[:side_px, :side_px]
    return np.asarray((xs - x) ** 2 + (ys - y) ** 2 <= radius_px**2)


@pytest.fixture
def small() -> SamConfig:
    return SMALL


@pytest.fixture
def disks() -> Disks:
    return Disks()


@pytest.fixture(autouse=True)
def one_thread() -> None:
    torch.set_num_threads(1)


@pytest.fixture
def quick() -> TrainConfig:
    """A run of a few seconds."""
    return TrainConfig(
        "quick",
        steps=6,
        n_images=2,
        n_masks=3,
        views=ViewRules(window_px=64, min_area_px=20),
        prompts=PromptRules(rounds=2),
        warmup_steps=2,
        grouping=0.5,
        grouping_steps=4,
        checkpoint_every=2,
    )


@pytest.fixture
def sam(small) -> Sam:
    return build_sam(small, seed=0)


@pytest.fixture
def batch(disks) -> Batch:
    rules = ViewRules(window_px=64, min_area_px=20, flip=False)
    return draw_batch(disks, 2, 3, 64, rules, np.random.default_rng(3))
