"""The two reference models of the shared parity folder, and a very small Sam for everything else."""

import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from PIL import Image

from engine.modeling import Sam, SamConfig, build_sam
from engine.modeling.sam_config import TinyVitConfig, VitConfig


@dataclass(frozen=True)
class Reference:
    """One model of ../shared/parity with the official code's answers."""

    sam: Sam
    cases: dict
    outputs: dict[str, NDArray]
    image: NDArray[np.uint8]


@pytest.fixture(autouse=True, scope="session")
def one_thread() -> None:
    torch.set_num_threads(1)


@pytest.fixture(params=["tiny_sam", "trained_tiny_sam"], scope="session")
def reference(request: pytest.FixtureRequest, shared: Path) -> Iterator[Reference]:
    yield read_reference(shared, request.param)


@pytest.fixture(scope="session")
def untrained(shared: Path) -> Reference:
    return read_reference(shared, "tiny_sam")


@pytest.fixture(scope="session")
def trained(shared: Path) -> Reference:
    return read_reference(shared, "trained_tiny_sam")


@pytest.fixture(scope="session")
def small_config() -> SamConfig:
    encoder = TinyVitConfig((8, 8, 16, 16), (1, 1, 1, 1), (1, 1, 2, 2), (4, 4, 8, 4))
    return SamConfig("small", 128, encoder, prompt_dim=16, mlp_dim=32, iou_hidden=16)


@pytest.fixture(scope="session")
def small_sam(small_config: SamConfig) -> Sam:
    return build_sam(small_config, seed=0)


def read_reference(shared: Path, name: str) -> Reference:
    parity = shared / "parity"
    sizes = json.loads((parity / f"{name}_config.json").read_text())
    encoder = VitConfig(
        sizes["embed_dim"],
        sizes["depth"],
        sizes["num_heads"],
        tuple(sizes["global_attn_indexes"]),
        sizes["window_size"],
    )
    config = SamConfig(
        name, sizes["img_size"], encoder, sizes["prompt_dim"], sizes["mlp_dim"], sizes["iou_hidden"]
    )
    cases = json.loads((parity / f"{name}_cases.json").read_text())
    with np.load(parity / f"{name}_outputs.npz") as stored:
        outputs = {key: stored[key] for key in stored.files}
    image = np.asarray(Image.open(shared / "datasets" / cases["image"]).convert("RGB"))
    return Reference(build_sam(config, parity / f"{name}.pth"), cases, outputs, image)
