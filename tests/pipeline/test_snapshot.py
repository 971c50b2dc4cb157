"""Snapshots: frozen lists by content, and no held-out image in training, whoever asks and how."""

from dataclasses import replace
from typing import Any

import pytest
from sqlalchemy import insert, select
from sqlalchemy.exc import IntegrityError
from sqlalchemy.orm import Session

from engine.errors import BadInput, Conflict, NotFound, Refused
from engine.geometry.rle import encode
from engine.pipeline import train
from engine.pipeline.ingest_masks import import_masks
from engine.pipeline.snapshot import difference, freeze_for_detector, freeze_round, snapshot_named, take
from engine.store.annotations import Annotation
from engine.store.assignments import Assignment
from engine.store.base import utc_now
from engine.store.images import Image
from engine.store.masks import Mask
from engine.store.model_versions import ModelVersion
from engine.store.reviews import Review
from engine.store.runner import Work, commit
from engine.store.session import Workspace
from engine.store.snapshots import Snapshot, SnapshotImage, SnapshotMask
from tests.factories import a_dataset, a_mask, a_model_version, a_proposal, a_user, add, an_image, digest
from tests.pipeline.conftest import Drawn, Lab, ellipse, rows


@pytest.fixture
def masked(labs: Lab, drawn: Drawn) -> Lab:
    import_masks(labs.workspace, "cells", drawn.annotations)
    return labs


def taken(lab: Lab, kind: str, **options: Any) -> Snapshot:
    with lab.workspace.write() as session:
        return take(session, lab.dataset_id, kind, **options)


def splits(workspace: Workspace, snapshot: Snapshot) -> list[str]:
    members = select(Image.split).join(SnapshotImage, SnapshotImage.image_id == Image.id)
    return rows(workspace, members.where(SnapshotImage.snapshot_id == snapshot.id))


def test_equal_masks_have_equal_digests_on_every_database(
    sqlite_workspace: Workspace, postgres_workspace: Workspace, drawn: Drawn, furnish: Any
) -> None:
    digests = []
    for workspace in (sqlite_workspace, postgres_workspace):
        lab = furnish(workspace)
        import_masks(workspace, "cells", drawn.annotations)
        digests.append([taken(lab, kind).digest_sha256 for kind in ("training", "evaluation", "release")])
    assert digests[0] == digests[1] and len(set(digests[0])) == 2


def test_training_takes_the_train_split_whatever_is_asked(masked: Lab) -> None:
    for query in ({}, {"split": "val"}, {"touched_by_person": True}):
        snapshot = taken(masked, "training", query=query)
        assert (snapshot.n_images, snapshot.n_masks) == (4, 12) and snapshot.query["split"] == "train"
        assert splits(masked.workspace, snapshot) == ["train"] * 4


def test_the_database_refuses_a_held_out_image_in_training(masked: Lab) -> None:
    snapshot = taken(masked, "training")
    held_out = masked.image_ids[5]
    (mask_id, *_) = rows(masked.workspace, select(Mask.id).where(Mask.image_id == held_out))
    by_hand = [
        insert(SnapshotImage).values(snapshot_id=snapshot.id, image_id=held_out),
        insert(SnapshotMask).values(snapshot_id=snapshot.id, mask_id=mask_id),
    ]
    for statement in by_hand:
        with pytest.raises(IntegrityError, match="held-out"), masked.workspace.write() as session:
            session.execute(statement)


def test_queries_narrow_and_unknown_ones_are_refused(masked: Lab) -> None:
    evaluation = taken(masked, "evaluation", query={"split": "val", "touched_by_person": True})
    assert (evaluation.n_images, evaluation.n_masks) == (2, 6)
    assert taken(masked, "evaluation", query={"touched_by_person": False}).n_masks == 0
    assert taken(masked, "release", query={"source": "human"}).n_masks == 0
    with pytest.raises(Refused, match="cannot be filtered by area"):
        taken(masked, "release", query={"area": 5})


def test_a_release_covers_images_without_masks_the_others_do_not(lab: Lab) -> None:
    assert (taken(lab, "release").n_images, taken(lab, "release").n_masks) == (6, 0)
    assert taken(lab, "release", query={"split": "val"}).n_images == 2
    assert taken(lab, "training").n_images == 0


def test_an_unchanged_set_gives_the_snapshot_there_is(masked: Lab) -> None:
    first = taken(masked, "release")
    assert taken(masked, "release").id == first.id
    named = taken(masked, "release", name="spring")
    assert named.id != first.id and named.digest_sha256 == first.digest_sha256
    with pytest.raises(Conflict, match="named 'spring' already"):
        taken(masked, "release", name="spring")
    with masked.workspace.read() as session:
        assert snapshot_named(session, masked.dataset_id, "spring").id == named.id
        with pytest.raises(NotFound, match="newest are: spring, release-1"):
            snapshot_named(session, masked.dataset_id, "autumn")


def test_names_of_rounds_belong_to_the_loop(masked: Lab) -> None:
    with pytest.raises(BadInput, match="belong to the loop"):
        taken(masked, "training", name="round-7")
    work = Work.inline(masked.workspace)
    outcome = commit(masked.workspace, freeze_round(work, dataset_id=masked.dataset_id, number=1))
    assert outcome["n_masks"] == 12
    named = {row.name: (row.kind, row.n_masks) for row in rows(masked.workspace, select(Snapshot))}
    assert named == {"round-1": ("training", 12), "round-1-held-out": ("evaluation", 6)}


def test_a_round_without_masks_is_refused_whole(lab: Lab) -> None:
    with pytest.raises(Refused, match="no mask to train on"):
        commit(lab.workspace, freeze_round(Work.inline(lab.workspace), dataset_id=lab.dataset_id, number=1))
    assert rows(lab.workspace, select(Snapshot.id)) == []


def test_the_difference_names_added_dropped_and_changed_masks(workspace: Workspace) -> None:
    with workspace.write() as session:
        dataset, user = a_dataset(session), a_user(session)
        image = an_image(workspace, session, dataset.id)
        masks = [a_mask(session, image) for _ in range(3)]
        older = take(session, dataset.id, "release")
        changed = a_mask(
            session, image, supersedes_id=masks[0].id, export_id=masks[0].export_id, counts="1_1"
        )
        added = a_mask(session, image)
        deletion = Annotation(client_id="client-1", body_sha256=digest(1), act="delete", image_id=image.id)
        deletion.author_id, deletion.target_mask_id = user.id, masks[1].id
        deletion.assignment_id = _an_assignment(session, dataset.id, image.id, user.id)
        add(session, deletion)
        newer = take(session, dataset.id, "release")
        found = difference(session, older, newer)
    assert changed.export_id == masks[0].export_id
    assert found == {
        "added": [added.export_id],
        "dropped": [masks[1].export_id],
        "changed": [masks[0].export_id],
    }


def _an_assignment(session: Any, dataset_id: int, image_id: int, user_id: int) -> int:
    version = a_model_version(session, dataset_id)
    row = Assignment(image_id=image_id, stage="assisted_manual", user_id=user_id, lease_until=utc_now())
    row.model_version_id = version.id
    return int(add(session, row).id)


def test_snapshots_are_never_edited(masked: Lab) -> None:
    snapshot = taken(masked, "release")
    with pytest.raises(IntegrityError, match="facts"), masked.workspace.write() as session:
        session.get_one(Snapshot, snapshot.id).n_masks = 0


def a_kept_mask(lab: Lab, image_id: int) -> int:
    """A prefilled mask that a person let stand."""
    with lab.workspace.write() as session:
        image, version = session.get_one(Image, image_id), session.get_one(ModelVersion, lab.version_id)
        proposal = a_proposal(session, image, version)
        columns = {"image_id": image_id, "stage": "semi_automatic", "user_id": lab.ann, "state": "submitted"}
        lent = add(
            session,
            Assignment(**columns, model_version_id=version.id, lease_until=utc_now(), ended_at=utc_now()),
        )
        said = {"body_sha256": digest(image_id), "act": "keep", "author_id": lab.ann}
        said |= {"client_id": f"keep-{lent.id}", "image_id": image_id, "assignment_id": lent.id}
        add(session, Review(proposal_id=proposal.id, **said))
        return _a_model_mask(session, image, "semi_automatic", proposal.id)


def an_automatic_mask(lab: Lab, image_id: int) -> int:
    with lab.workspace.write() as session:
        return _a_model_mask(session, session.get_one(Image, image_id), "fully_automatic", None)


def _a_model_mask(session: Session, image: Image, stage: str, proposal_id: int | None) -> int:
    columns = {"source": "model", "touched_by_person": False, "stage": stage, "proposal_id": proposal_id}
    counts = encode(ellipse(20, 20, 5, 5))["counts"]
    return int(a_mask(session, image, counts=counts, **columns).id)


@pytest.mark.parametrize("automatic_masks", ["never", "always"])
def test_a_round_learns_from_what_people_saw_and_from_the_rest_only_if_asked(
    masked: Lab, automatic_masks: str
) -> None:
    kept = [a_kept_mask(masked, masked.image_ids[n]) for n in (0, 5)]
    automatic = [an_automatic_mask(masked, masked.image_ids[n]) for n in (1, 4)]
    section = masked.workspace.settings.train.model_copy(update={"automatic_masks": automatic_masks})
    settings = masked.workspace.settings.model_copy(update={"train": section})
    work = Work.inline(replace(masked.workspace, settings=settings))
    told = commit(masked.workspace, freeze_round(work, dataset_id=masked.dataset_id, number=1))
    learned, gate = (
        set(
            rows(masked.workspace, select(SnapshotMask.mask_id).where(SnapshotMask.snapshot_id == told[name]))
        )
        for name in ("training", "held_out")
    )
    assert kept[0] in learned and (automatic[0] in learned) == (automatic_masks == "always")
    # Nothing that the model drew judges models, seen or not.
    assert len(gate) == 6 and not gate & {*kept, *automatic} and not learned & {kept[1], automatic[1]}


def test_pictures_without_a_reviewed_mask_are_seen_less_often(lab: Lab) -> None:
    with lab.workspace.write() as session:
        drawn_on = session.get_one(Image, lab.image_ids[0])
        a_mask(session, drawn_on, counts=encode(ellipse(20, 20, 5, 5))["counts"])
    an_automatic_mask(lab, lab.image_ids[0])
    an_automatic_mask(lab, lab.image_ids[1])
    a_kept_mask(lab, lab.image_ids[2])
    snapshot = taken(lab, "training")
    samples = list(train._samples(Work.inline(lab.workspace), snapshot.id))
    assert [(len(sample.masks), sample.human, sample.weight) for sample in samples] == [
        (2, True, 1.0),
        (1, False, 0.1),
        (1, True, 1.0),
    ]


def test_names_of_the_loop_are_kept_for_the_loop(masked: Lab) -> None:
    for name in ("round-7", "detector-7"):
        with pytest.raises(BadInput, match="belong to the loop"):
            taken(masked, "training", name=name)
    work = Work.inline(masked.workspace)
    told = commit(masked.workspace, freeze_for_detector(work, dataset_id=masked.dataset_id))
    (row,) = rows(masked.workspace, select(Snapshot).where(Snapshot.id == told["training"]))
    assert (row.name, row.kind, row.n_masks) == ("detector-1", "training", 12)
