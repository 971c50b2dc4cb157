"""A home with two generated pictures and a trained model, the server as a child process, real Chromium."""

import json
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from PIL import Image as Picture
from playwright.sync_api import Browser, Page, expect, sync_playwright

from engine.config import load_settings
from engine.geometry.points import interior_point
from engine.geometry.quality import iou_masks
from engine.geometry.rle import decode
from engine.modeling import SamConfig, build_sam
from engine.modeling.checkpoint import save_checkpoint
from engine.modeling.onnx import export_decoder
from engine.modeling.sam_config import VitConfig
from engine.pipeline import accounts
from engine.pipeline.adopt import adopt_weights
from engine.pipeline.embed import embed
from engine.pipeline.ingest import import_images
from engine.pipeline.predict import as_candidates, fold_on, ground_of
from engine.store.datasets import dataset_named
from engine.store.runner import Work, commit
from engine.store.session import Workspace, open_workspace, upgrade
from engine.synthetic import SceneMask, draw_scene
from tests.conftest import missing

ROOT = Path(__file__).resolve().parents[2]
PASSWORD = "a long enough password"
FLAGS = "--no-sandbox --disable-gpu --disable-quic --no-first-run --disable-background-networking"
FLAGS += " --disable-component-update --disable-sync"


@dataclass(frozen=True)
class Site:
    """The served home: its address, its workspace, and one object to click on the first picture."""

    url: str
    home: Path
    workspace: Workspace
    click_xy: tuple[int, int]
    expected: NDArray[np.bool_]


@pytest.fixture(scope="session")
def trained_model(shared: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[bytes, bytes]:
    """(safetensors, ONNX decoder) of the small trained model of the parity folder: weak, but it segments."""
    torch.set_num_threads(1)
    parity = shared / "parity"
    sizes = json.loads((parity / "trained_tiny_sam_config.json").read_text())
    windows = tuple(sizes["global_attn_indexes"]), sizes["window_size"]
    encoder = VitConfig(sizes["embed_dim"], sizes["depth"], sizes["num_heads"], *windows)
    heads = sizes["prompt_dim"], sizes["mlp_dim"], sizes["iou_hidden"]
    config = SamConfig("trained_tiny_sam", sizes["img_size"], encoder, *heads)
    sam = build_sam(config, parity / "trained_tiny_sam.pth")
    path = tmp_path_factory.mktemp("model") / "trained.safetensors"
    save_checkpoint(path, sam.state_dict(), config)
    return path.read_bytes(), export_decoder(sam, n_checked_points=1)


@pytest.fixture(scope="session")
def site(trained_model: tuple[bytes, bytes], tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    """Two cell pictures under a served stage 1."""
    with a_site(trained_model, tmp_path_factory.mktemp("site")) as served:
        yield served


@contextmanager
def a_site(trained_model: tuple[bytes, bytes], folder: Path) -> Iterator[Site]:
    """A home of its own in `folder`, served until the end."""
    (folder / "pictures").mkdir()
    scenes = [draw_scene(seed, size_hw=(288, 384), theme="microscope") for seed in (2, 1)]
    for n, scene in enumerate(scenes):
        Picture.fromarray(scene.image).save(folder / "pictures" / f"cells-{n}.png")
    home = folder / "home"
    settings = load_settings(home)
    upgrade(settings)
    workspace = open_workspace(settings)
    version_id = furnish(workspace, folder / "pictures", trained_model)
    click_xy, expected = easiest(workspace, scenes[0].masks, version_id)
    with serving(home) as url:
        yield Site(url, home, workspace, click_xy, expected)
    workspace.close()


def furnish(workspace: Workspace, pictures: Path, model: tuple[bytes, bytes]) -> int:
    import_images(workspace, "cells", [pictures])
    with workspace.write() as session:
        dataset = dataset_named(session, "cells")
        dataset.open_stage = "assisted_manual"
        accounts.add_user(session, "ann", "annotator", PASSWORD)
    version_id = adopt_weights(workspace, dataset.id, "trained-tiny", *model)
    for image_id in (1, 2):
        commit(workspace, embed(Work.inline(workspace), image_id=image_id, model_version_id=version_id))
    return version_id


def easiest(
    workspace: Workspace, masks: list[SceneMask], version_id: int
) -> tuple[tuple[int, int], NDArray[np.bool_]]:
    """The click (x, y) that this model answers best, and the mask it answers with."""
    with workspace.read() as session:
        ground = ground_of(session, 1, version_id)
    answers = []
    for truth in (np.asarray(one.mask, dtype=bool) for one in masks):
        if not 400 < truth.sum() < truth.size // 5:
            continue
        x, y = interior_point(truth)
        prompts = [{"kind": "point", "x": float(x), "y": float(y), "label": 1}]
        candidates = fold_on(workspace, ground, prompts, [])
        mask = decode(as_candidates(candidates, ground)[candidates.best].segmentation)
        answers.append((iou_masks(mask, truth), (x, y), mask))
    quality, click_xy, mask = max(answers, key=lambda answer: answer[0])
    assert quality > 0.5, "the model finds nothing on this picture: choose another seed"
    return click_xy, mask


@contextmanager
def serving(home: Path) -> Iterator[str]:
    """The web app as a process of its own; its first line says where."""
    command = [sys.executable, "-m", "annotator_ui", "--home", str(home), "--port", "0"]
    process = subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    try:
        found = re.search(r"http://\S+", process.stdout.readline())
        assert found, "the web app did not start"
        yield found[0]
    finally:
        process.terminate()
        process.wait(10)
        process.stdout.close()


@pytest.fixture(scope="session")
def chromium() -> Iterator[Browser]:
    """Headless Chromium of the system; where it or the built page is missing, skipped, but not in CI."""
    executable = shutil.which("chromium") or shutil.which("chromium-browser")
    page = ROOT / "annotator_ui" / "static" / "index.html"
    if executable is None:
        missing("no chromium on PATH: install the package chromium")
    if not page.is_file():
        missing("the page is not built: run `make install`")
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=executable, args=FLAGS.split())
        yield browser
        browser.close()


@pytest.fixture
def page(chromium: Browser, site: Site) -> Iterator[Page]:
    """A signed-in page whose console must stay free of errors and policy violations."""
    context = chromium.new_context(viewport={"width": 1280, "height": 800}, color_scheme="dark")
    page = context.new_page()
    complaints: list[str] = []
    page.on("console", lambda said: complaints.append(said.text) if said.type != "log" else None)
    page.on("pageerror", lambda error: complaints.append(str(error)))
    page.goto(f"{site.url}/sign-in")
    page.get_by_label("Name").fill("ann")
    page.get_by_label("Password").fill(PASSWORD)
    # The question who is signed in was answered with 401 until here, which Chromium reports.
    complaints.clear()
    page.get_by_role("button", name="Sign in").click()
    page.wait_for_url("**/label/cells")
    expect(page.get_by_text(re.compile(r"image \d of 2"))).to_be_visible()
    yield page
    assert complaints == []
    context.close()
