"""Stage 2 in real Chromium: prefilled masks look different, are rejected at once, corrected, and kept."""

import os
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image as Picture
from playwright.sync_api import Browser, Page, expect
from scipy.ndimage import binary_dilation, binary_erosion
from sqlalchemy import select

from engine.config import load_settings
from engine.geometry.points import interior_point
from engine.geometry.rle import area, bbox_xywh, decode, encode
from engine.pipeline import accounts
from engine.pipeline.predict import as_candidates, fold_on, ground_of
from engine.store.datasets import Dataset, dataset_named
from engine.store.generations import Generation
from engine.store.images import Image
from engine.store.masks import Mask, current_masks
from engine.store.model_versions import ModelVersion
from engine.store.proposals import Proposal
from engine.store.reviews import last_review_is
from engine.store.session import Workspace, open_workspace, upgrade
from engine.synthetic import SceneMask, draw_scene
from tests.e2e.conftest import PASSWORD, furnish, serving
from tests.e2e.test_labelling_page import Pixels, hover, look, zoom
from tests.factories import a_detector_version, a_proposal, a_snapshot, add, digest

pytestmark = pytest.mark.browser
# The machine that runs the tests may be busy with other things.
expect.set_options(timeout=30_000)
# From the best to the worst; the detector prefills from 0.3 on.
SCORES = (0.95, 0.85, 0.75, 0.45, 0.35)
N_BELOW_HALF = 2
HW = (288, 384)
SIZE = os.environ.get("E2E_SIZE", "1280x800")


@dataclass(frozen=True)
class StageTwo:
    """The served home with five proposals on its first picture, and where each of them lies."""

    url: str
    workspace: Workspace
    proposal_ids: list[int]
    regions: list[NDArray[np.bool_]]


@pytest.fixture(scope="module")
def stage_two(
    trained_model: tuple[bytes, bytes], tmp_path_factory: pytest.TempPathFactory
) -> Iterator[StageTwo]:
    folder = tmp_path_factory.mktemp("stage-two")
    (folder / "pictures").mkdir()
    scenes = [draw_scene(seed, size_hw=HW, theme="microscope") for seed in (2, 1)]
    for n, scene in enumerate(scenes):
        Picture.fromarray(scene.image).save(folder / "pictures" / f"cells-{n}.png")
    settings = load_settings(folder / "home")
    upgrade(settings)
    workspace = open_workspace(settings)
    version_id = furnish(workspace, folder / "pictures", trained_model)
    proposal_ids = prefill(workspace, scenes[0].masks, version_id)
    with workspace.read() as session:
        counts = [session.get_one(Proposal, one).counts for one in proposal_ids]
    regions = [decode({"size": list(HW), "counts": one}) for one in counts]
    with serving(folder / "home") as url:
        yield StageTwo(url, workspace, proposal_ids, regions)
    workspace.close()


def prefill(workspace: Workspace, masks: list[SceneMask], version_id: int) -> list[int]:
    """Opens stage 2 with what a good detector leads to: the true masks of five cells, and their boxes."""
    with workspace.write() as session:
        dataset = dataset_named(session, "cells")
        dataset.open_stage = "semi_automatic"
        dataset.settings = {**dataset.settings, "guideline": "Every cell is an object.\nLeave out debris."}
        version, image = session.get_one(ModelVersion, version_id), session.get_one(Image, 1)
        detector = a_detector_version(session, version, a_snapshot(session, dataset.id), threshold=0.3)
        nothing_found_on(session.get_one(Image, 2), version, dataset, detector.id, session)
        rows = []
        for score, truth in zip(SCORES, cells_apart(masks), strict=True):
            rle, (x0, y0, w, h) = encode(truth), bbox_xywh(encode(truth))
            box = {"kind": "box", "x0": x0, "y0": y0, "x1": x0 + w - 1, "y1": y0 + h - 1}
            columns: dict[str, Any] = {
                "counts": rle["counts"],
                "area": area(rle),
                "bbox_xywh": [x0, y0, w, h],
            }
            columns |= {"score": score, "prompts": [box], "detector_version_id": detector.id}
            rows.append(a_proposal(session, image, version, **columns))
        return [row.id for row in rows]


def nothing_found_on(
    image: Image, version: ModelVersion, dataset: Dataset, detector_id: int, session: Any
) -> None:
    run = {"dataset_id": dataset.id, "image_id": image.id, "model_version_id": version.id}
    found = {"n_proposals": 0, "n_masks": 0, "config_sha256": digest("proposer", 1)}
    add(session, Generation(**run, **found, stage="semi_automatic", detector_version_id=detector_id))


def cells_apart(masks: list[SceneMask]) -> list[NDArray[np.bool_]]:
    """The five largest cells that do not touch one another."""
    taken = np.zeros(HW, dtype=bool)
    cells: list[NDArray[np.bool_]] = []
    for truth in sorted((np.asarray(one.mask, dtype=bool) for one in masks), key=lambda one: -one.sum()):
        if truth.sum() < truth.size // 5 and not (taken & truth).any():
            taken |= binary_dilation(truth, iterations=4)
            cells.append(truth)
    assert len(cells) >= len(SCORES), "too few cells lie apart: choose another seed"
    return cells[: len(SCORES)]


@pytest.fixture
def page(chromium: Browser, stage_two: StageTwo) -> Iterator[Page]:
    """A signed-in page whose console must stay free of errors and policy violations."""
    width, height = (int(part) for part in SIZE.split("x"))
    scheme = "light" if os.environ.get("E2E_LIGHT") else "dark"
    context = chromium.new_context(viewport={"width": width, "height": height}, color_scheme=scheme)
    page = context.new_page()
    complaints: list[str] = []
    page.on("console", lambda said: complaints.append(said.text) if said.type != "log" else None)
    page.on("pageerror", lambda error: complaints.append(str(error)))
    page.goto(f"{stage_two.url}/sign-in")
    page.get_by_label("Name").fill("ann")
    page.get_by_label("Password").fill(PASSWORD)
    complaints.clear()
    page.get_by_role("button", name="Sign in").click()
    page.wait_for_url("**/label/cells")
    expect(page.get_by_text(re.compile(r"image \d of 2"))).to_be_visible()
    yield page
    assert complaints == []
    context.close()


class Spots:
    """Looks at the same image pixels in every screenshot: those well inside each proposal."""

    def __init__(self, page: Page, regions: list[NDArray[np.bool_]]) -> None:
        x, y = interior_point(regions[0])
        here, scale = np.array(hover(page, (x, y))), zoom(page)
        self.places = []
        for region in regions:
            rows, columns = np.nonzero(binary_erosion(region, iterations=2))
            on_screen = here + (np.stack([columns, rows], axis=1) - (x, y)) * scale
            self.places.append(np.rint(on_screen).astype(np.int64))
        page.mouse.move(5, 5)

    def of(self, shot: Pixels, which: int) -> Pixels:
        places = self.places[which]
        seen = places[(places >= 0).all(1) & (places[:, 0] < shot.shape[1]) & (places[:, 1] < shot.shape[0])]
        assert len(seen) > 60, "the mask is too small to look at"
        return shot[seen[:, 1], seen[:, 0]]

    def change(self, before: Pixels, after: Pixels, which: int) -> NDArray[Any]:
        """How much each inner pixel of that proposal changed, 0 to 255."""
        return np.abs(self.of(after, which) - self.of(before, which)).max(1)


def test_prefilled_masks_are_looked_at_rejected_corrected_and_kept(page: Page, stage_two: StageTwo) -> None:
    count, prefilled = page.get_by_test_id("mask-count"), page.get_by_test_id("prefilled-count")
    reviewed, saved = page.get_by_test_id("reviewed"), page.get_by_test_id("save-state")
    requests: list[str] = []
    page.on("request", lambda asked: requests.append(asked.url) if asked.method == "POST" else None)
    expect(prefilled).to_have_text("5")
    expect(page.get_by_role("button", name="semi-automatic")).to_be_visible()
    spots = Spots(page, stage_two.regions)
    shown = look(page, "s2-1-prefilled")
    page.keyboard.press("h")
    blank = look(page, "s2-2-hidden")
    page.keyboard.press("h")
    hatched = spots.change(blank, shown, 0)
    assert np.percentile(hatched, 90) > 1.5 * np.percentile(hatched, 25), "the fill is not hatched"

    page.get_by_label("Lowest score kept").fill("0.5")
    faded = look(page, "s2-3-slider")
    for which in (3, 4):
        assert spots.change(blank, faded, which).mean() < 0.5 * spots.change(blank, shown, which).mean()
    expect(reviewed).to_have_text("5 kept, 0 rejected, 0 corrected")
    page.get_by_role("button", name="Reject all below").click()
    expect(reviewed).to_have_text("3 kept, 2 rejected, 0 corrected")
    expect(saved).to_have_text("saved")
    rejected = look(page, "s2-4-rejected")
    assert max(spots.change(blank, rejected, which).max() for which in (3, 4)) <= 2
    page.keyboard.press("Control+z")
    expect(prefilled).to_have_text("5")
    page.keyboard.press("Control+Shift+z")
    expect(prefilled).to_have_text("3")
    expect(saved).to_have_text("saved")
    assert sum(url.endswith("/reviews") for url in requests) == 3

    correct_the_best(page, stage_two)
    expect(reviewed).to_have_text("2 kept, 2 rejected, 1 corrected")
    expect(saved).to_have_text("saved")
    own = Spots(page, [corrected_region(stage_two)])
    solid = own.change(blank, look(page, "s2-6-corrected"), 0)
    assert np.median(solid) > 1.5 * np.median(hatched), "a person's mask looks like a prefilled one"

    page.reload()
    expect(reviewed).to_have_text("2 kept, 2 rejected, 1 corrected")
    expect(count).to_have_text("1")
    page.keyboard.press("Control+Enter")
    expect(page.get_by_text("image 2 of 2")).to_be_visible()
    expect(count).to_have_text("0")
    check_masks(stage_two)


def correct_the_best(page: Page, stage_two: StageTwo) -> None:
    """Selects the first proposal by key, refines it by a click and accepts it."""
    page.keyboard.press(".")
    chip = page.locator(".candidate-chip")
    expect(chip).to_contain_text("Prefilled, score 0.95")
    look(page, "s2-5-selected")
    hover(page, interior_point(stage_two.regions[0]))
    page.mouse.down()
    page.mouse.up()
    expect(chip).to_contain_text("accept")
    expect(chip).not_to_contain_text("/3")
    expect(page.locator(".candidate-chip[data-busy=false]")).to_be_visible()
    look(page, "s2-5b-correcting")
    page.keyboard.press("n")
    expect(page.get_by_test_id("mask-count")).to_have_text("1")


def corrected_region(stage_two: StageTwo) -> NDArray[np.bool_]:
    with stage_two.workspace.read() as session:
        mask = session.scalars(select(Mask).where(Mask.proposal_id == stage_two.proposal_ids[0])).one()
    return decode({"size": list(HW), "counts": mask.counts})


def check_masks(stage_two: StageTwo) -> None:
    """One mask is the person's and names its proposal; the rest stand as proposed; two are refused."""
    best, *kept = stage_two.proposal_ids[: len(SCORES) - N_BELOW_HALF]
    with stage_two.workspace.read() as session:
        current = (
            select(Mask).join(current_masks, current_masks.c.mask_id == Mask.id).where(Mask.image_id == 1)
        )
        masks = {mask.proposal_id: mask for mask in session.scalars(current)}
        refused = set(session.scalars(select(Proposal.id).where(last_review_is("reject"))))
        proposals = {one.id: one for one in session.scalars(select(Proposal))}
        assert set(masks) == {best, *kept}
        assert refused == set(stage_two.proposal_ids[-N_BELOW_HALF:])
        assert {mask.stage for mask in masks.values()} == {"semi_automatic"}
        corrected = masks[best]
        assert (corrected.source, corrected.touched_by_person) == ("human", True)
        assert [prompt["kind"] for prompt in corrected.prompts] == ["box", "point"]
        assert corrected.prompts[0] == proposals[best].prompts[0]
        assert corrected.author_id == accounts.user_named(session, "ann").id
        for one in kept:
            assert (masks[one].source, masks[one].touched_by_person) == ("model", False)
            assert masks[one].counts == proposals[one].counts
    check_replay(stage_two.workspace, masks[best])


def check_replay(workspace: Workspace, mask: Mask) -> None:
    """The corrected mask is what its prompts give on its weights."""
    with workspace.read() as session:
        ground = ground_of(session, mask.image_id, mask.model_version_id or 0)
    candidates = fold_on(workspace, ground, mask.prompts, mask.chosen[:-1])
    replayed = as_candidates(candidates, ground)[mask.chosen[-1]].segmentation
    assert replayed["counts"] == mask.counts


def test_the_guide_names_the_stage_and_stage_three_says_why_there_is_no_image(
    page: Page, stage_two: StageTwo
) -> None:
    page.keyboard.press("i")
    guide = page.get_by_role("dialog", name="What to do in this stage")
    expect(guide).to_contain_text("Reject the wrong ones")
    expect(guide).to_contain_text("Leave out debris.")
    look(page, "s2-7-guide")
    page.keyboard.press("Escape")
    expect(guide).not_to_be_visible()
    with stage_two.workspace.write() as session:
        dataset_named(session, "cells").open_stage = "fully_automatic"
    page.reload()
    expect(page.get_by_role("heading", name="The model works by itself now")).to_be_visible()
    look(page, "s2-8-stage-three")


def test_a_researcher_adds_and_removes_a_schedule(chromium: Browser, stage_two: StageTwo) -> None:
    with stage_two.workspace.write() as session:
        accounts.add_user(session, "ria", "researcher", PASSWORD)
        token = accounts.make_link(session, accounts.user_named(session, "ria").id)
    width, height = (int(part) for part in SIZE.split("x"))
    scheme = "light" if os.environ.get("E2E_LIGHT") else "dark"
    context = chromium.new_context(viewport={"width": width, "height": height}, color_scheme=scheme)
    page = context.new_page()
    page.goto(f"{stage_two.url}/sign-in#token={token}")
    page.wait_for_url("**/label/cells")
    page.get_by_role("link", name="Progress").first.click()
    page.wait_for_url("**/progress/cells")
    expect(page.get_by_role("region", name="Stages")).to_contain_text("semi-automatic")
    page.get_by_role("button", name="Add schedule").click()
    expect(page.get_by_role("alert")).to_have_text("Give a time, a number of new masks, or both.")
    page.get_by_label("Nightly at (UTC)").fill("02:00")
    page.get_by_label("Every so many new masks").fill("5000")
    page.get_by_role("button", name="Add schedule").click()
    expect(page.get_by_text("Nightly at 02:00 UTC or every 5,000 new masks")).to_be_visible()
    if os.environ.get("E2E_SHOTS"):
        page.screenshot(path=str(Path(os.environ["E2E_SHOTS"]) / "s2-9-progress.png"), full_page=True)
    page.get_by_role("button", name="Remove the schedule").click()
    expect(page.get_by_text("No schedule:")).to_be_visible()
    context.close()
