"""The detector as an arrow: what it learns from, once per model and list, and nothing prefilled unproven."""

from dataclasses import replace
from typing import Any

import pytest
from sqlalchemy import select

from engine.errors import NotFound, Refused
from engine.geometry.rle import Rle, encode, iou
from engine.modeling.detector import build_detector, load_detector, save_detector
from engine.modeling.detector_card import DetectorCard, DetectorConfig
from engine.modeling.sam_config import SamConfig
from engine.pipeline import predict, train_detector
from engine.pipeline.ingest_masks import import_masks
from engine.pipeline.propose import propose
from engine.pipeline.snapshot import freeze_for_detector, take
from engine.store.assignments import Assignment
from engine.store.detector_versions import DetectorVersion
from engine.store.embeddings import Embedding
from engine.store.generations import Generation, offered
from engine.store.images import Image
from engine.store.masks import Mask
from engine.store.model_versions import ModelVersion
from engine.store.reviews import Review
from engine.store.runner import Cancelled, Work, commit
from engine.training.detector_figures import DetectorFigures, ProposalFigures
from tests.factories import a_detector_version, a_mask, a_proposal, a_snapshot, digest
from tests.pipeline.conftest import Drawn, Lab, ellipse, rows

BOXES = {"max_boxes": 12, "box_nms_thresh": 0.7, "pred_iou_thresh": 0.0, "min_mask_region_area": 0}


def quick(lab: Lab) -> Lab:
    """The same lab, where a detector trains for half a second."""
    settings = lab.workspace.settings
    detector = settings.detector.model_copy(update={"max_seconds": 0.5})
    changed = settings.model_copy(update={"detector": detector})
    return replace(lab, workspace=replace(lab.workspace, settings=changed))


def frozen(lab: Lab) -> int:
    outcome = commit(
        lab.workspace, freeze_for_detector(Work.inline(lab.workspace), dataset_id=lab.dataset_id)
    )
    return int(outcome["training"])


def trained(lab: Lab, snapshot_id: int, **changes: Any) -> dict[str, Any]:
    parents = {"dataset_id": lab.dataset_id, "model_version_id": lab.version_id, "snapshot_id": snapshot_id}
    write = train_detector.train_detector(Work.inline(lab.workspace), **parents | changes)
    return commit(lab.workspace, write)


def a_rejected_proposal(lab: Lab, image_id: int) -> None:
    with lab.workspace.write() as session:
        image = session.get_one(Image, image_id)
        proposal = a_proposal(session, image, session.get_one(ModelVersion, lab.version_id))
        lent = Assignment(image_id=image_id, stage="semi_automatic", user_id=lab.ann, state="released")
        lent.model_version_id, lent.lease_until, lent.ended_at = (
            lab.version_id,
            image.created_at,
            image.created_at,
        )
        session.add(lent)
        session.flush()
        for n, act in enumerate(["reject", "unreject", "reject"]):
            said = {"client_id": f"client-000{n}", "body_sha256": digest(n), "act": act, "author_id": lab.ann}
            session.add(Review(proposal_id=proposal.id, image_id=image_id, assignment_id=lent.id, **said))
            session.flush()


def test_a_detector_learns_from_the_lists_masks_and_says_how_it_measured(labs: Lab, drawn: Drawn) -> None:
    lab = quick(labs)
    import_masks(lab.workspace, "cells", drawn.annotations)
    lab.embed(lab.image_ids[0])
    a_rejected_proposal(lab, lab.image_ids[1])
    snapshot_id = frozen(lab)
    told = trained(lab, snapshot_id)
    (row,) = rows(lab.workspace, select(DetectorVersion))
    assert (row.name, row.snapshot_id, row.model_version_id) == ("d1", snapshot_id, lab.version_id)
    figures = row.figures
    assert (figures["n_train_images"], figures["n_train_boxes"], figures["n_negatives"]) == (4, 12, 1)
    # Two held-out images with three masks each, and half a second of training: far too little to prefill.
    assert (figures["is_cross_fitted"], figures["n_images"], figures["n_boxes"]) == (False, 2, 6)
    assert row.threshold is None and told["reason"] == figures["reason"] and figures["reason"]
    assert {"average_recall", "precision_at_threshold", "untrained", "random_boxes"} <= figures.keys()
    weights = rows(lab.workspace, select(ModelVersion.weights_sha256))[0]
    _, card = load_detector(lab.workspace.blobs.local_path(row.weights_sha256), weights)
    assert (card.threshold, card.encoder_sha256, card.steps) == (None, weights, figures["steps"])
    # Embeddings that were missing were made, and not kept.
    assert len(rows(lab.workspace, select(Embedding.id))) == 1
    assert trained(lab, snapshot_id) == told and len(rows(lab.workspace, select(DetectorVersion.id))) == 1


def test_only_images_whose_masks_were_all_brought_are_taken_for_complete(lab: Lab, drawn: Drawn) -> None:
    import_masks(lab.workspace, "cells", drawn.annotations)
    with lab.workspace.write() as session:
        image = session.get_one(Image, lab.image_ids[1])
        rle = encode(ellipse(20, 20, 5, 5))
        columns = {"counts": rle["counts"], "bbox_xywh": [15, 15, 11, 11], "touched_by_person": False}
        proposal = a_proposal(session, image, session.get_one(ModelVersion, lab.version_id))
        lent = Assignment(image_id=image.id, stage="semi_automatic", user_id=lab.ann, state="submitted")
        lent.model_version_id, lent.lease_until, lent.ended_at = (
            lab.version_id,
            image.created_at,
            image.created_at,
        )
        session.add(lent)
        session.flush()
        said = {"client_id": "keep-00001", "body_sha256": digest(1), "act": "keep", "author_id": lab.ann}
        session.add(Review(proposal_id=proposal.id, image_id=image.id, assignment_id=lent.id, **said))
        a_mask(session, image, source="model", stage="semi_automatic", proposal_id=proposal.id, **columns)
    snapshot_id = frozen(lab)
    with lab.workspace.read() as session:
        lessons = train_detector._lessons(session, snapshot_id)
        held_out = train_detector._held_out(session, lab.dataset_id)
    assert [lesson.is_complete for lesson in lessons] == [True, False, True, True]
    assert [len(lesson.boxes_xyxy) for lesson in lessons] == [3, 4, 3, 3]
    assert lessons[1].boxes_xyxy[-1].tolist() == [15, 15, 26, 26]
    assert [lesson.image.split for lesson in held_out] == ["val", "val"]


def test_look_alikes_stay_in_one_half_and_both_halves_are_filled() -> None:
    groups = ["a", "b", "a", "c", "d", "b"]
    halves = train_detector._first_half(groups)
    assert len({(group, half) for group, half in zip(groups, halves, strict=True)}) == 4
    assert sum({group: half for group, half in zip(groups, halves, strict=True)}.values()) == 2


@pytest.mark.parametrize(
    "untrained, random_boxes, threshold, complaint",
    [
        (0.1, 0.2, 0.5, None),
        (0.4, 0.2, 0.5, "no better than an untrained one"),
        (0.1, 0.4, 0.5, "no better than random boxes"),
        (0.1, 0.2, None, "at no score are 80%"),
    ],
)
def test_a_detector_that_proves_nothing_prefills_nothing(
    untrained: float, random_boxes: float, threshold: float | None, complaint: str | None
) -> None:
    sources = [ProposalFigures(recall, recall, recall, 60) for recall in (0.4, untrained, random_boxes)]
    figures = DetectorFigures(*sources, 100, 9, 60)
    found = train_detector._complaint(figures, threshold, 0.2)
    assert found is None if complaint is None else complaint in (found or "")


def test_wrong_parents_are_refused_in_a_sentence(lab: Lab, drawn: Drawn) -> None:
    with pytest.raises(NotFound, match="no snapshot 99"):
        trained(lab, 99)
    with lab.workspace.write() as session:
        empty = take(session, lab.dataset_id, "training").id
        release = take(session, lab.dataset_id, "release").id
    with pytest.raises(Refused, match="no mask to learn from"):
        trained(lab, empty)
    with pytest.raises(Refused, match="learns from a training one"):
        trained(lab, release)
    with pytest.raises(Refused, match="no mask to learn from"):
        frozen(lab)


def test_a_cancelled_training_leaves_nothing(lab: Lab, drawn: Drawn) -> None:
    import_masks(lab.workspace, "cells", drawn.annotations)
    snapshot_id, asked = frozen(lab), []
    work = Work(lab.workspace, asked.append, lambda: len(asked) > 7)
    parents = {"dataset_id": lab.dataset_id, "model_version_id": lab.version_id}
    with pytest.raises(Cancelled):
        train_detector.train_detector(work, snapshot_id=snapshot_id, **parents)
    assert {"embedded": 1} in asked and rows(lab.workspace, select(DetectorVersion.id)) == []


def a_real_detector(lab: Lab, threshold: float | None) -> int:
    """Untrained, and sure of everything: what it boxes is nothing, how it is masked is the real thing."""
    with lab.workspace.write() as session:
        version = session.get_one(ModelVersion, lab.version_id)
        config = DetectorConfig.of_model(SamConfig.from_dict(version.config))
        card = DetectorCard(config, version.weights_sha256, threshold, "none", 0, 0)
        blob = lab.workspace.blobs.put(save_detector(build_detector(config, 0), card))
        columns = {"weights_sha256": blob, "threshold": threshold, "name": f"d-{threshold}"}
        snapshot = a_snapshot(session, lab.dataset_id, n=1 if threshold is None else 2)
        return int(a_detector_version(session, version, snapshot, **columns).id)


def test_boxes_are_masked_as_the_page_would_mask_them_and_wait_for_a_person(labs: Lab) -> None:
    labs.embed(labs.image_ids[0])
    arguments = {"image_id": labs.image_ids[0], "model_version_id": labs.version_id, "config": BOXES}
    arguments |= {"stage": "semi_automatic", "detector_version_id": a_real_detector(labs, 0.0)}
    outcome = commit(labs.workspace, propose(Work.inline(labs.workspace), **arguments))
    assert outcome["n_proposals"] > 2 and outcome["n_masks"] == 0
    assert rows(labs.workspace, select(Mask.id)) == []
    lent = labs.image_ids[0], labs.version_id, "semi_automatic"
    with labs.workspace.read() as session:
        found = list(session.scalars(offered(*lent)))
        ground = predict.ground_of(session, labs.image_ids[0], labs.version_id)
    scores = [proposal.score for proposal in found]
    assert len(found) == outcome["n_proposals"] and scores == sorted(scores, reverse=True)
    for proposal in found:
        answer = predict.fold_on(labs.workspace, ground, proposal.prompts, proposal.chosen)
        assert answer.best == proposal.chosen[0]
        again = predict.as_candidates(answer, ground)[answer.best]
        rle = Rle(size=[64, 96], counts=proposal.counts)
        assert iou(again.segmentation, rle) >= 0.99
        assert proposal.predicted_iou == pytest.approx(again.predicted_iou, abs=1e-3)
        assert proposal.stability_score == pytest.approx(again.stability_score, abs=0.02)
    pairs = [(a, b) for n, a in enumerate(found) for b in found[:n]]
    assert all(
        iou(Rle(size=[64, 96], counts=a.counts), Rle(size=[64, 96], counts=b.counts)) <= 0.7 for a, b in pairs
    )
    # Again, and by a newer detector: people judge one list.
    for detector_id in (arguments["detector_version_id"], a_real_detector(labs, None)):
        again_told = propose(Work.inline(labs.workspace), **arguments | {"detector_version_id": detector_id})
        assert commit(labs.workspace, again_told) == outcome
    assert len(rows(labs.workspace, select(Generation.id))) == 1


def test_a_detector_without_threshold_prefills_nothing(lab: Lab) -> None:
    arguments = {"image_id": lab.image_ids[0], "model_version_id": lab.version_id, "config": BOXES}
    arguments |= {"stage": "semi_automatic", "detector_version_id": a_real_detector(lab, None)}
    outcome = commit(lab.workspace, propose(Work.inline(lab.workspace), **arguments))
    assert outcome["n_proposals"] == 0 and len(rows(lab.workspace, select(Generation.id))) == 1
