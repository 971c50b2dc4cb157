"""Proposals: each can be made again, each run is kept once, and stage 3 never overrules a person."""

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from sqlalchemy import func, select

from engine.errors import BadInput, NotFound
from engine.geometry.rle import Rle, encode, iou
from engine.pipeline import annotate, assign, loop, predict
from engine.pipeline.promote import activate
from engine.pipeline.propose import propose
from engine.pipeline.stages import open_stage, override_stage
from engine.store.assignments import Assignment
from engine.store.base import utc_now
from engine.store.generations import Generation
from engine.store.images import Image
from engine.store.jobs import Job, due_ids
from engine.store.masks import Mask, current_masks
from engine.store.model_versions import ModelVersion
from engine.store.proposals import Proposal
from engine.store.reviews import Review
from engine.store.runner import Work, commit, run_job
from tests.factories import a_detector_version, a_mask, a_model_version, a_proposal, a_snapshot
from tests.pipeline.conftest import Lab, rows

# An untrained model is sure of nothing and its masks are not stable: only duplicates are filtered.
GRID = {
    "points_per_side": 3,
    "pred_iou_thresh": 0.0,
    "stability_score_thresh": 0.0,
    "stability_score_offset": 1.0,
    "box_nms_thresh": 0.95,
    "min_mask_region_area": 0,
    "max_coverage": 1.0,
    "same_object_iou": 0.98,
}


def generate(lab: Lab, image_id: int | None = None, **changes: Any) -> dict[str, Any]:
    arguments: dict[str, Any] = {"model_version_id": lab.version_id, "stage": "fully_automatic"}
    config = GRID | changes.pop("config", {})
    arguments |= {"image_id": image_id or lab.image_ids[0], "config": config} | changes
    return commit(lab.workspace, propose(Work.inline(lab.workspace), **arguments))


def automatic(lab: Lab) -> list[Mask]:
    """The current masks of stage 3."""
    current = select(Mask).join(current_masks, current_masks.c.mask_id == Mask.id)
    return rows(lab.workspace, current.where(Mask.stage == "fully_automatic").order_by(Mask.id))


def opened(lab: Lab, stage: str, **changed: Any) -> None:
    with lab.workspace.write() as session:
        override_stage(session, lab.workspace.settings, lab.dataset_id, stage, **changed)
        open_stage(session, lab.dataset_id, stage)


def test_a_grid_makes_masks_with_parents_that_their_prompts_give_again(labs: Lab) -> None:
    labs.embed(labs.image_ids[0])
    outcome = generate(labs)
    masks, proposals = automatic(labs), rows(labs.workspace, select(Proposal).order_by(Proposal.id))
    assert outcome["n_masks"] == outcome["n_proposals"] == len(masks) == len(proposals) > 2
    assert [mask.proposal_id for mask in masks] == [proposal.id for proposal in proposals]
    with labs.workspace.read() as session:
        ground = predict.ground_of(session, labs.image_ids[0], labs.version_id)
    for mask in masks:
        assert (mask.source, mask.touched_by_person, mask.author_id) == ("model", False, None)
        again = predict.as_candidates(
            predict.fold_on(labs.workspace, ground, mask.prompts, mask.chosen), ground
        )[mask.chosen[0]]
        assert iou(again.segmentation, Rle(size=[64, 96], counts=mask.counts)) >= 0.99
        assert [again.area, *again.bbox] == pytest.approx([mask.area, *mask.bbox_xywh], abs=3)


def test_the_same_settings_propose_once_and_nothing_found_is_kept_too(labs: Lab) -> None:
    first = generate(labs)
    assert generate(labs) == first and len(rows(labs.workspace, select(Generation.id))) == 1
    n_masks = len(rows(labs.workspace, select(Mask.id)))
    nothing = generate(labs, labs.image_ids[1], config={"pred_iou_thresh": 0.999})
    assert (nothing["n_proposals"], nothing["n_masks"]) == (0, 0)
    assert len(rows(labs.workspace, select(Mask.id))) == n_masks
    (empty,) = rows(labs.workspace, select(Generation).where(Generation.image_id == labs.image_ids[1]))
    assert empty.detector_version_id is None


def test_an_image_that_nobody_embedded_gives_the_same_masks(lab: Lab) -> None:
    generate(lab)
    bare = [(mask.counts, mask.predicted_iou) for mask in automatic(lab)]
    lab.embed(lab.image_ids[0])
    generate(lab, config={"same_object_iou": 0.97})
    assert [(mask.counts, mask.predicted_iou) for mask in automatic(lab)] == bare


def test_a_newer_run_replaces_what_nobody_touched(labs: Lab) -> None:
    generate(labs)
    old = automatic(labs)
    labs.embed(labs.image_ids[0])
    with labs.workspace.write() as session:
        lent = assign.next_assignment(session, labs.workspace.settings, labs.dataset_id, labs.ann)
        assert isinstance(lent, Assignment)
        act = annotate.Accept(
            assignment_id=lent.id,
            client_id="corrects-one",
            prompts=[{"kind": "point", "x": 1.0, "y": 1.0, "label": 1}],
            chosen=[0],
            segmentation=Rle(size=[64, 96], counts=old[0].counts),
            model_version_id=labs.version_id,
            supersedes_id=old[0].id,
        )
        corrected, _ = annotate.accept(session, labs.workspace.settings, labs.ann, act)
    generate(labs, config={"points_per_side": 1})
    current = set(rows(labs.workspace, select(current_masks.c.mask_id)))
    assert corrected.id in current and not current & {mask.id for mask in old}
    # The corrected thing was found once more, and is there once.
    assert all(mask.counts != old[0].counts for mask in automatic(labs))


def test_no_mask_is_made_where_a_person_drew_deleted_or_refused_one(lab: Lab) -> None:
    generate(lab)
    first, second, third, *others = automatic(lab)
    lab.embed(lab.image_ids[0])
    settings = lab.workspace.settings
    with lab.workspace.write() as session:
        lent = assign.next_assignment(session, settings, lab.dataset_id, lab.ann)
        assert isinstance(lent, Assignment)
        annotate.delete(session, settings, lab.ann, lent.id, "deletes-one", first.id)
        act = annotate.Accept(
            assignment_id=lent.id,
            client_id="draws-the-same",
            prompts=[{"kind": "point", "x": 1.0, "y": 1.0, "label": 1}],
            chosen=[0],
            segmentation=Rle(size=[64, 96], counts=second.counts),
            model_version_id=lab.version_id,
        )
        annotate.accept(session, settings, lab.ann, act)
        refusal = {"client_id": "refuses-one", "body_sha256": "0" * 64, "act": "reject"}
        refusal |= {"image_id": third.image_id, "author_id": lab.ann, "assignment_id": lent.id}
        session.add(Review(proposal_id=third.proposal_id, created_at=utc_now(), **refusal))
    outcome = generate(lab, config={"stability_score_offset": 1.5})
    again = automatic(lab)
    # All are proposed, and only those become masks that nobody has decided on.
    assert outcome["n_proposals"] == len(others) + 3
    decided = {first.counts, second.counts, third.counts}
    assert {mask.counts for mask in again} <= {mask.counts for mask in others}
    assert not decided & {mask.counts for mask in again}


def test_an_image_is_not_filled_beyond_its_limit(lab: Lab) -> None:
    limits = lab.workspace.settings.limits.model_copy(update={"max_masks_per_image": 2})
    settings = lab.workspace.settings.model_copy(update={"limits": limits})
    tight = replace(lab, workspace=replace(lab.workspace, settings=settings))
    outcome = generate(tight)
    assert outcome["n_masks"] == 2 < outcome["n_proposals"]
    best = sorted(rows(lab.workspace, select(Proposal.predicted_iou)), reverse=True)[:2]
    assert sorted((mask.predicted_iou for mask in automatic(lab)), reverse=True) == best


def test_unknown_or_foreign_parents_are_named(lab: Lab) -> None:
    with pytest.raises(NotFound, match="no image 999"):
        generate(lab, 999)
    with pytest.raises(NotFound, match="no detector version 9"):
        generate(lab, detector_version_id=9)
    with lab.workspace.write() as session:
        other = a_model_version(session, lab.dataset_id)
        detector_id = a_detector_version(session, other, a_snapshot(session, lab.dataset_id)).id
    with pytest.raises(BadInput, match="another model"):
        generate(lab, detector_version_id=detector_id)


def test_stage_3_asks_for_every_image_in_order_and_for_no_more_than_may_wait(labs: Lab) -> None:
    opened(labs, "fully_automatic", order="random", proposer=GRID)
    worker = labs.workspace.settings.worker.model_copy(update={"max_waiting": 2})
    few = labs.workspace.settings.model_copy(update={"worker": worker})
    with labs.workspace.write() as session:
        assert (loop.due(session, few), loop.due(session, few)) == (2, 0)
        assert {(job.kind, job.priority) for job in session.scalars(select(Job))} == {("propose", 80)}
    done = 0
    while ids := due(labs):
        done += len([run_job(labs.workspace, job_id, loop.arrow, "worker") for job_id in ids])
        with labs.workspace.write() as session:
            loop.due(session, few)
    assert done == 6 and len(rows(labs.workspace, select(Generation.id))) == 6
    asked = [job.arguments["image_id"] for job in rows(labs.workspace, select(Job).order_by(Job.id))]
    with labs.workspace.read() as session:
        assert asked == list(session.scalars(select(Image.id).order_by(Image.pixels_sha256)))
        waiting = assign.next_assignment(session, few, labs.dataset_id, labs.ann)
    assert isinstance(waiting, assign.Waiting) and "without people" in waiting.reason


def due(lab: Lab) -> list[int]:
    with lab.workspace.read() as session:
        return due_ids(session)


def test_a_promotion_alone_makes_nothing_again(lab: Lab) -> None:
    opened(lab, "fully_automatic", image_share=0.34, proposer=GRID | {"points_per_side": 1})
    with lab.workspace.write() as session:
        assert loop.due(session, lab.workspace.settings) == 2
        assert loop.due(session, lab.workspace.settings) == 0
    assert [run_job(lab.workspace, job_id, loop.arrow, "worker") for job_id in due(lab)] == ["done", "done"]
    with lab.workspace.write() as session:
        other = a_model_version(session, lab.dataset_id).id
    commit(lab.workspace, activate(Work.inline(lab.workspace), model_version_id=other))
    with lab.workspace.write() as session:
        assert loop.due(session, lab.workspace.settings) == 0
        assert session.scalar(select(func.count()).select_from(Generation)) == 2


def test_a_mask_of_stage_2_is_not_replaced_by_stage_3(lab: Lab) -> None:
    with lab.workspace.write() as session:
        image = session.get_one(Image, lab.image_ids[0])
        version = session.get_one(ModelVersion, lab.version_id)
        proposal = a_proposal(session, image, version)
        kept = a_mask(
            session,
            image,
            stage="semi_automatic",
            source="model",
            touched_by_person=False,
            proposal_id=proposal.id,
            counts=encode(np.eye(64, 96))["counts"],
        )
    generate(lab)
    assert kept.id in rows(lab.workspace, select(current_masks.c.mask_id))
