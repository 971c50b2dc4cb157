"""A small dataset that every arrow can work on: six pictures of three ellipses, exact masks, tiny weights."""

import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image as Picture
from sqlalchemy import select

from engine.geometry.rle import Rle, encode
from engine.modeling import build_sam
from engine.modeling.checkpoint import save_checkpoint
from engine.pipeline import loop
from engine.pipeline.adopt import adopt_weights
from engine.pipeline.embed import embed
from engine.pipeline.ingest import import_images
from engine.pipeline.stages import open_stage
from engine.store.datasets import Dataset
from engine.store.evaluations import Evaluation
from engine.store.images import Image
from engine.store.model_versions import ModelVersion
from engine.store.runner import ArrowOf, Work, Write, commit
from engine.store.session import Workspace
from tests.factories import a_user, digest

N_PICTURES = 6
# Pictures 5 and 6 are held out.
SPLITS = ("train", "train", "train", "train", "val", "val")


@dataclass(frozen=True)
class Drawn:
    """A folder of pictures with `annotations.json`, and each picture's masks by its name."""

    folder: Path
    masks: dict[str, list[Rle]]

    @property
    def annotations(self) -> Path:
        return self.folder / "annotations.json"


@dataclass(frozen=True)
class Lab:
    """A workspace with the drawn dataset `cells`, its stage open, a model, two annotators."""

    workspace: Workspace
    dataset_id: int
    version_id: int
    image_ids: list[int]
    ann: int
    bea: int

    def embed(self, *image_ids: int, version_id: int | None = None) -> None:
        for image_id in image_ids:
            write = embed(
                Work.inline(self.workspace),
                image_id=image_id,
                model_version_id=version_id or self.version_id,
            )
            commit(self.workspace, write)


def ellipse(cx: int, cy: int, rx: int, ry: int, hw: tuple[int, int] = (64, 96)) -> NDArray[np.bool_]:
    y, x = np.mgrid[: hw[0], : hw[1]]
    return np.asarray(((x - cx) / rx) ** 2 + ((y - cy) / ry) ** 2 <= 1)


def draw(n: int) -> tuple[NDArray[np.uint8], list[NDArray[np.bool_]]]:
    """Picture number `n` and its masks; the ground slants differently in each, so that none look alike."""
    rng = np.random.default_rng(n)
    y, x = np.mgrid[:64, :96]
    ground = 60 + 25 * np.sin(x / (4 + 2 * n) + n) * np.cos(y / (3 + n) + 2 * n)
    pixels = np.repeat(ground[:, :, None], 3, axis=2)
    masks = [ellipse(16 + 30 * k, int(rng.integers(16, 48)), 11, 8 + k) for k in range(3)]
    for mask in masks:
        pixels[mask] = rng.integers(130, 255, 3)
    return pixels.astype(np.uint8), masks


@pytest.fixture(scope="session")
def drawn(tmp_path_factory: pytest.TempPathFactory) -> Drawn:
    folder = tmp_path_factory.mktemp("drawn")
    images, annotations, masks = [], [], {}
    for n in range(N_PICTURES):
        pixels, truths = draw(n)
        name = f"cells-{n}.png"
        Picture.fromarray(pixels).save(folder / name)
        images.append({"id": 11 + n, "file_name": name, "width": 96, "height": 64, "split": SPLITS[n]})
        masks[name] = [encode(truth) for truth in truths]
        for k, rle in enumerate(masks[name]):
            block = {"id": 100 + 10 * n + k, "image_id": 11 + n, "category_id": 7, "segmentation": rle}
            annotations.append(block | {"iscrowd": 0, "area": int(truths[k].sum())})
    categories = [{"id": 7, "name": "cell", "supercategory": "tissue"}]
    coco = {"images": images, "annotations": annotations, "categories": categories}
    (folder / "annotations.json").write_text(json.dumps(coco))
    return Drawn(folder, masks)


@pytest.fixture(scope="session")
def furnish(drawn: Drawn, small_model: tuple[bytes, bytes]) -> Callable[[Workspace], Lab]:
    def fill(workspace: Workspace) -> Lab:
        import_images(workspace, "cells", [drawn.folder], annotations=drawn.annotations)
        with workspace.write() as session:
            dataset_id = session.scalars(select(Dataset.id)).one()
            open_stage(session, dataset_id, "assisted_manual")
            ann, bea = a_user(session, 1).id, a_user(session, 2).id
            image_ids = list(session.scalars(select(Image.id).order_by(Image.id)))
        version_id = adopt_weights(workspace, dataset_id, "small", *small_model)
        return Lab(workspace, dataset_id, version_id, image_ids, ann, bea)

    return fill


@pytest.fixture
def lab(sqlite_workspace: Workspace, furnish: Callable[[Workspace], Lab]) -> Lab:
    """On SQLite; nothing is embedded yet."""
    return furnish(sqlite_workspace)


@pytest.fixture
def labs(workspace: Workspace, furnish: Callable[[Workspace], Lab]) -> Lab:
    """The test runs on SQLite and on Postgres; nothing is embedded yet."""
    return furnish(workspace)


@pytest.fixture(scope="session")
def other_weights(small_model: tuple[bytes, bytes], tmp_path_factory: pytest.TempPathFactory) -> bytes:
    """The small model with other random weights."""
    path = tmp_path_factory.mktemp("other") / "weights.safetensors"
    (path.parent / "small.safetensors").write_bytes(small_model[0])
    config = build_sam(checkpoint=path.parent / "small.safetensors").config
    save_checkpoint(path, build_sam(config, seed=1).state_dict(), config)
    return path.read_bytes()


@pytest.fixture
def quick_arrows(other_weights: bytes) -> Callable[..., ArrowOf]:
    """The real arrows, but training gives ready weights and evaluation the figures asked for, by version;
    `others` take the place of further kinds, `_` written for `-`."""

    def build(figures: dict[int, dict[str, Any]], **others: Callable[..., Write]) -> ArrowOf:
        def train(work: Work, *, snapshot_id: int, parent_id: int) -> Write:
            weights = work.workspace.blobs.put(other_weights)

            def write(session: Any) -> dict[str, Any]:
                parent = session.get_one(ModelVersion, parent_id)
                row = ModelVersion(dataset_id=parent.dataset_id, name="v2", architecture="small")
                row.config, row.decoder_sha256, row.weights_sha256 = (
                    parent.config,
                    parent.decoder_sha256,
                    weights,
                )
                row.snapshot_id, row.parent_id = snapshot_id, parent_id
                session.add(row)
                return {}

            return write

        def evaluate(work: Work, *, model_version_id: int, snapshot_id: int) -> Write:
            def write(session: Any) -> dict[str, Any]:
                row = Evaluation(model_version_id=model_version_id, snapshot_id=snapshot_id, protocol={})
                row.protocol_sha256, row.figures = digest("p"), figures[model_version_id]
                session.add(row)
                return {}

            return write

        quick: dict[str, Callable[..., Write]] = {"train": train, "evaluate": evaluate} | others
        return lambda kind: quick.get(kind.replace("-", "_")) or loop.arrow(kind)

    return build


def rows(workspace: Workspace, statement: Any) -> list[Any]:
    with workspace.read() as session:
        return list(session.scalars(statement))
