"""The real command, called in this process: what it prints, and how it ends."""

import json
import os
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image as Picture

from engine.cli import main
from engine.config import load_settings
from engine.geometry.rle import encode
from engine.pipeline.adopt import adopt_weights
from engine.store.datasets import dataset_named
from engine.store.session import open_workspace
from tests.conftest import a_home


@dataclass(frozen=True)
class Ended:
    """Exit code, stdout and stderr of one command."""

    code: int
    out: str
    err: str

    @property
    def json(self) -> Any:
        return json.loads(self.out)


Maskloop = Callable[..., Ended]


@pytest.fixture
def maskloop(capsys: pytest.CaptureFixture[str]) -> Maskloop:
    def run(*arguments: object) -> Ended:
        capsys.readouterr()
        with pytest.raises(SystemExit) as end:
            main([str(argument) for argument in arguments])
        printed = capsys.readouterr()
        return Ended(int(end.value.code or 0), printed.out, printed.err)

    return run


@pytest.fixture
def home(tmp_path: Path, sqlite_template: Path) -> Path:
    """A home with an empty, migrated database and the short clocks of configs/test.toml."""
    settings = a_home(tmp_path / "home")
    shutil.copy(sqlite_template, settings.home / "maskloop.db")
    return settings.home


@pytest.fixture(scope="session")
def pictures(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Six pictures of three bright boxes, and `truth.json` with their masks; the last two are held out."""
    folder, rng = tmp_path_factory.mktemp("boxes"), np.random.default_rng(3)
    images, annotations = [], []
    for n in range(6):
        pixels = rng.integers(0, 90, (64, 96, 3), dtype=np.uint8)
        split = "train" if n < 4 else "val"
        images.append({"id": n + 1, "file_name": f"boxes-{n}.png", "width": 96, "height": 64, "split": split})
        for k in range(3):
            mask = np.zeros((64, 96), bool)
            mask[10 + 5 * k : 40, 5 + 30 * k : 28 + 30 * k] = True
            pixels[mask] = rng.integers(150, 255, 3)
            block = {"id": 3 * n + k + 1, "image_id": n + 1, "category_id": 1, "iscrowd": 0}
            box = [5 + 30 * k, 10 + 5 * k, 23, 30 - 5 * k]
            annotations.append(block | {"segmentation": encode(mask), "area": int(mask.sum()), "bbox": box})
        Picture.fromarray(pixels).save(folder / f"boxes-{n}.png")
    coco = {"images": images, "annotations": annotations, "categories": [{"id": 1, "name": "box"}]}
    (folder / "truth.json").write_text(json.dumps(coco))
    return folder


@pytest.fixture
def boxes(home: Path, maskloop: Maskloop, pictures: Path, small_model: tuple[bytes, bytes]) -> Path:
    """The home with dataset `boxes` imported and a small model that is worth nothing."""
    ended = maskloop(
        "images",
        "import",
        pictures,
        "--dataset",
        "boxes",
        "--annotations",
        pictures / "truth.json",
        "--home",
        home,
    )
    assert ended.code == 0, ended.err
    workspace = open_workspace(load_settings(home))
    with workspace.read() as session:
        dataset_id = dataset_named(session, "boxes").id
    adopt_weights(workspace, dataset_id, "small", *small_model)
    workspace.close()
    return home


@pytest.fixture
def environment() -> dict[str, str]:
    """For subprocesses: one thread, so that tests beside us keep the machine usable."""
    return os.environ | {"OMP_NUM_THREADS": "1"}
