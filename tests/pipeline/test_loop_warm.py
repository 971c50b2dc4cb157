"""Warm before the switch: whoever works when a new version begins to serve finds the next image ready."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from datetime import timedelta
from typing import Any

import pytest
from sqlalchemy import select

from engine.errors import Refused
from engine.modeling.detector import build_detector, save_detector
from engine.modeling.detector_card import DetectorCard, DetectorConfig
from engine.modeling.sam_config import SamConfig
from engine.pipeline import assign, loop, predict, report
from engine.pipeline.assign import Waiting
from engine.pipeline.collect import carry_out
from engine.pipeline.ingest_masks import import_masks
from engine.store.assignments import Assignment
from engine.store.detector_versions import DetectorVersion
from engine.store.embeddings import Embedding
from engine.store.generations import Generation
from engine.store.jobs import due_ids
from engine.store.model_versions import ActiveModel, Decision, ModelVersion
from engine.store.runner import ArrowOf, Work, Write, run_job
from engine.store.snapshots import Snapshot
from tests.factories import a_detector_version
from tests.pipeline.conftest import Drawn, Lab, rows
from tests.pipeline.test_annotate import POINT
from tests.pipeline.test_loop import BAD, GOOD, active, due, job
from tests.pipeline.test_loop_stages import next_of, opened
from tests.pipeline.test_train_detector import BOXES

FIGURES = {1: BAD, 2: GOOD}
STAGE_2 = "semi_automatic"


def detecting(threshold: float | None) -> Callable[..., Write]:
    """In the place of a detector's training: an untrained one, which prefills from that score on."""

    def train_detector(work: Work, *, dataset_id: int, model_version_id: int, snapshot_id: int) -> Write:
        def write(session: Any) -> dict[str, Any]:
            version = session.get_one(ModelVersion, model_version_id)
            config = DetectorConfig.of_model(SamConfig.from_dict(version.config))
            card = DetectorCard(config, version.weights_sha256, threshold, "none", 0, 0)
            blob = work.workspace.blobs.put(save_detector(build_detector(config, 0), card))
            columns = {"weights_sha256": blob, "threshold": threshold, "name": f"d{version.id}-{snapshot_id}"}
            a_detector_version(session, version, session.get_one(Snapshot, snapshot_id), **columns)
            return {}

        return write

    return train_detector


def failing_on(version_id: int, arrow: Callable[..., Write]) -> Callable[..., Write]:
    """The arrow, which fails for that version."""

    def fail(work: Work, *, model_version_id: int, **arguments: Any) -> Write:
        if model_version_id == version_id:
            raise Refused("the model gives no number")
        return arrow(work, model_version_id=model_version_id, **arguments)

    return fail


def turn(lab: Lab, arrows: ArrowOf) -> list[tuple[str, str]]:
    """Lets the loop ask and runs what is due now: kinds and how they ended."""
    due(lab)
    with lab.workspace.read() as session:
        ids = due_ids(session)
    return [(job(lab, id).kind, run_job(lab.workspace, id, arrows, "worker")) for id in ids]


def drain(lab: Lab, arrows: ArrowOf) -> None:
    while turn(lab, arrows):
        pass


def taken(lab: Lab, user_id: int) -> Assignment:
    found = next_of(lab, user_id)
    assert isinstance(found, Assignment), found
    return found


def submit(lab: Lab, lent: Assignment) -> None:
    with lab.workspace.write() as session:
        assign.submit(session, lab.workspace.settings, lent.id, lent.user_id)


def in_stage(lab: Lab, drawn: Drawn, stage: str, arrows: ArrowOf) -> None:
    """The masks are there, the stage is open, and whatever it needs of the first version is made."""
    import_masks(lab.workspace, "cells", drawn.annotations)
    changed: dict[str, Any] = {"proposer": BOXES} if stage == STAGE_2 else {}
    opened(lab, stage, retrain_after_new_masks=0, **changed)
    drain(lab, arrows)


def until_switched(lab: Lab, arrows: ArrowOf) -> list[tuple[str, str]]:
    """A round, turn by turn, until its candidate serves: what ran, and nothing after the switch."""
    ran: list[tuple[str, str]] = []
    with lab.workspace.write() as session:
        loop.start_round(session, lab.workspace.settings, lab.dataset_id)
    for _ in range(20):
        ran += turn(lab, arrows)
        if active(lab) == 2:
            return ran
    raise AssertionError(f"never switched: {ran}")


def with_ahead(lab: Lab, ahead: int) -> Lab:
    embed = lab.workspace.settings.embed.model_copy(update={"ahead": ahead})
    settings = lab.workspace.settings.model_copy(update={"embed": embed})
    return replace(lab, workspace=replace(lab.workspace, settings=settings))


def kinds(ran: Sequence[tuple[str, str]]) -> list[str]:
    return [kind for kind, _ in ran]


@pytest.mark.parametrize("stage", ["assisted_manual", STAGE_2])
def test_people_who_go_on_taking_images_do_not_put_the_switch_off(
    lab: Lab, drawn: Drawn, quick_arrows: Callable[..., ArrowOf], stage: str
) -> None:
    """There is then one more image to prepare at every look."""
    arrows = quick_arrows(FIGURES, train_detector=detecting(0.0))
    in_stage(lab, drawn, stage, arrows)
    with lab.workspace.write() as session:
        loop.start_round(session, lab.workspace.settings, lab.dataset_id)
    while not rows(lab.workspace, select(Decision.id)):
        turn(lab, arrows)
    lent, n_taken = taken(lab, lab.ann), 1
    while active(lab) == 1:
        turn(lab, arrows)
        submit(lab, lent)
        lent, n_taken = taken(lab, lab.ann), n_taken + 1
    assert n_taken < len(lab.image_ids)


@pytest.mark.parametrize("threshold", [0.0, None], ids=["prefills", "prefills nothing"])
def test_stage_2_switches_once_detector_and_next_proposals_are_there(
    labs: Lab, drawn: Drawn, quick_arrows: Callable[..., ArrowOf], threshold: float | None
) -> None:
    arrows = quick_arrows(FIGURES, train_detector=detecting(threshold))
    in_stage(labs, drawn, STAGE_2, arrows)
    mine = taken(labs, labs.ann)
    ran = kinds(until_switched(labs, arrows))
    after = ran[ran.index("promote") + 1 :]
    assert after.index("train-detector") < after.index("propose") < after.index("activate")
    assert after[-1] == "activate"
    submit(labs, mine)
    assert mine.model_version_id == 1
    assert [taken(labs, person).model_version_id for person in (labs.bea, labs.ann)] == [2, 2]
    n_proposed = rows(labs.workspace, select(Generation.n_proposals).where(Generation.model_version_id == 2))
    assert len(n_proposed) >= 2 and all((n > 0) == (threshold is not None) for n in n_proposed)


def test_a_detector_that_fails_keeps_no_version_from_serving(
    lab: Lab, drawn: Drawn, quick_arrows: Callable[..., ArrowOf]
) -> None:
    arrows = quick_arrows(FIGURES, train_detector=failing_on(2, detecting(0.0)))
    in_stage(lab, drawn, STAGE_2, arrows)
    ran = until_switched(lab, arrows)
    assert ("train-detector", "failed") in ran
    assert rows(lab.workspace, select(DetectorVersion.model_version_id).distinct()) == [1]
    answer = next_of(lab, lab.ann)
    assert isinstance(answer, Waiting) and "the model gives no number" in answer.reason


def test_proposals_that_fail_keep_no_version_from_serving(
    lab: Lab, drawn: Drawn, quick_arrows: Callable[..., ArrowOf]
) -> None:
    """Not even until every image of the dataset has failed."""
    lab = with_ahead(lab, 1)
    arrows = quick_arrows(
        FIGURES, train_detector=detecting(0.0), propose=failing_on(2, loop.arrow("propose"))
    )
    in_stage(lab, drawn, STAGE_2, arrows)
    ran = until_switched(lab, arrows)
    assert 1 <= ran.count(("propose", "failed")) < len(lab.image_ids)


@pytest.mark.parametrize("stage", ["assisted_manual", STAGE_2])
def test_an_open_image_keeps_its_version_through_the_switch_and_collecting(
    labs: Lab, drawn: Drawn, quick_arrows: Callable[..., ArrowOf], stage: str
) -> None:
    arrows = quick_arrows(FIGURES, train_detector=detecting(0.0))
    in_stage(labs, drawn, stage, arrows)
    mine = taken(labs, labs.ann)
    before = seen(labs, mine)
    until_switched(labs, arrows)
    drain(labs, arrows)
    with labs.workspace.write() as session:
        session.get_one(ActiveModel, labs.dataset_id).activated_at -= timedelta(minutes=5)
    assert carry_out(labs.workspace).n_files > 0
    again = taken(labs, labs.ann)
    assert (again.id, again.model_version_id) == (mine.id, 1)
    assert seen(labs, again) == before and before["embedding_ready"]
    of_first = select(Embedding.image_id).where(Embedding.model_version_id == 1)
    assert rows(labs.workspace, of_first) == [mine.image_id]
    offered = predict.predict(labs.workspace, mine.id, labs.ann, [POINT], [])
    assert offered.model_version_id == 1
    submit(labs, mine)
    assert taken(labs, labs.ann).model_version_id == 2


def seen(lab: Lab, lent: Assignment) -> Mapping[str, Any]:
    """What the page shows of the image, but for the time its lease ends."""
    with lab.workspace.read() as session:
        view = report.assignment_view(session, lent)
    return {key: value for key, value in view.items() if key != "lease_until"}


def test_the_next_image_of_every_open_lease_is_ready_at_the_switch(
    labs: Lab, drawn: Drawn, quick_arrows: Callable[..., ArrowOf]
) -> None:
    """Two people, and only one image more is kept ready: each has a next one all the same."""
    lab, arrows = with_ahead(labs, 1), quick_arrows(FIGURES, train_detector=detecting(0.0))
    in_stage(lab, drawn, STAGE_2, arrows)
    first = taken(lab, lab.ann)
    drain(lab, arrows)
    second = taken(lab, lab.bea)
    until_switched(lab, arrows)
    submit(lab, first)
    submit(lab, second)
    lent = [taken(lab, person) for person in (lab.ann, lab.bea)]
    assert [one.model_version_id for one in lent] == [2, 2]
