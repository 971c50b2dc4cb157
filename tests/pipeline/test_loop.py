"""The loop as a query: the state of the tables calls for jobs, one turn after another, and never twice."""

import os
from collections.abc import Callable
from dataclasses import replace

import pytest
import torch
from sqlalchemy import select

from engine.errors import Conflict
from engine.pipeline import assign, loop
from engine.pipeline.ingest_masks import import_masks
from engine.pipeline.promote import activate
from engine.pipeline.stages import close_stage
from engine.store.assignments import Assignment
from engine.store.embeddings import Embedding
from engine.store.evaluations import Evaluation
from engine.store.jobs import Job, due_ids
from engine.store.model_versions import ActiveModel, Decision, ModelVersion
from engine.store.runner import ArrowOf, Work, commit, run_job
from engine.store.snapshots import Snapshot
from tests.conftest import RETRAIN_AFTER
from tests.factories import digest
from tests.pipeline.conftest import Drawn, Lab, rows
from tests.pipeline.test_annotate import Desk

BAD = {"miou": {"1": 0.3, "3": 0.4}, "noc": 15.0, "reached": 0.2, "n_masks": 6}
GOOD = {"miou": {"1": 0.7, "3": 0.8}, "noc": 4.0, "reached": 0.9, "n_masks": 6}


def due(lab: Lab) -> int:
    with lab.workspace.write() as session:
        return loop.due(session, lab.workspace.settings)


def run_all(lab: Lab, arrow_of: ArrowOf = loop.arrow) -> list[str]:
    """Runs what is due now; the kinds, in the order they ran. Every job has to end well."""
    with lab.workspace.read() as session:
        ids = due_ids(session)
    for job_id in ids:
        assert run_job(lab.workspace, job_id, arrow_of, "worker") == "done", job(lab, job_id).reason
    return [job(lab, job_id).kind for job_id in ids]


def job(lab: Lab, job_id: int) -> Job:
    found: Job = rows(lab.workspace, select(Job).where(Job.id == job_id))[0]
    return found


def jobs(lab: Lab, kind: str) -> list[Job]:
    return rows(lab.workspace, select(Job).where(Job.kind == kind).order_by(Job.id))


def active(lab: Lab) -> int:
    return int(rows(lab.workspace, select(ActiveModel.model_version_id))[0])


def test_the_head_of_the_queue_is_embedded_and_asking_twice_adds_nothing(labs: Lab) -> None:
    assert (due(labs), due(labs)) == (2, 0)
    assert [one.arguments["image_id"] for one in jobs(labs, "embed")] == labs.image_ids[:2]
    assert run_all(labs) == ["embed", "embed"] and due(labs) == 0
    assert rows(labs.workspace, select(Embedding.image_id)) == labs.image_ids[:2]
    # Behind what is open, two more for each person at work; the queue moves on as images are done.
    desk = Desk(labs, labs.ann)
    assert due(labs) == 3
    with labs.workspace.write() as session:
        assign.submit(session, labs.workspace.settings, desk.assignment.id, labs.ann)
    assert due(labs) == 0
    desk = Desk(labs, labs.ann)
    assert due(labs) == 1


def test_nothing_is_due_without_a_stage_or_masks(labs: Lab) -> None:
    with labs.workspace.write() as session:
        close_stage(session, labs.dataset_id, "assisted_manual")
    assert due(labs) == 0


def test_a_round_begins_once_enough_people_made_masks(labs: Lab, drawn: Drawn) -> None:
    import_masks(labs.workspace, "cells", drawn.annotations, made_by_people=False)
    due(labs)
    assert jobs(labs, "snapshot") == []
    with labs.workspace.read() as session:
        assert (loop.new_masks(session, labs.dataset_id), loop.held_out_masks(session, labs.dataset_id)) == (
            0,
            0,
        )


def test_a_round_turns_to_its_end_and_a_better_model_serves(
    labs: Lab, drawn: Drawn, quick_arrows: Callable[..., ArrowOf]
) -> None:
    import_masks(labs.workspace, "cells", drawn.annotations)
    with labs.workspace.read() as session:
        assert (loop.new_masks(session, labs.dataset_id), loop.held_out_masks(session, labs.dataset_id)) == (
            12,
            6,
        )
    arrows = quick_arrows({1: BAD, 2: GOOD})
    turns = []
    for _ in range(8):
        first, second = due(labs), due(labs)
        assert second == 0
        turns.append(sorted(run_all(labs, arrows)))
        assert len(turns[-1]) == first
        if turns[-1] == ["promote"]:
            lent = Desk(labs, labs.ann).assignment
    assert turns == [
        ["embed", "embed", "snapshot"],
        ["train"],
        ["evaluate", "evaluate"],
        ["promote"],
        # Four of each behind the image that is open; the old version has made one of them already.
        ["embed"] * 7,
        ["activate"],
        [],
        [],
    ]
    assert active(labs) == 2
    (decision,) = rows(labs.workspace, select(Decision))
    assert decision.verdict == "promote"
    # The lease keeps the version it began with; the next one gets the new model, embedded before it served.
    assert rows(labs.workspace, select(Assignment.model_version_id).where(Assignment.id == lent.id)) == [1]
    assert Desk(labs, labs.bea).assignment.model_version_id == 2
    with labs.workspace.read() as session:
        assert loop.new_masks(session, labs.dataset_id) == 0


def test_a_worse_candidate_is_refused_and_the_next_round_waits_for_new_masks(
    lab: Lab, drawn: Drawn, quick_arrows: Callable[..., ArrowOf]
) -> None:
    import_masks(lab.workspace, "cells", drawn.annotations)
    for _ in range(5):
        due(lab)
        run_all(lab, quick_arrows({1: GOOD, 2: BAD}))
    assert active(lab) == 1 and due(lab) == 0
    (decision,) = rows(lab.workspace, select(Decision))
    assert decision.verdict == "refuse" and jobs(lab, "activate") == []
    desk = Desk(lab, lab.ann)
    for n in range(RETRAIN_AFTER):
        assert jobs(lab, "snapshot")[-1].arguments["number"] == 1
        desk.accept(f"client-{n:04}")
        due(lab)
    assert [one.arguments["number"] for one in jobs(lab, "snapshot")] == [1, 2]


def test_a_person_who_activates_another_version_meanwhile_ends_the_round(
    lab: Lab, drawn: Drawn, quick_arrows: Callable[..., ArrowOf]
) -> None:
    import_masks(lab.workspace, "cells", drawn.annotations)
    arrows = quick_arrows({1: BAD, 2: GOOD})
    while not rows(lab.workspace, select(Decision.id)):
        due(lab)
        run_all(lab, arrows)
    third = ModelVersion(dataset_id=lab.dataset_id, name="by hand", architecture="small", config={})
    third.weights_sha256, third.decoder_sha256 = digest("w"), digest("d")
    with lab.workspace.write() as session:
        session.add(third)
    commit(lab.workspace, activate(Work.inline(lab.workspace), model_version_id=third.id))
    due(lab)
    assert jobs(lab, "activate") == [] and active(lab) == third.id
    with lab.workspace.write() as session:
        assert loop.start_round(session, lab.workspace.settings, lab.dataset_id) == 2


def test_failed_steps_are_not_counted_as_new_and_wait_for_a_person(
    lab: Lab, drawn: Drawn, quick_arrows: Callable[..., ArrowOf]
) -> None:
    import_masks(lab.workspace, "cells", drawn.annotations)
    arrows = quick_arrows({})  # no figures: evaluating fails
    for _ in range(2):
        due(lab)
        run_all(lab, arrows)
    assert due(lab) == 2
    for one in jobs(lab, "evaluate"):
        assert run_job(lab.workspace, one.id, arrows, "worker") == "failed"
    assert due(lab) == 0 and len(jobs(lab, "snapshot")) == 1


def test_a_round_asked_by_hand_starts_once(lab: Lab, drawn: Drawn) -> None:
    import_masks(lab.workspace, "cells", drawn.annotations)
    with lab.workspace.write() as session:
        assert loop.start_round(session, lab.workspace.settings, lab.dataset_id) == 1
    with lab.workspace.write() as session, pytest.raises(Conflict, match="round is in progress"):
        loop.start_round(session, lab.workspace.settings, lab.dataset_id)


def test_every_kind_of_job_has_its_arrow() -> None:
    assert all(callable(loop.arrow(kind)) for kind in loop.ARROWS)


def test_a_real_round_trains_evaluates_and_decides(lab: Lab, drawn: Drawn) -> None:
    """The real trainer in its own process for two seconds, from masks to the gate's word."""
    torch.set_num_threads(1)
    settings = lab.workspace.settings
    train = settings.train.model_copy(update={"max_seconds": 2.0, "click_cap": 4})
    quick = replace(
        lab, workspace=replace(lab.workspace, settings=settings.model_copy(update={"train": train}))
    )
    import_masks(quick.workspace, "cells", drawn.annotations)
    kinds: list[str] = []
    while not rows(quick.workspace, select(Decision.id)):
        assert due(quick) > 0, kinds
        kinds += run_all(quick)
    steps = [kind for kind in kinds if kind != "embed"]
    assert steps == ["snapshot", "train", "evaluate", "evaluate", "promote"]
    first, second = rows(quick.workspace, select(ModelVersion).order_by(ModelVersion.id))
    assert second.parent_id == first.id and second.config == first.config and second.name == "v2"
    assert second.weights_sha256 != first.weights_sha256 and second.training["recipe"] == "finetune"
    assert (second.snapshot_id,) == tuple(
        rows(quick.workspace, select(Snapshot.id).where(Snapshot.name == "round-1"))
    )
    assert all(row.figures["n_masks"] == 6 for row in rows(quick.workspace, select(Evaluation)))
    assert not os.listdir(settings.home / "training")


def test_a_round_between_two_steps_is_in_progress_and_a_failed_step_lets_a_new_one_begin(
    lab: Lab, drawn: Drawn, quick_arrows: Callable[..., ArrowOf]
) -> None:
    import_masks(lab.workspace, "cells", drawn.annotations)
    arrows = quick_arrows({})  # no figures: evaluating fails
    due(lab)
    run_all(lab, arrows)  # the snapshots are taken, the training is not asked for yet
    with lab.workspace.write() as session, pytest.raises(Conflict, match="round is in progress"):
        loop.start_round(session, lab.workspace.settings, lab.dataset_id)
    due(lab)
    run_all(lab, arrows)
    due(lab)
    for one in jobs(lab, "evaluate"):
        assert run_job(lab.workspace, one.id, arrows, "worker") == "failed"
    with lab.workspace.write() as session:
        assert loop.start_round(session, lab.workspace.settings, lab.dataset_id) == 2


def test_an_image_whose_embedding_failed_does_not_stop_the_queue(lab: Lab) -> None:
    due(lab)
    first = jobs(lab, "embed")
    with lab.workspace.write() as session:
        for one in first:
            session.get_one(Job, one.id).state = "failed"
    due(lab)
    assert {one.id for one in jobs(lab, "embed")} > {one.id for one in first}
