"""`schedule`, `gc` and `models rollback`, as a person calls them."""

import shutil
from pathlib import Path

from sqlalchemy import select

from engine.config import load_settings
from engine.pipeline.embed import embed
from engine.pipeline.promote import activate
from engine.store.embeddings import Embedding
from engine.store.model_versions import ModelVersion
from engine.store.runner import Work, commit
from engine.store.session import open_workspace
from tests.cli.conftest import Maskloop
from tests.factories import a_model_version


def test_schedules_are_added_listed_and_removed(boxes: Path, maskloop: Maskloop) -> None:
    assert maskloop("schedule", "list", "--home", boxes).out.startswith("no schedule")
    added = maskloop(
        "schedule", "add", "--nightly", "--every-new-masks", 5000, "--dataset", "boxes", "--home", boxes
    )
    assert added.code == 0, added.err
    assert "boxes is retrained nightly at 02:00 UTC or every 5,000 new masks" in added.out
    assert "after 5,000 more masks" in added.out
    late = maskloop("schedule", "add", "--nightly", "--at", "23:15", "--home", boxes, "--json").json
    assert (late["nightly_at"], late["every_new_masks"], late["runs"]) == ("23:15", None, [])
    listed = maskloop("schedule", "list", "--home", boxes).out
    assert "02:00" in listed and "23:15" in listed
    assert (
        maskloop("schedule", "remove", late["id"], "--home", boxes).out == f"schedule {late['id']} is gone\n"
    )
    assert [one["id"] for one in maskloop("schedule", "list", "--home", boxes, "--json").json] == [1]


def test_a_schedule_that_cannot_be_ends_with_a_sentence(boxes: Path, maskloop: Maskloop) -> None:
    for arguments, sentence in (
        ((), "say when to retrain"),
        (("--at", "03:00"), "--at goes with --nightly"),
        (("--nightly", "--at", "3 am"), "HH:MM"),
        (("--every-new-masks", -1), "between 1 and"),
    ):
        ended = maskloop("schedule", "add", *arguments, "--home", boxes)
        assert ended.code == 1 and sentence in ended.err and ended.err.count("\n") == 1
    assert "no schedule 9" in maskloop("schedule", "remove", 9, "--home", boxes).err


def test_gc_says_what_would_go_and_a_rollback_is_one_command(boxes: Path, maskloop: Maskloop) -> None:
    maskloop("stage", "open", "assisted-manual", "--home", boxes)
    workspace = open_workspace(load_settings(boxes))
    inline = Work.inline(workspace)
    for image_id in (1, 2, 3):
        commit(workspace, embed(inline, image_id=image_id, model_version_id=1))
    nowhere = maskloop("models", "rollback", "--home", boxes)
    assert nowhere.code == 1 and "no version served before" in nowhere.err
    with workspace.write() as session:
        second_id, never = a_model_version(session, 1, 2).id, a_model_version(session, 1, 3).name
    commit(workspace, activate(inline, model_version_id=second_id))
    # A minute has to pass before the version just left is let go: the settings keep it here for good.
    (boxes / "config.toml").write_text((boxes / "config.toml").read_text() + "\n[gc]\nkeep_versions = 1\n")
    dry = maskloop("gc", "--dry-run", "--home", boxes, "--json").json
    assert (dry["n_embeddings"], dry["dry_run"]) == (0, True)
    assert maskloop("gc", "--home", boxes).out.startswith("removed 0 embeddings")
    refused = maskloop("models", "rollback", "--to", never, "--home", boxes)
    assert refused.code == 1 and "never served" in refused.err
    back = maskloop("models", "rollback", "--home", boxes)
    assert (back.code, back.out) == (0, "small serves boxes again\n"), back.err
    again = maskloop("models", "rollback", "--home", boxes)
    assert again.code == 1 and "no version served before" in again.err
    with workspace.read() as session:
        assert len(session.scalars(select(Embedding.id)).all()) == 3
    workspace.close()


def test_a_rollback_embeds_what_was_collected_and_says_when_it_cannot(
    boxes: Path, maskloop: Maskloop
) -> None:
    maskloop("stage", "open", "assisted-manual", "--home", boxes)
    workspace = open_workspace(load_settings(boxes))
    with workspace.write() as session:
        second_id = a_model_version(session, 1, 2).id
        weights = session.get_one(ModelVersion, 1).weights_sha256
    commit(workspace, activate(Work.inline(workspace), model_version_id=second_id))
    kept = workspace.blobs.local_path(weights)
    shutil.move(kept, boxes / "aside")
    failed = maskloop("models", "rollback", "--home", boxes)
    assert failed.code == 1 and "not gone back" in failed.err and "restore it from a backup" in failed.err
    shutil.move(boxes / "aside", kept)
    for job in maskloop("jobs", "list", "--state", "failed", "--home", boxes, "--json").json:
        if job["arguments"]["model_version_id"] == 1:
            assert maskloop("jobs", "retry", job["id"], "--home", boxes).code == 0
    assert maskloop("models", "rollback", "--home", boxes, "--json").json == {"active": "small"}
    with workspace.read() as session:
        versions = set(session.scalars(select(Embedding.model_version_id)))
    assert versions == {1}
    workspace.close()
