"""What the open stage calls for: a detector, its proposals, the order and share in which images are lent."""

from typing import Any

import numpy as np
import pytest
from sqlalchemy import select, update
from sqlalchemy.orm import Session

from engine.geometry.rle import encode
from engine.pipeline import assign, loop
from engine.pipeline.assign import Waiting
from engine.pipeline.ingest import contrast_of
from engine.pipeline.ingest_masks import import_masks
from engine.pipeline.loop_stages import images_to_generate
from engine.pipeline.stages import open_stage, override_stage, stage_of
from engine.store.assignments import Assignment
from engine.store.datasets import Dataset
from engine.store.detector_versions import DetectorVersion
from engine.store.generations import Generation
from engine.store.images import Image, ImageProgress
from engine.store.jobs import Job
from engine.store.masks import Mask
from engine.store.model_versions import ModelVersion
from engine.store.runner import run_job
from engine.store.snapshots import Snapshot
from tests.factories import a_mask, a_model_version, a_proposal, a_snapshot, add, digest
from tests.pipeline.conftest import Drawn, Lab, rows
from tests.pipeline.test_loop import due, jobs, run_all
from tests.pipeline.test_propose import GRID
from tests.pipeline.test_train_detector import quick


def opened(lab: Lab, stage: str, **changed: Any) -> None:
    with lab.workspace.write() as session:
        override_stage(session, lab.workspace.settings, lab.dataset_id, stage, **changed)
        open_stage(session, lab.dataset_id, stage)


def next_of(lab: Lab, user_id: int) -> Assignment | Waiting:
    with lab.workspace.write() as session:
        return assign.next_assignment(session, lab.workspace.settings, lab.dataset_id, user_id)


def reason(lab: Lab) -> str:
    answer = next_of(lab, lab.ann)
    assert isinstance(answer, Waiting), answer
    return answer.reason


def finish(lab: Lab) -> int:
    lent = next_of(lab, lab.ann)
    assert isinstance(lent, Assignment), lent
    with lab.workspace.write() as session:
        assign.submit(session, lab.workspace.settings, lent.id, lab.ann)
    return lent.image_id


def a_list(session: Session, lab: Lab, name: str) -> int:
    """An empty training list of the loop."""
    columns = {"dataset_id": lab.dataset_id, "kind": "training", "digest_sha256": digest(name), "query": {}}
    return int(add(session, Snapshot(name=name, n_images=0, n_masks=0, **columns)).id)


def test_stage_2_gets_a_detector_and_then_images_with_proposals(labs: Lab, drawn: Drawn) -> None:
    lab = quick(labs)
    opened(lab, "semi_automatic", retrain_after_new_masks=0)
    due(lab)
    run_all(lab)
    assert "there is none yet" in reason(lab)
    import_masks(lab.workspace, "cells", drawn.annotations)
    assert due(lab) > 0 and due(lab) == 0
    assert "being trained" in reason(lab)
    kinds = []
    for _ in range(4):
        kinds.append(sorted(set(run_all(lab)) - {"embed"}))
        due(lab)
    assert kinds == [["detector-snapshot"], ["train-detector"], ["propose"], []]
    assert {(job.queue, job.priority) for job in jobs(lab, "train-detector")} == {("train", 50)}
    assert {job.priority for job in jobs(lab, "propose")} == {15}
    lent = next_of(lab, lab.ann)
    assert isinstance(lent, Assignment) and lent.stage == "semi_automatic"
    (detector,) = rows(lab.workspace, select(DetectorVersion))
    assert rows(lab.workspace, select(Snapshot.name)) == ["detector-1"]
    assert set(rows(lab.workspace, select(Generation.detector_version_id))) == {detector.id}


def test_a_detector_is_trained_once_for_each_model_and_newest_list(lab: Lab, drawn: Drawn) -> None:
    import_masks(lab.workspace, "cells", drawn.annotations)
    opened(lab, "semi_automatic", retrain_after_new_masks=0)
    with lab.workspace.write() as session:
        a_snapshot(session, lab.dataset_id)  # taken by hand: starts nothing
        first = a_list(session, lab, "round-1")
    due(lab)
    with lab.workspace.write() as session:
        second = a_list(session, lab, "round-2")
    due(lab)
    due(lab)
    assert [job.arguments["snapshot_id"] for job in jobs(lab, "train-detector")] == [first, second]
    assert jobs(lab, "detector-snapshot") == []
    with lab.workspace.write() as session:
        failed = session.get_one(Job, jobs(lab, "train-detector")[-1].id)
        failed.state, failed.reason = "failed", "out of memory"
    lab.embed(lab.image_ids[0])
    assert "out of memory" in reason(lab) and f"jobs retry {failed.id}" in reason(lab)


def test_an_image_is_lent_in_stage_2_once_its_own_models_proposals_are_there(lab: Lab) -> None:
    opened(lab, "semi_automatic")
    lab.embed(*lab.image_ids[:3])
    with lab.workspace.write() as session:
        first, second = (session.get_one(Image, image_id) for image_id in lab.image_ids[:2])
        a_proposal(session, first, a_model_version(session, lab.dataset_id))
        a_proposal(session, second, session.get_one(ModelVersion, lab.version_id))
    assert finish(lab) == lab.image_ids[1]
    assert isinstance(next_of(lab, lab.ann), Waiting)


@pytest.mark.parametrize("order", ["imported", "random", "need", "prominence"])
def test_images_are_lent_in_the_stages_order_and_embedded_ahead_in_the_same(labs: Lab, order: str) -> None:
    opened(labs, "assisted_manual", order=order)
    with labs.workspace.write() as session:
        images = list(session.scalars(select(Image).order_by(Image.id)))
        for image, n_masks in zip(images, (2, 1, 0, 2, 1, 3), strict=True):
            rle = encode(np.eye(64, 96))
            for _ in range(n_masks):
                a_mask(session, image, counts=rle["counts"])
        wanted = {
            "imported": [image.id for image in images],
            "random": [image.id for image in sorted(images, key=lambda image: image.pixels_sha256)],
            "need": [images[n].id for n in (2, 1, 4, 0, 3, 5)],
            "prominence": [image.id for image in sorted(images, key=lambda image: -(image.contrast or 0))],
        }[order]
    due(labs)
    asked = [job.arguments["image_id"] for job in jobs(labs, "embed")]
    assert asked == wanted[: labs.workspace.settings.embed.ahead]
    labs.embed(*labs.image_ids)
    assert [finish(labs) for _ in range(6)] == wanted


def test_contrast_is_known_from_the_import_and_a_flat_picture_has_none(lab: Lab) -> None:
    known = rows(lab.workspace, select(Image.contrast))
    assert all(0.05 < contrast < 0.5 for contrast in known) and len(set(known)) == 6
    assert contrast_of(np.full((4, 5, 3), 90, np.uint8)) == pytest.approx(0, abs=1e-9)
    halves = np.zeros((2, 2, 3), np.uint8)
    halves[0] = 255
    assert contrast_of(halves) == pytest.approx(0.5)


def test_a_stage_hands_out_its_share_and_the_next_one_begins_with_the_rest(labs: Lab) -> None:
    labs.embed(*labs.image_ids)
    opened(labs, "assisted_manual", image_share=0.34)
    due(labs)
    first = next_of(labs, labs.ann)
    second = next_of(labs, labs.bea)
    assert isinstance(first, Assignment) and isinstance(second, Assignment)
    with labs.workspace.write() as session:
        settings = labs.workspace.settings
        assign.submit(session, settings, first.id, labs.ann)
    assert "its share" in reason(labs)
    with labs.workspace.write() as session:
        assign.skip(session, settings, second.id, labs.bea, "blurred")
    # What was set aside is nobody's share.
    third = finish(labs)
    assert "its share" in reason(labs)
    opened(labs, "semi_automatic", proposes="person")
    assert [finish(labs) for _ in range(4)] == [
        image_id for image_id in labs.image_ids if image_id not in (first.image_id, third)
    ]
    assert reason(labs) == "Every image of this dataset is done."


def test_generating_again_takes_what_an_older_version_or_other_settings_did(lab: Lab) -> None:
    opened(lab, "fully_automatic", proposer=GRID | {"points_per_side": 1})
    due(lab)
    assert len(run_all(lab)) == 6
    with lab.workspace.write() as session:
        other = a_model_version(session, lab.dataset_id).id
        dataset = session.get_one(Dataset, lab.dataset_id)
        stage = stage_of(lab.workspace.settings, dataset, "fully_automatic")
        assert stage is not None

        def left(version_id: int, *, again: bool) -> int:
            return len(images_to_generate(session, dataset, stage, version_id, again=again))

        assert left(lab.version_id, again=True) == left(other, again=False) == 0
        assert left(other, again=True) == 6


def test_ids_do_not_depend_on_which_image_is_ready_first(labs: Lab) -> None:
    opened(labs, "fully_automatic", proposer=GRID)
    due(labs)
    for job in reversed(jobs(labs, "propose")):
        assert run_job(labs.workspace, job.id, loop.arrow, "worker") == "done"
    masks = rows(labs.workspace, select(Mask).order_by(Mask.export_id))
    made = [(mask.image_id, mask.export_id) for mask in masks]
    assert len({image_id for image_id, _ in made}) > 1
    # By image, in the order in which the stage takes them, each from the start of its own block.
    assert [image_id for image_id, _ in made] == sorted(image_id for image_id, _ in made)
    firsts = {job.arguments["image_id"]: job.arguments["first_export_id"] for job in jobs(labs, "propose")}
    for image_id, first in firsts.items():
        ids = [export_id for image, export_id in made if image == image_id]
        assert ids == list(range(first, first + len(ids)))


def test_stage_3_embeds_nothing_ahead(lab: Lab) -> None:
    opened(lab, "fully_automatic", proposer=GRID)
    due(lab)
    assert jobs(lab, "embed") == [] and len(jobs(lab, "propose")) == 6
    with lab.workspace.write() as session:
        session.execute(update(Job).values(state="failed", reason="broken"))
        session.add(ImageProgress(image_id=lab.image_ids[0], stage="assisted_manual", state="done"))
    # A failed image waits for a person and is not asked for again.
    assert due(lab) == 0
    assert loop.ARROWS["propose"] == "propose:propose"
