"""Checkpoints of the official sizes, with random numbers in them, load by the official call and run."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from engine.modeling import SamPredictor, sam_model_registry
from engine.modeling.checkpoint import read_state
from engine.modeling.conversion import convert, read_checkpoint
from tests.modeling.test_drop_in import run_script

pytestmark = pytest.mark.slow


@pytest.fixture
def random_checkpoint(shared: Path, tmp_path: Path) -> Iterator[Callable[[str], Path]]:
    """Makes the file of an architecture, saved as the official one was: every key and shape of it."""
    listed = json.loads((shared / "parity/official_checkpoint_keys.json").read_text())
    files = []

    def make(name: str) -> Path:
        generator = torch.Generator().manual_seed(0)
        state = {
            key: torch.randn(shape, generator=generator) * (1.0 if len(shape) < 2 else shape[-1] ** -0.5)
            for key, shape in listed[f"sam_{name}"].items()
        }
        files.append(tmp_path / f"random_{name}.pth")
        torch.save(state, files[-1])
        return files[-1]

    yield make
    # Gigabytes, and pytest keeps the folders of its last three runs.
    for file in files:
        file.unlink()


def test_a_vit_b_runs_the_predictor_script(
    random_checkpoint: Callable[[str], Path], shared: Path, tmp_path: Path
) -> None:
    image = shared / "datasets/nuclei/images/4cbd6c37f3a5.png"
    run_script("predictor_example.py", random_checkpoint("vit_b"), "vit_b", image, tmp_path / "answers.npz")
    with np.load(tmp_path / "answers.npz") as answers:
        assert answers["embedding"].shape == (1, 256, 64, 64) and np.isfinite(answers["embedding"]).all()
        assert answers["one_point_logits"].shape == (3, 256, 256)
        assert answers["one_point_masks"].shape == (3, 256, 320)


def test_a_vit_b_becomes_a_card_and_a_decoder_without_a_bit_changed(
    random_checkpoint: Callable[[str], Path], tmp_path: Path
) -> None:
    file = random_checkpoint("vit_b")
    converted = convert(read_checkpoint(file), "0" * 64)
    (tmp_path / "weights").write_bytes(converted.weights)
    before, after = read_state(file), read_state(tmp_path / "weights")
    assert before.keys() == after.keys() and all(torch.equal(before[key], after[key]) for key in before)
    assert len(converted.decoder) < 25_000_000


def test_a_vit_h_loads_and_embeds_an_image(random_checkpoint: Callable[[str], Path], shared: Path) -> None:
    image = np.asarray(Image.open(shared / "datasets/nuclei/images/4cbd6c37f3a5.png").convert("RGB"))
    sam = sam_model_registry["vit_h"](checkpoint=random_checkpoint("vit_h"))
    assert sum(weight.numel() for weight in sam.parameters()) > 600_000_000
    predictor = SamPredictor(sam)
    predictor.set_image(image)
    masks, scores, _ = predictor.predict(np.array([[96.0, 102.4]]), np.array([1]))
    assert masks.shape == (3, 256, 320) and np.isfinite(scores).all()
    embedding = predictor.get_image_embedding()
    assert embedding.shape == (1, 256, 64, 64) and torch.isfinite(embedding).all()
