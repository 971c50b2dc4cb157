"""Eight pictures of fifteen discs each, their truth, and an untrained model: what annotators are tried on."""

import json
import shutil
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image as Picture

from engine.cli.work import LocalWorker
from engine.geometry.rle import encode
from engine.pipeline.adopt import adopt_weights
from engine.pipeline.ingest import import_images
from engine.pipeline.stages import open_stage
from engine.simulation.annotators import Habits, SimulatedAnnotator
from engine.simulation.truth import Truth
from engine.store.datasets import dataset_named
from engine.store.session import Workspace, open_workspace
from tests.conftest import a_home

N_PICTURES = 8
HELD_OUT = {2, 5}
# An untrained model draws nothing like a disc, so whatever overlaps is accepted, after few clicks.
EASY = Habits(max_clicks=3, least_iou=0.0, budget_s=10_000.0)


@dataclass(frozen=True)
class Studio:
    """A workspace whose dataset `discs` is open, with the truth that only annotators see."""

    workspace: Workspace
    dataset_id: int
    truth: Truth

    def annotator(self, habits: Habits = EASY, seed: int = 0) -> SimulatedAnnotator:
        return SimulatedAnnotator(self.workspace, self.dataset_id, self.truth, habits, seed=seed)

    def work(self) -> None:
        LocalWorker(self.workspace).until_idle()


def disc(cx: int, cy: int, radius: int) -> NDArray[np.bool_]:
    y, x = np.mgrid[:96, :128]
    return np.asarray((x - cx) ** 2 + (y - cy) ** 2 <= radius**2)


def draw(n: int) -> tuple[NDArray[np.uint8], list[NDArray[np.bool_]]]:
    """Picture `n` and its fifteen masks; the ground differs, so that no two look alike."""
    rng = np.random.default_rng(n)
    y, x = np.mgrid[:96, :128]
    ground = 60 + 50 * np.sin(x / (9 + 3 * n) + n) * np.cos(y / (17 - 2 * n) + 2 * n)
    pixels = np.repeat(ground[:, :, None], 3, axis=2)
    masks = [disc(14 + 25 * (k % 5), 16 + 30 * (k // 5), int(rng.integers(7, 12))) for k in range(15)]
    for mask in masks:
        pixels[mask] = rng.integers(0, 255, 3)
    return pixels.astype(np.uint8), masks


@pytest.fixture(scope="session")
def discs(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Truth]:
    folder, masks, images = tmp_path_factory.mktemp("discs"), {}, []
    for n in range(N_PICTURES):
        pixels, truths = draw(n)
        Picture.fromarray(pixels).save(folder / f"disc-{n}.png")
        masks[f"disc-{n}.png"] = [encode(truth) for truth in truths]
        split = "val" if n in HELD_OUT else "train"
        images.append({"id": n, "file_name": f"disc-{n}.png", "width": 128, "height": 96, "split": split})
    (folder / "splits.json").write_text(json.dumps({"images": images, "annotations": [], "categories": []}))
    return folder, Truth(masks)


@pytest.fixture
def studio_in(
    discs: tuple[Path, Truth], small_model: tuple[bytes, bytes], sqlite_template: Path
) -> Iterator[Callable[[Path], Studio]]:
    """Makes a studio in a folder; rounds begin only when asked for."""
    opened = []

    def make(folder: Path) -> Studio:
        settings = a_home(folder)
        shutil.copy(sqlite_template, settings.home / "maskloop.db")
        workspace = open_workspace(settings)
        opened.append(workspace)
        import_images(workspace, "discs", [discs[0]], annotations=discs[0] / "splits.json")
        with workspace.write() as session:
            dataset_id = dataset_named(session, "discs").id
            open_stage(session, dataset_id, "assisted_manual")
        adopt_weights(workspace, dataset_id, "small", *small_model)
        return Studio(workspace, dataset_id, discs[1])

    yield make
    for workspace in opened:
        workspace.close()


@pytest.fixture
def studio(studio_in: Callable[[Path], Studio], tmp_path: Path) -> Studio:
    return studio_in(tmp_path / "home")
