"""Masks with strokes: strokes alone, over prompts, or over a mask that was there; replayed to the pixel."""

from typing import Any

import numpy as np
from sqlalchemy import select

from engine.geometry.rle import Rle, decode, encode
from engine.geometry.strokes import paint
from engine.pipeline import predict, report
from engine.store.annotations import Annotation
from engine.store.masks import Mask
from tests.pipeline.conftest import Lab, ellipse, rows
from tests.pipeline.test_annotate import Desk

STROKES: list[dict[str, Any]] = [
    {"kind": "brush", "size": 9, "points": [10.0, 12.0, 40.4, 20.3]},
    {"kind": "erase", "size": 5, "points": [20.0, 5.0, 22.0, 40.0]},
    {"kind": "lasso", "label": 1, "points": [50.0, 10.0, 70.0, 12.0, 60.0, 30.0]},
]


def a_desk(lab: Lab) -> Desk:
    lab.embed(*lab.image_ids[:2])
    return Desk(lab, lab.ann)


def under(desk: Desk, mask: Mask) -> np.ndarray:
    """What a mask's strokes lie over: its prompts' answer, else the mask it corrects, else nothing."""
    with desk.workspace.read() as session:
        act = session.get_one(Annotation, mask.annotation_id)
        if not act.prompts:
            target = session.get(Mask, act.target_mask_id) if act.target_mask_id else None
            size = [mask.height, mask.width]
            return decode(Rle(size=size, counts=target.counts)) if target else np.zeros(size, bool)
        ground = predict.ground_of(session, act.image_id, mask.model_version_id or 0)
    folded = predict.fold_on(desk.workspace, ground, act.prompts, act.chosen[:-1])
    return decode(predict.as_candidates(folded, ground)[act.chosen[-1]].segmentation)


def replayed(desk: Desk, mask: Mask) -> str:
    (act,) = rows(desk.workspace, select(Annotation).where(Annotation.id == mask.annotation_id))
    return encode(paint(under(desk, mask), act.strokes))["counts"]


def drawn_alone() -> Rle:
    return encode(paint(np.zeros((64, 96), bool), STROKES))


def test_a_mask_of_strokes_alone_is_kept_listed_and_replayed(labs: Lab) -> None:
    desk = a_desk(labs)
    mask, _ = desk.accept(prompts=[], chosen=[], strokes=STROKES, segmentation=drawn_alone())
    assert (mask.prompts, mask.chosen, mask.source) == ([], [], "human")
    assert replayed(desk, mask) == mask.counts
    with desk.workspace.read() as session:
        (shown,) = report.image_masks(session, mask.image_id)
        assert shown["strokes"] == STROKES == report.mask_view(session, mask)["strokes"]


def test_strokes_over_a_prediction_are_replayed(labs: Lab) -> None:
    desk = a_desk(labs)
    prompts = [{"kind": "point", "x": 20.0, "y": 30.0, "label": 1}]
    answer = predict.predict(desk.workspace, desk.assignment.id, desk.lab.ann, prompts, [])
    decoded = decode(answer.candidates[answer.best].segmentation)
    body = {"prompts": prompts, "chosen": [answer.best], "strokes": STROKES}
    mask, _ = desk.accept(**body, segmentation=encode(paint(decoded, STROKES)))
    assert replayed(desk, mask) == mask.counts


def test_strokes_over_an_imported_mask_supersede_it_and_are_replayed(labs: Lab) -> None:
    desk = a_desk(labs)
    pixels = ellipse(30, 30, 9, 9)
    with desk.workspace.write() as session:
        old = Mask(
            dataset_id=labs.dataset_id,
            image_id=desk.assignment.image_id,
            export_id=71,
            imported_id=71,
            height=64,
            width=96,
            counts=encode(pixels)["counts"],
            area=int(pixels.sum()),
            bbox_xywh=[0, 0, 1, 1],
            stage=None,
            source="imported",
            touched_by_person=False,
        )
        session.add(old)
        session.flush()
        old_id = old.id
    corrected = encode(paint(pixels, STROKES))
    body = {"prompts": [], "chosen": [], "strokes": STROKES, "supersedes_id": old_id}
    mask, _ = desk.accept(**body, segmentation=corrected)
    assert (desk.current(), mask.export_id, mask.imported_id) == ([mask.id], 71, 71)
    assert replayed(desk, mask) == mask.counts
    # Undone, the imported pixels stand again; the act is kept.
    back, _ = desk.restore("client-0002", old_id)
    assert (back.counts, back.source) == (encode(pixels)["counts"], "imported")
    assert replayed(desk, back) == back.counts
