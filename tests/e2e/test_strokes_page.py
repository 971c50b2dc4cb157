"""Brush, eraser and lasso in real Chromium, by mouse and keyboard: what is painted is what is kept."""

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray
from playwright.sync_api import Page, expect
from pycocotools.coco import COCO
from sqlalchemy import select

from engine.formats.verify import verify
from engine.geometry.rle import decode
from engine.geometry.strokes import adds, cover_of, paint
from engine.pipeline import export, snapshot
from engine.pipeline.predict import as_candidates, fold_on, ground_of
from engine.store.annotations import Annotation
from engine.store.datasets import dataset_named
from engine.store.masks import Mask, current_masks
from tests.e2e.conftest import Site, a_site
from tests.e2e.test_labelling_page import CANDIDATE, hover, look, zoom

pytestmark = pytest.mark.browser
# The machine that runs the tests may be busy with other things.
expect.set_options(timeout=30_000)
HW = (288, 384)


@pytest.fixture(scope="module")
def site(trained_model: tuple[bytes, bytes], tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    """A site of this file's own: its tests go on where the one before ended."""
    with a_site(trained_model, tmp_path_factory.mktemp("strokes")) as served:
        yield served


def drag(page: Page, *places_xy: tuple[int, int], button: str = "left") -> None:
    """Presses at the first image pixel, moves through the others, and lets go."""
    start = np.array(hover(page, places_xy[0]))
    box = page.get_by_test_id("canvas").bounding_box()
    assert box is not None
    page.mouse.down(button=button)  # type: ignore[arg-type]
    for place in places_xy[1:]:
        to = start + (np.array(place) - np.array(places_xy[0])) * zoom(page)
        page.mouse.move(box["x"] + to[0], box["y"] + to[1], steps=6)
    page.mouse.up(button=button)  # type: ignore[arg-type]


def click(page: Page, place_xy: tuple[int, int], button: str = "left") -> None:
    """A click that is answered before this returns."""
    chip = page.locator(".candidate-chip[data-busy=false]")
    hover(page, place_xy)
    with page.expect_response("**/predictions") as answered:
        page.mouse.down(button=button)  # type: ignore[arg-type]
        page.mouse.up(button=button)  # type: ignore[arg-type]
    assert answered.value.ok
    expect(chip).to_contain_text("IoU")


def newest(site: Site) -> tuple[Mask, Annotation]:
    with site.workspace.read() as session:
        mask = session.scalars(select(Mask).order_by(Mask.id.desc()).limit(1)).one()
        assert mask.annotation_id is not None
        return mask, session.get_one(Annotation, mask.annotation_id)


def saved(page: Page, n_masks: int) -> None:
    expect(page.get_by_test_id("mask-count")).to_have_text(str(n_masks))
    expect(page.get_by_test_id("save-state")).to_have_text("saved")


def accepted_and_undone(page: Page, site: Site) -> str:
    """The bytes that accepting would keep now; the draft is open again afterwards."""
    page.keyboard.press("n")
    saved(page, 1)
    mask, act = newest(site)
    check_obeyed(mask, act)
    page.keyboard.press("Control+z")
    saved(page, 0)
    return mask.counts


def pixels_of(mask: Mask) -> NDArray[np.bool_]:
    return decode({"size": [mask.height, mask.width], "counts": mask.counts})


def check_obeyed(mask: Mask, act: Annotation) -> None:
    """Every stroked pixel shows the last stroke over it."""
    pixels, free = pixels_of(mask), np.ones(HW, bool)
    for stroke in reversed(act.strokes):
        x, y, cover = cover_of(stroke, HW)
        here = np.zeros(HW, bool)
        here[y : y + cover.shape[0], x : x + cover.shape[1]] = cover
        assert (pixels[here & free] == adds(stroke)).all(), stroke
        free &= ~here


def check_replayed(site: Site, mask: Mask, act: Annotation) -> None:
    """The mask is what its prompts give on its weights, with its strokes laid over it."""
    with site.workspace.read() as session:
        ground = ground_of(session, mask.image_id, mask.model_version_id or 0)
    candidates = fold_on(site.workspace, ground, act.prompts, act.chosen[:-1])
    decoded = decode(as_candidates(candidates, ground)[act.chosen[-1]].segmentation)
    assert np.array_equal(paint(decoded, act.strokes), pixels_of(mask))


def tool(page: Page) -> str | None:
    return page.get_by_test_id("canvas").get_attribute("data-tool")


def test_strokes_outlast_clicks_and_a_reload_and_undo_returns_the_very_bytes(page: Page, site: Site) -> None:
    x, y = site.click_xy
    canvas = page.get_by_test_id("canvas")
    seen = []
    page.keyboard.press("b")
    expect(canvas).to_have_attribute("data-tool", "brush")
    expect(page.get_by_test_id("tool-sentence")).to_contain_text("Paint what belongs")
    drag(page, (x - 60 if x > 120 else x + 60, y), (x, y))
    seen.append(accepted_and_undone(page, site))
    look(page, "b1-brush")
    drag(page, (x - 8, y - 6), (x + 8, y + 6), button="right")
    seen.append(accepted_and_undone(page, site))
    page.keyboard.press("l")
    drag(page, (x - 20, y + 25), (x + 20, y + 25), (x, y + 45))
    seen.append(accepted_and_undone(page, site))
    assert len(set(seen)) == 3
    page.keyboard.press("q")
    click(page, (x, y))
    seen.append(accepted_and_undone(page, site))
    click(page, (x + 12, y + 3))
    seen.append(accepted_and_undone(page, site))
    look(page, "b2-strokes-and-clicks")

    page.reload()
    expect(page.locator(".candidate-chip[data-busy=false]")).to_contain_text("3 strokes")
    expect(page.locator(".candidate-chip")).to_contain_text("IoU")
    assert accepted_and_undone(page, site) == seen[-1]
    click(page, (x, y - 60 if y > 120 else y + 60), button="right")
    seen.append(accepted_and_undone(page, site))
    mask, act = newest(site)
    assert (len(act.strokes), len(act.prompts), mask.predicted_iou) == (3, 3, None)
    check_replayed(site, mask, act)

    for counts in reversed(seen[:-1]):
        page.keyboard.press("Control+z")
        expect(page.locator(".candidate-chip[data-busy=false]")).to_be_visible()
        assert accepted_and_undone(page, site) == counts
    page.keyboard.press("Control+z")
    expect(page.locator(".candidate-chip")).to_have_count(0)
    assert page.evaluate("sessionStorage.length") == 0


def test_the_brush_has_a_size_and_its_key_borrows_it(page: Page) -> None:
    size = page.locator(".brush-options output")
    page.keyboard.press("b")
    expect(size).to_have_text("20 px")
    page.keyboard.press("]")
    expect(size).to_have_text("24 px")
    page.keyboard.press("[")
    expect(size).to_have_text("20 px")
    before = zoom(page)
    page.keyboard.down("Alt")
    page.mouse.wheel(0, 100)
    page.keyboard.up("Alt")
    expect(size).to_have_text("14 px")
    assert zoom(page) == before
    page.keyboard.press("q")
    expect(page.locator(".brush-options")).to_have_count(0)
    page.keyboard.down("b")
    drag(page, (100, 100), (130, 110))
    page.keyboard.up("b")
    assert tool(page) == "prompt"
    expect(page.locator(".candidate-chip")).to_contain_text("1 stroke")
    page.keyboard.press("Escape")
    expect(page.locator(".candidate-chip")).to_have_count(0)


def test_a_stroke_is_seen_while_it_is_drawn_and_given_up_by_escape(page: Page) -> None:
    page.keyboard.press("b")
    start = hover(page, (300, 150))
    blank = look(page, "b5-before-painting")
    box = page.get_by_test_id("canvas").bounding_box()
    assert box is not None
    page.mouse.down()
    page.mouse.move(box["x"] + start[0] + 120, box["y"] + start[1] + 60, steps=12)
    painting = look(page, "b6-while-painting")
    places = np.rint([start, (start[0] + 40, start[1] + 20)]).astype(int)
    for x, y in places:
        assert np.abs(painting[y, x] - CANDIDATE).sum() < np.abs(blank[y, x] - CANDIDATE).sum()
    page.keyboard.press("Escape")
    page.mouse.up()
    expect(page.locator(".candidate-chip")).to_have_count(0)
    given_up = look(page, "b7-given-up")
    for x, y in places:
        assert np.abs(given_up[y, x] - blank[y, x]).max() <= 2
    page.keyboard.press("?")
    sheet = page.get_by_role("dialog", name="Keys and mouse")
    expect(sheet).to_contain_text("Brush: drag to add")
    expect(sheet).to_contain_text("Fill the holes of the mask")
    look(page, "b8-keys")
    page.keyboard.press("Escape")


def test_strokes_alone_make_a_mask_and_a_stroke_on_it_supersedes_it(
    page: Page, site: Site, tmp_path: Path
) -> None:
    page.keyboard.press("b")
    drag(page, (200, 40), (240, 40), (240, 70), (200, 70), (200, 40))
    page.keyboard.press("e")
    drag(page, (238, 50), (238, 60))
    page.keyboard.press("b")
    for _ in range(6):
        page.keyboard.press("[")
    drag(page, (150, 30), (151, 30))
    look(page, "b3-before-filling")
    page.get_by_role("button", name="Remove specks").click()
    page.get_by_role("button", name="Fill holes").click()
    page.keyboard.press("n")
    saved(page, 1)
    first, act = newest(site)
    check_obeyed(first, act)
    kinds = [stroke["kind"] for stroke in act.strokes]
    assert (kinds, act.prompts) == (["brush", "erase", "brush", "remove_specks", "fill_holes"], [])
    assert pixels_of(first)[55, 220] and not pixels_of(first)[30, 150]

    page.reload()
    saved(page, 1)
    page.keyboard.press(".")
    page.keyboard.down("e")
    drag(page, (190, 55), (250, 55))
    page.keyboard.up("e")
    expect(page.locator(".candidate-chip")).to_contain_text("Correction")
    look(page, "b4-correction")
    page.keyboard.press("Enter")
    saved(page, 1)
    second, act = newest(site)
    check_obeyed(second, act)
    assert (second.supersedes_id, second.export_id) == (first.id, first.export_id)
    assert not pixels_of(second)[55, 220] and second.area < first.area

    page.keyboard.press("Control+z")
    saved(page, 1)
    back, _ = newest(site)
    assert (back.counts, back.supersedes_id) == (first.counts, second.id)
    page.keyboard.press("Control+Shift+z")
    saved(page, 1)
    again, _ = newest(site)
    assert again.counts == second.counts
    with site.workspace.read() as session:
        assert list(session.scalars(select(current_masks.c.mask_id))) == [again.id]
    check_export(site, tmp_path / "export", pixels_of(second))


def check_export(site: Site, folder: Path, expected: NDArray[np.bool_]) -> None:
    with site.workspace.write() as session:
        taken = snapshot.take(session, dataset_named(session, "cells").id, "release")
    export.export(site.workspace, "cells", taken.id, folder)
    assert verify(folder).ok
    coco = COCO(str(folder / "annotations.json"))
    [annotation] = coco.loadAnns(coco.getAnnIds())
    assert np.array_equal(coco.annToMask(annotation).astype(bool), expected)
