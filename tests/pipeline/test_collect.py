"""Collecting: what can be computed again goes, what somebody needs stays, and it always comes back."""

import os
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from datetime import timedelta
from typing import Any

import pytest
from sqlalchemy import select
from sqlalchemy.orm import Session

from engine.pipeline import assign, loop
from engine.pipeline.collect import carry_out, plan
from engine.pipeline.embed import embed
from engine.pipeline.promote import activate, roll_back
from engine.store.annotations import Annotation
from engine.store.assignments import Assignment
from engine.store.base import utc_now
from engine.store.datasets import Dataset
from engine.store.embeddings import Embedding
from engine.store.jobs import Job, due_ids
from engine.store.model_versions import ActiveModel, Decision, ModelVersion
from engine.store.runner import Work, commit, run_job
from engine.store.session import Workspace
from tests.factories import a_dataset, a_model_version, a_user, add, an_image, digest
from tests.pipeline.conftest import Lab, rows
from tests.pipeline.test_annotate import OTHER, Desk

KB = 1000
# Long ago for anything that was stored in a test.
AT_ONCE_S = 0.001


def with_gc(workspace: Workspace, **changed: Any) -> Workspace:
    gc = workspace.settings.gc.model_copy(update=changed)
    return replace(workspace, settings=workspace.settings.model_copy(update={"gc": gc}))


def switch(workspace: Workspace, version_id: int) -> None:
    """Activates the version, as if more than a moment ago."""
    commit(workspace, activate(Work.inline(workspace), model_version_id=version_id))
    with workspace.write() as session:
        dataset_id = session.get_one(ModelVersion, version_id).dataset_id
        session.get_one(ActiveModel, dataset_id).activated_at -= timedelta(minutes=5)


def a_stub_embedding(workspace: Workspace, session: Session, image_id: int, version_id: int) -> str:
    """A row with a file of about KB bytes under a digest of its own, and the finished job behind it."""
    content = digest(image_id, version_id).encode() * (KB // 64)
    row = Embedding(image_id=image_id, model_version_id=version_id, dtype="float16", shape=[1, 1, 1])
    row.blob_sha256, row.n_bytes = workspace.blobs.put(content), len(content)
    key = f"embed:{image_id}:{version_id}"
    arguments = {"image_id": image_id, "model_version_id": version_id}
    session.add_all([row, Job(kind="embed", arguments=arguments, unique_key=key, state="done")])
    return row.blob_sha256


@dataclass(frozen=True)
class Shelf:
    """A dataset of small images and a line of versions, none of which ever runs."""

    workspace: Workspace
    dataset_id: int
    image_ids: list[int]
    version_ids: list[int]

    def fill(self, version_id: int) -> None:
        with self.workspace.write() as session:
            for image_id in self.image_ids:
                a_stub_embedding(self.workspace, session, image_id, version_id)

    def n_bytes(self) -> int:
        folder = self.workspace.settings.home / "blobs"
        return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())

    def embedded(self) -> set[tuple[int, int]]:
        with self.workspace.read() as session:
            pairs = session.execute(select(Embedding.image_id, Embedding.model_version_id))
            return {(image_id, version_id) for image_id, version_id in pairs}


def a_shelf(workspace: Workspace, n_images: int, n_versions: int) -> Shelf:
    with workspace.write() as session:
        dataset = a_dataset(session, open_stage="assisted_manual")
        images = [an_image(workspace, session, dataset.id, n).id for n in range(n_images)]
        versions = [a_model_version(session, dataset.id, n, active=n == 0).id for n in range(n_versions)]
        return Shelf(workspace, dataset.id, images, versions)


@pytest.fixture
def shelf(workspace: Workspace) -> Shelf:
    return a_shelf(workspace, n_images=3, n_versions=4)


@pytest.fixture
def small_shelf(sqlite_workspace: Workspace) -> Shelf:
    return a_shelf(sqlite_workspace, n_images=3, n_versions=4)


def test_after_five_promotions_the_disk_holds_at_most_twice_one_version(
    sqlite_workspace: Workspace,
) -> None:
    shelf = a_shelf(sqlite_workspace, n_images=50, n_versions=6)
    pictures = shelf.n_bytes()
    for version_id in shelf.version_ids:
        if version_id != shelf.version_ids[0]:
            commit(sqlite_workspace, activate(Work.inline(sqlite_workspace), model_version_id=version_id))
        shelf.fill(version_id)
    one_version = (shelf.n_bytes() - pictures) // 6
    carry_out(sqlite_workspace)
    # The version that was left this very moment may be in a lease that is just being written.
    assert shelf.n_bytes() - pictures == 2 * one_version
    with sqlite_workspace.write() as session:
        session.get_one(ActiveModel, shelf.dataset_id).activated_at -= timedelta(minutes=5)
    assert carry_out(sqlite_workspace).n_bytes == one_version
    assert shelf.n_bytes() - pictures == one_version


def test_what_somebody_needs_is_kept(shelf: Shelf) -> None:
    first, second, third, fourth = shelf.version_ids
    for version_id in shelf.version_ids:
        shelf.fill(version_id)
    a, b, c = shelf.image_ids
    switch(shelf.workspace, second)
    with shelf.workspace.write() as session:
        assign_to = {"stage": "assisted_manual", "model_version_id": first}
        person = a_user(session)
        now = utc_now()
        lease = {"user_id": person.id, "lease_until": now, **assign_to}
        add(session, Assignment(image_id=a, state="open", **lease))
        add(session, Assignment(image_id=b, state="expired", ended_at=now, **lease))
        add(session, Assignment(image_id=c, state="submitted", ended_at=now, **lease))
        # Promoted against the version that serves: it is being warmed. The fourth is nobody's.
        figures = {"active_id": second}
        add(session, Decision(model_version_id=third, verdict="promote", reason="better", figures=figures))
    wanted = plan(shelf.workspace)
    done = carry_out(shelf.workspace)
    assert (done, done.n_embeddings, done.n_files) == (wanted, 4, 4)
    pinned = {(a, first), (b, first)}
    assert shelf.embedded() == pinned | {(id, version) for id in (a, b, c) for version in (second, third)}
    for sha256 in rows(shelf.workspace, select(Embedding.blob_sha256)):
        assert shelf.workspace.blobs.exists(sha256)
    assert carry_out(shelf.workspace).n_embeddings == 0


def test_former_versions_are_kept_as_many_as_asked_for(small_shelf: Shelf) -> None:
    first, second, third, _ = small_shelf.version_ids
    for version_id in (first, second, third):
        small_shelf.fill(version_id)
    switch(small_shelf.workspace, second)
    switch(small_shelf.workspace, third)
    carry_out(with_gc(small_shelf.workspace, keep_versions=1))
    assert {version for _, version in small_shelf.embedded()} == {second, third}


def test_a_version_that_is_gone_back_to_is_kept_and_one_collected_is_asked_for_again(shelf: Shelf) -> None:
    first, second, *_ = shelf.version_ids
    shelf.fill(first)
    shelf.fill(second)
    switch(shelf.workspace, second)
    with shelf.workspace.write() as session:
        roll_back(session, shelf.dataset_id)
    assert carry_out(shelf.workspace).n_embeddings == 0
    switch(shelf.workspace, first)
    switch(shelf.workspace, second)
    assert carry_out(shelf.workspace).n_embeddings == 3
    with shelf.workspace.write() as session:
        roll_back(session, shelf.dataset_id)
        loop.due(session, shelf.workspace.settings)
    asked = (Job.kind == "embed") & (Job.state == "queued")
    keys = rows(shelf.workspace, select(Job.unique_key).where(asked))
    assert keys == [f"embed:{id}:{first}" for id in shelf.image_ids[: len(keys)]] and keys


def test_a_job_whose_row_went_unnoticed_is_asked_for_again(small_shelf: Shelf) -> None:
    """A doubled attempt that ends after its row was collected leaves a done job without a row."""
    arguments = {"image_id": small_shelf.image_ids[0], "model_version_id": small_shelf.version_ids[0]}
    with small_shelf.workspace.write() as session:
        add(session, Job(kind="embed", arguments=arguments, unique_key="embed:1:1", state="done"))
    carry_out(small_shelf.workspace)
    assert rows(small_shelf.workspace, select(Job.unique_key)) == ["embed:1:1:collected-1"]


def test_a_file_that_another_datasets_row_names_stays(small_shelf: Shelf) -> None:
    """The same weights and pixels in two datasets are one file."""
    workspace, first = small_shelf.workspace, small_shelf.version_ids[0]
    with workspace.write() as session:
        sha256 = a_stub_embedding(workspace, session, small_shelf.image_ids[0], first)
        other = a_dataset(session, 2)
        image_id = an_image(workspace, session, other.id, 9).id
        a_model_version(session, other.id, 9, active=True)
        original = session.get_one(ModelVersion, first)
        twin = ModelVersion(dataset_id=other.id, name="twin", architecture="tiny", config={})
        twin.weights_sha256, twin.decoder_sha256 = original.weights_sha256, original.decoder_sha256
        twin_id = add(session, twin).id
        row = Embedding(image_id=image_id, model_version_id=twin_id, dtype="float16", shape=[1])
        row.blob_sha256, row.n_bytes = sha256, 10
        add(session, row)
    switch(workspace, twin_id)
    switch(workspace, small_shelf.version_ids[1])
    done = carry_out(workspace)
    assert (done.n_embeddings, done.n_files) == (1, 0) and workspace.blobs.exists(sha256)


def test_orphans_go_once_they_are_old_and_named_files_never(small_shelf: Shelf) -> None:
    workspace = small_shelf.workspace
    small_shelf.fill(small_shelf.version_ids[0])
    named = set(rows(workspace, select(Embedding.blob_sha256)))
    orphan = workspace.blobs.put(b"nobody names me")
    draft = workspace.blobs.local_path(orphan).with_name(".draft.123-abcd")
    draft.write_bytes(b"half")
    assert carry_out(workspace).n_orphans == 0 and plan(workspace).n_orphans == 0
    time.sleep(0.01)
    old = with_gc(workspace, orphan_after_s=AT_ONCE_S)
    assert plan(old).n_orphans == 2
    done = carry_out(old)
    assert (done.n_orphans, done.n_orphan_bytes) == (2, len(b"nobody names me") + len(b"half"))
    assert not workspace.blobs.exists(orphan) and not draft.exists()
    assert all(workspace.blobs.exists(sha256) for sha256 in named)


def test_an_orphan_that_is_put_again_is_young_again(sqlite_workspace: Workspace) -> None:
    blobs = sqlite_workspace.blobs
    path = blobs.local_path(blobs.put(b"again"))
    os.utime(path, (1, 1))
    assert blobs.is_untouched(str(path), 60)
    blobs.put(b"again")
    assert not blobs.delete_untouched(str(path), 60) and path.exists()


def test_putting_and_collecting_the_same_orphan_at_once_never_loses_what_was_put(
    sqlite_workspace: Workspace,
) -> None:
    blobs = sqlite_workspace.blobs
    path = blobs.local_path(blobs.put(b"contested"))
    for _ in range(50):
        os.utime(path, (1, 1))
        collector = threading.Thread(target=blobs.delete_untouched, args=(str(path), 60))
        collector.start()
        sha256 = blobs.put(b"contested")
        collector.join()
        assert blobs.read(sha256) == b"contested"


def test_embedding_while_files_are_collected_leaves_no_row_without_its_file(labs: Lab) -> None:
    """The file goes between the arrow's put and its row: the write looks again, inside its transaction."""
    image_id = labs.image_ids[0]
    write = embed(Work.inline(labs.workspace), image_id=image_id, model_version_id=labs.version_id)
    carry_out(with_gc(labs.workspace, orphan_after_s=AT_ONCE_S))
    commit(labs.workspace, write)
    (sha256,) = rows(labs.workspace, select(Embedding.blob_sha256))
    assert labs.workspace.blobs.exists(sha256)


def test_an_open_image_keeps_its_version_through_a_promotion_and_collecting(lab: Lab) -> None:
    lab.embed(*lab.image_ids)
    desk = Desk(lab, lab.ann)
    desk.accept("client-1")
    with lab.workspace.write() as session:
        second_id = a_model_version(session, lab.dataset_id, 2).id
    switch(lab.workspace, second_id)
    assert carry_out(lab.workspace).n_embeddings == len(lab.image_ids) - 1
    # The lease still answers clicks, by the version it began with.
    desk.accept("client-2", segmentation=OTHER)
    assert desk.assignment.model_version_id == lab.version_id
    with lab.workspace.write() as session:
        assign.submit(session, lab.workspace.settings, desk.assignment.id, lab.ann)
    assert carry_out(lab.workspace).n_embeddings == 1
    assert rows(lab.workspace, select(Embedding.id)) == []
    # What was done on it still names it, and the image can be embedded again. Maybe to another digest:
    # the last bit of a sum depends on where in memory the numbers lie.
    (identity, _) = rows(lab.workspace, select(Annotation.embedding_sha256).order_by(Annotation.id))
    assert identity and not lab.workspace.blobs.exists(identity)
    lab.embed(desk.assignment.image_id)
    (again,) = rows(lab.workspace, select(Embedding))
    assert again.image_id == desk.assignment.image_id and lab.workspace.blobs.exists(again.blob_sha256)


@pytest.fixture
def turn(lab: Lab) -> Callable[[], None]:
    """Lets the loop ask, and runs what it asked for."""

    def once() -> None:
        with lab.workspace.write() as session:
            loop.due(session, lab.workspace.settings)
        with lab.workspace.read() as session:
            ids = due_ids(session)
        for job_id in ids:
            assert run_job(lab.workspace, job_id, loop.arrow, "worker") == "done"

    return once


def test_going_back_embeds_the_next_images_first_and_is_not_undone(
    lab: Lab, turn: Callable[[], None]
) -> None:
    with lab.workspace.write() as session:
        second_id = a_model_version(session, lab.dataset_id, 2).id
        figures = {"active_id": lab.version_id}
        add(session, Decision(model_version_id=second_id, verdict="promote", reason="ok", figures=figures))
    switch(lab.workspace, second_id)
    with lab.workspace.write() as session:
        session.get_one(Dataset, lab.dataset_id).open_stage = "assisted_manual"
        assert roll_back(session, lab.dataset_id).id == lab.version_id
        assert roll_back(session, lab.dataset_id).id == lab.version_id
    serving = select(ActiveModel.model_version_id)
    with lab.workspace.write() as session:
        loop.due(session, lab.workspace.settings)
        of_second = Job.unique_key.like(f"embed:%:{second_id}")
        for job in session.scalars(select(Job).where(of_second)):
            job.state = "cancelled"
    assert rows(lab.workspace, serving) == [second_id]
    assert rows(lab.workspace, select(Job.id).where(Job.kind == "rollback")) == []
    turn()
    assert len(rows(lab.workspace, select(Embedding.id))) >= 2 and rows(lab.workspace, serving) == [second_id]
    turn()
    assert rows(lab.workspace, serving) == [lab.version_id]
    turn()
    assert rows(lab.workspace, serving) == [lab.version_id]
