"""The labelling page in real Chromium, by mouse and keyboard: what is drawn, kept and exported."""

import io
import os
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image as Picture
from playwright.sync_api import Browser, Page, expect
from pycocotools.coco import COCO
from scipy.ndimage import distance_transform_edt
from sqlalchemy import select

from engine.formats.verify import verify
from engine.geometry.quality import iou_masks
from engine.pipeline import accounts, export, snapshot
from engine.pipeline.predict import as_candidates, fold_on, ground_of
from engine.store.datasets import dataset_named
from engine.store.masks import Mask
from tests.e2e.conftest import Site

pytestmark = pytest.mark.browser
Pixels = NDArray[np.int16]
CANDIDATE = np.array([61, 139, 255])
SHOTS = os.environ.get("E2E_SHOTS")


def look(page: Page, name: str) -> Pixels:
    """What the canvas area shows, as (H, W, 3); kept as a picture where E2E_SHOTS names a folder."""
    page.wait_for_timeout(150)
    if SHOTS:
        page.screenshot(path=str(Path(SHOTS) / f"{name}.png"))
    shot = page.get_by_test_id("canvas").screenshot()
    return np.asarray(Picture.open(io.BytesIO(shot)).convert("RGB"), dtype=np.int16)


def zoom(page: Page) -> float:
    """Screen pixels per image pixel, as the status line says it."""
    return float(page.get_by_title("Zoom", exact=True).inner_text().rstrip(" %")) / 100


def hover(page: Page, target_xy: tuple[int, int]) -> tuple[float, float]:
    """Moves the mouse until the status line names that image pixel; gives the place within the canvas."""
    box = page.get_by_test_id("canvas").bounding_box()
    assert box is not None
    seen = []
    place = np.array([box["width"] / 2, box["height"] / 2])
    for _ in range(12):
        page.mouse.move(box["x"] + place[0], box["y"] + place[1])
        page.wait_for_timeout(40)
        found = re.fullmatch(r"x (\d+)\s+y (\d+)", page.locator(".coordinates").inner_text())
        assert found, "the pointer is not over the image"
        here = np.array([int(found[1]), int(found[2])])
        if tuple(here) == target_xy:
            return float(place[0]), float(place[1])
        seen.append((place, here))
        place = place + (np.array(target_xy) - here) * zoom(page)
    raise AssertionError(f"could not point at {target_xy}: {seen}")


def sample_places(page: Page, site: Site) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Places in the canvas (x, y): inside the mask but away from the click's marker, and well outside it."""
    scale = zoom(page)
    click = np.array(hover(page, site.click_xy))
    y, x = np.mgrid[: site.expected.shape[0], : site.expected.shape[1]]
    from_click = np.hypot(x - site.click_xy[0], y - site.click_xy[1])
    inside = (distance_transform_edt(site.expected) > 2.5) & (from_click * scale > 14)
    outside = (distance_transform_edt(~site.expected) > 12) & (from_click * scale > 40)
    places = []
    for chosen in (inside, outside):
        spots = np.argwhere(chosen)[:, ::-1]
        assert len(spots) >= 5, "the mask is too small to look at"
        spots = spots[np.linspace(0, len(spots) - 1, 12).astype(int)]
        places.append(np.rint(click + (spots - np.array(site.click_xy)) * scale).astype(np.int64))
    return places[0], places[1]


def at(shot: Pixels, places: NDArray[np.int64]) -> Pixels:
    """Colours at those places, those that other panels cover left out."""
    height, width = shot.shape[:2]
    seen = [place for place in places if 0 <= place[0] < width and 60 < place[1] < height - 4]
    assert len(seen) >= 4
    return np.array([shot[y, x] for x, y in seen])


def nearer(before: Pixels, after: Pixels, colour: NDArray[Any]) -> bool:
    """Whether every pixel moved towards `colour`."""
    return bool((np.abs(after - colour).sum(1) < np.abs(before - colour).sum(1)).all())


def test_a_labelled_picture_is_drawn_kept_and_exported(page: Page, site: Site, tmp_path: Path) -> None:
    assert page.evaluate("crossOriginIsolated") is True
    count, saved = page.get_by_test_id("mask-count"), page.get_by_test_id("save-state")
    inside, outside = sample_places(page, site)
    blank = look(page, "1-blank")

    hover(page, site.click_xy)
    page.mouse.down()
    page.mouse.up()
    chip = page.locator(".candidate-chip")
    expect(chip).to_contain_text("/3")
    first = chip.inner_text()
    proposed = look(page, "2-candidate")
    assert nearer(at(blank, inside), at(proposed, inside), CANDIDATE)
    assert np.abs(at(blank, outside) - at(proposed, outside)).max() <= 2

    shown = [first]
    for _ in range(3):
        page.keyboard.press("m")
        expect(chip).not_to_have_text(shown[-1])
        shown.append(chip.inner_text())
    assert len(set(shown)) == 3 and shown[3] == first

    page.keyboard.press("n")
    expect(count).to_have_text("1")
    expect(saved).to_have_text("saved")
    accepted = look(page, "3-accepted")
    assert np.abs(at(blank, inside) - at(accepted, inside)).max(1).min() > 12
    assert np.abs(at(blank, outside) - at(accepted, outside)).max() <= 2

    page.keyboard.press("Control+z")
    expect(count).to_have_text("0")
    expect(saved).to_have_text("saved")
    page.keyboard.press("Control+Shift+z")
    expect(count).to_have_text("1")
    expect(saved).to_have_text("saved")

    page.reload()
    expect(count).to_have_text("1")
    hover(page, (2, 2))
    again = look(page, "4-reloaded")
    assert np.abs(at(again, inside) - at(accepted, inside)).max() <= 2

    page.keyboard.press("Control+Enter")
    expect(page.get_by_text("image 2 of 2")).to_be_visible()
    expect(count).to_have_text("0")
    look(page, "5-next")
    check_export(site, tmp_path / "export")


def check_export(site: Site, folder: Path) -> None:
    """The COCO file holds one mask: the one under the click, as replaying its prompts gives it."""
    with site.workspace.write() as session:
        taken = snapshot.take(session, dataset_named(session, "cells").id, "release")
    export.export(site.workspace, "cells", taken.id, folder)
    assert verify(folder).ok
    coco = COCO(str(folder / "annotations.json"))
    [annotation] = coco.loadAnns(coco.getAnnIds())
    exported = coco.annToMask(annotation).astype(bool)
    assert exported[site.click_xy[1], site.click_xy[0]]
    # The mouse points between pixels, so the click is not quite the one `easiest` tried.
    assert iou_masks(exported, site.expected) > 0.9
    with site.workspace.read() as session:
        mask = session.scalars(select(Mask).order_by(Mask.id.desc()).limit(1)).one()
        ground = ground_of(session, mask.image_id, mask.model_version_id or 0)
    candidates = fold_on(site.workspace, ground, mask.prompts, mask.chosen[:-1])
    assert as_candidates(candidates, ground)[mask.chosen[-1]].segmentation == annotation["segmentation"]


def test_a_link_opens_the_page_and_the_progress_page_counts(chromium: Browser, site: Site) -> None:
    with site.workspace.write() as session:
        token = accounts.make_link(session, accounts.user_named(session, "ann").id)
    context = chromium.new_context(viewport={"width": 1280, "height": 800}, color_scheme="light")
    page = context.new_page()
    page.goto(f"{site.url}/sign-in#token={token}")
    page.wait_for_url("**/label/cells")
    assert token not in page.url
    page.get_by_role("link", name="Progress").click()
    page.wait_for_url("**/progress/cells")
    expect(page.get_by_text("trained-tiny").first).to_be_visible()
    if SHOTS:
        page.screenshot(path=str(Path(SHOTS) / "6-progress.png"))
    context.close()


def test_a_box_is_refined_by_a_background_click_and_a_mask_deleted(page: Page, site: Site) -> None:
    count, chip = page.get_by_test_id("mask-count"), page.locator(".candidate-chip")
    expect(count).to_have_text("0")
    box = page.get_by_test_id("canvas").bounding_box()
    assert box is not None
    centre = (box["x"] + box["width"] / 2, box["y"] + box["height"] / 2)
    page.mouse.move(centre[0] - 60, centre[1] - 60)
    page.mouse.down()
    page.mouse.move(centre[0], centre[1], steps=4)
    page.mouse.move(centre[0] + 60, centre[1] + 60, steps=4)
    page.mouse.up()
    expect(chip).to_contain_text("IoU")
    page.mouse.click(centre[0] + 50, centre[1] + 50, button="right")
    expect(chip).not_to_contain_text("/3")
    expect(chip).to_contain_text("IoU")
    look(page, "7-box-and-background")
    page.keyboard.press("Enter")
    expect(count).to_have_text("1")
    page.keyboard.press(".")
    page.keyboard.press("Delete")
    expect(count).to_have_text("0")
    expect(page.get_by_test_id("save-state")).to_have_text("saved")
