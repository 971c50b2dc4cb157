"""What people are shown: counts, effort by model version, and what needs them."""

from engine.pipeline import assign, report, review
from engine.pipeline.ingest_masks import import_masks
from engine.store.assignments import Assignment
from engine.store.datasets import Dataset
from engine.store.evaluations import Evaluation
from engine.store.events import record_event
from engine.store.images import Image
from engine.store.jobs import ask, claim, fail
from engine.store.model_versions import Decision, ModelVersion
from engine.store.session import Workspace
from tests.factories import a_dataset, a_model_version, a_proposal, a_snapshot, add, digest
from tests.pipeline.conftest import Drawn, Lab
from tests.pipeline.test_annotate import OTHER, Desk
from tests.pipeline.test_review import Judge
from tests.pipeline.test_review import ready as prefilled


def progress(lab: Lab) -> dict:
    with lab.workspace.read() as session:
        return report.progress(session, lab.workspace.settings, session.get_one(Dataset, lab.dataset_id))


def test_an_empty_dataset_has_counts_and_no_means(sqlite_workspace: Workspace) -> None:
    with sqlite_workspace.write() as session:
        dataset = a_dataset(session)
        shown = report.progress(session, sqlite_workspace.settings, dataset)
        assert report.datasets(session) == [report.dataset_brief(session, dataset)]
        assert report.dataset_view(session, dataset)["model"] is None
    assert shown["images"] == {"total": 0, "done": 0, "skipped": 0, "open": 0}
    assert shown["masks"] == 0 and shown["masks_per_image"] is None
    assert shown["active_seconds_per_mask"] is None and shown["by_model_version"] == []


def test_progress_counts_current_masks_and_the_effort_behind_them(labs: Lab) -> None:
    labs.embed(*labs.image_ids[:3])
    desk = Desk(labs, labs.ann)
    first, _ = desk.accept("client-0001", active_ms=2000)
    desk.accept("client-0002", active_ms=6000, segmentation=OTHER)
    desk.accept("client-0003", active_ms=9000, supersedes_id=first.id)
    gone, _ = desk.accept("client-0004", active_ms=60_000)
    desk.delete("client-0005", gone.id)
    with labs.workspace.write() as session:
        assign.submit(session, labs.workspace.settings, desk.assignment.id, labs.ann)
    other = Desk(labs, labs.bea)
    with labs.workspace.write() as session:
        assign.skip(session, labs.workspace.settings, other.assignment.id, labs.bea, "blurred")
    Desk(labs, labs.bea)
    shown = progress(labs)
    assert shown["images"] == {"total": 6, "done": 1, "skipped": 1, "open": 1}
    assert (shown["masks"], shown["masks_per_image"]) == (2, 2.0)
    assert (shown["active_seconds_per_mask"], shown["clicks_per_mask"]) == (7.5, 1.0)
    (row,) = shown["by_model_version"]
    assert (row["model_version"], row["state"], row["masks"], row["images"]) == ("small", "active", 2, 1)
    assert row["miou_1_click"] is None and row["decided_reason"] is None


def test_held_out_masks_and_what_is_missing_are_said(lab: Lab, drawn: Drawn) -> None:
    shown = progress(lab)
    assert (shown["held_out_masks"], shown["held_out_needed"]) == (0, 2) and "there are 0 so far" in shown[
        "note"
    ]
    import_masks(lab.workspace, "cells", drawn.annotations)
    shown = progress(lab)
    assert (shown["held_out_masks"], shown["note"]) == (6, None)
    # Imported masks cost nobody here a second.
    assert shown["masks"] == 18 and shown["active_seconds_per_mask"] is None


def test_each_version_shows_its_state_and_its_newest_figures(lab: Lab) -> None:
    with lab.workspace.write() as session:
        snapshot = a_snapshot(session, lab.dataset_id, "training").id
        made = []
        for n in range(2, 6):
            version = a_model_version(session, lab.dataset_id, n)
            made.append(version)
        for version, verdict in zip(made, ["refuse", "promote", "promote", None], strict=True):
            if verdict:
                add(
                    session,
                    Decision(model_version_id=version.id, verdict=verdict, reason=verdict, figures={}),
                )
        # There and back again.
        for served, before in ((made[1].id, lab.version_id), (lab.version_id, made[1].id)):
            switch = {"dataset_id": lab.dataset_id, "subject_id": served, "before": before}
            record_event(session, "model.activated", **switch)
        for n, value in enumerate([0.5, 0.6]):
            row = Evaluation(model_version_id=made[0].id, snapshot_id=snapshot, protocol={})
            row.protocol_sha256 = digest(n)
            row.figures = {"miou": {"1": value, "3": value}, "noc": 9 - n}
            add(session, row)
    shown = {row["model_version"]: row for row in progress(lab)["by_model_version"]}
    states = {name: row["state"] for name, row in shown.items()}
    assert (
        states["small"] == "active" and states["version-2"] == "refused" and states["version-3"] == "retired"
    )
    assert (shown["version-2"]["miou_1_click"], shown["version-2"]["noc_85"]) == (0.6, 8)
    assert shown["version-2"]["decided_reason"] == "refuse"


def test_failed_jobs_are_shown_with_their_reason(lab: Lab) -> None:
    with lab.workspace.write() as session:
        failed = ask(session, "embed", {}, "a", dataset_id=lab.dataset_id).id
        ask(session, "embed", {}, "b", dataset_id=lab.dataset_id)
        held = claim(session, failed, "worker", 60)
        assert held is not None
        fail(session, held, "the disk is full", retry_in_s=None)
        session.flush()
    shown = progress(lab)
    assert shown["jobs"] == {"queued": 1, "running": 0, "failed": 1}
    assert [(one["id"], one["kind"], one["reason"]) for one in shown["failed_jobs"]] == [
        (failed, "embed", "the disk is full")
    ]
    with lab.workspace.read() as session:
        assert [one["id"] for one in report.job_list(session, state="failed")] == [failed]
        assert len(report.job_list(session, dataset_id=lab.dataset_id)) == 2


def test_an_assignment_shows_its_image_its_model_and_current_masks(lab: Lab) -> None:
    lab.embed(*lab.image_ids[:2])
    desk = Desk(lab, lab.ann)
    mask, _ = desk.accept()
    gone, _ = desk.accept("client-0002")
    desk.delete("client-0003", gone.id)
    with lab.workspace.read() as session:
        shown = report.assignment_view(session, session.get_one(Assignment, desk.assignment.id))
    assert shown["image"] == {
        "id": lab.image_ids[0],
        "width": 96,
        "height": 64,
        "name": "cells-0.png",
        "url": f"/api/v1/images/{lab.image_ids[0]}/pixels",
    }
    assert shown["embedding_ready"] and shown["model"]["name"] == "small" and shown["state"] == "open"
    assert shown["order"] == {"position": 1, "total": 6}
    (view,) = shown["masks"]
    assert (view["id"], view["author"], view["model_version"]) == (mask.id, "person-1", "small")
    assert view["segmentation"] == {"size": [64, 96], "counts": mask.counts} and not view["second_opinion"]


def test_a_second_opinion_counts_nowhere(lab: Lab) -> None:
    lab.embed(*lab.image_ids[:2])
    late = Desk(lab, lab.ann)
    late.expire()
    Desk(lab, lab.bea)
    late.accept()
    shown = progress(lab)
    assert shown["masks"] == 0 and shown["by_model_version"][0]["masks"] == 0
    with lab.workspace.read() as session:
        assert report.image_masks(session, lab.image_ids[0]) == []


def test_each_stage_shows_its_images_its_masks_and_the_fate_of_what_was_prefilled(lab: Lab) -> None:
    judge = Judge(prefilled(lab), lab.ann)
    judge.say(review.reject, judge.ids[2:3], "client-0001")
    judge.accept("client-0002", proposal_id=judge.ids[1])
    first, second, third = progress(lab)["by_stage"]
    # Until the image is submitted nothing was judged to the end.
    assert (second["images"], second["prefilled"], second["share_kept"]) == (0, 0, None)
    judge.submit()
    first, second, third = progress(lab)["by_stage"]
    assert (first["stage"], first["images"], first["masks"], first["detector"]) == (
        "assisted_manual",
        0,
        0,
        None,
    )
    assert (second["images"], second["masks"], second["masks_per_image"]) == (1, 3, 3.0)
    assert (second["prefilled"], second["share_kept"], second["share_rejected"]) == (4, 0.5, 0.25)
    assert second["detector"]["model_version"] == "small" and second["detector"]["threshold"] == 0.5
    assert (third["stage"], third["images"], third["masks_per_image"]) == ("fully_automatic", 0, None)


def test_in_stage_3_an_image_is_done_when_the_model_went_over_it(lab: Lab) -> None:
    with lab.workspace.write() as session:
        dataset = session.get_one(Dataset, lab.dataset_id)
        dataset.open_stage = "fully_automatic"
        version = session.get_one(ModelVersion, lab.version_id)
        for image_id in lab.image_ids[:2]:
            a_proposal(session, session.get_one(Image, image_id), version, stage="fully_automatic")
    shown = progress(lab)
    assert shown["images"] == {"total": 6, "done": 2, "skipped": 0, "open": 0}
    assert shown["by_stage"][2]["images"] == 2
