"""What the flow promises of its rows, each promise as statements that must find nothing.

To add one: a statement whose first columns are the key of what breaks it, and a line in PROMISES.
"""

import hashlib
from collections.abc import Iterator
from datetime import timedelta
from typing import Any

from sqlalchemy import exists, func, select
from sqlalchemy.orm import Session, aliased

from engine.store.annotations import Annotation
from engine.store.assignments import Assignment
from engine.store.base import database_now
from engine.store.categories import Category
from engine.store.datasets import ExportId
from engine.store.evaluations import Evaluation
from engine.store.events import Event
from engine.store.exports import Export
from engine.store.generations import Generation
from engine.store.images import Image
from engine.store.integrity import PAGE, Check, Look, Rows, rows_of
from engine.store.jobs import Job
from engine.store.masks import Mask
from engine.store.model_versions import ActiveModel, Decision, ModelVersion
from engine.store.proposals import Proposal
from engine.store.reviews import Review
from engine.store.schedules import ScheduleRun
from engine.store.snapshots import Snapshot, SnapshotImage, SnapshotMask

# Ten times the default lease: any sweeper that runs has taken such a job again long before.
STUCK_AFTER = timedelta(minutes=10)
MAKES_A_MASK = ("accept", "restore")
COUNTED = {"image": Image, "category": Category, "mask": Mask}

_older, _first = aliased(Mask), aliased(ModelVersion)


def _masks_off_their_image() -> Rows:
    of_image = (Mask.height == Image.height) & (Mask.width == Image.width)
    return select(Mask.id).join(Image, Image.id == Mask.image_id).where(~of_image)


def _acts_without_mask() -> Rows:
    made = exists().where(Mask.annotation_id == Annotation.id)
    return select(Annotation.id).where(Annotation.act.in_(MAKES_A_MASK), ~made)


def _masks_without_act() -> Rows:
    """By people, yet nobody's act; or of an act that makes no mask, or of one that made other pixels."""
    nobodys = (Mask.source == "human") & Mask.annotation_id.is_(None)
    other = Annotation.act.not_in(MAKES_A_MASK) | (Annotation.counts != Mask.counts)
    return select(Mask.id).outerjoin(Annotation, Annotation.id == Mask.annotation_id).where(nobodys | other)


def _acts_of_others() -> Rows:
    lent = Annotation.author_id == Assignment.user_id
    return select(Annotation.id).join(Assignment, Assignment.id == Annotation.assignment_id).where(~lent)


def _kept_without_mask() -> Rows:
    # The image's masks have an index, those of a proposal none.
    made = exists().where(Mask.image_id == Review.image_id, Mask.proposal_id == Review.proposal_id)
    return select(Review.id).where(Review.act == "keep", ~made)


def _bent_chains() -> Rows:
    """A correction is a later row and the same object. Ids that only rise allow no cycle."""
    bent = (_older.id >= Mask.id) | (_older.export_id != Mask.export_id) | Mask.second_opinion
    return select(Mask.id).join(_older, _older.id == Mask.supersedes_id).where(bent)


def _forked_chains() -> Rows:
    corrected = select(Mask.supersedes_id).select_from(Mask).where(Mask.supersedes_id.is_not(None))
    return corrected.group_by(Mask.supersedes_id).having(func.count() > 1)


def _shared_export_ids(row: Any) -> Rows:
    """Two objects of a dataset under one id; what supersedes a mask shares its id by right."""
    first = [Mask.supersedes_id.is_(None)] if row is Mask else []
    together = select(func.max(row.id)).select_from(row).where(*first)
    return together.group_by(row.dataset_id, row.export_id).having(func.count() > 1)


def _free_export_ids(kind: str, row: Any) -> Rows:
    """Rows whose id the dataset's counter would give once more."""
    here = (ExportId.dataset_id == row.dataset_id) & (ExportId.kind == kind)
    return select(row.id).where(~exists().where(here, ExportId.next_id > row.export_id))


def _held_out_in_training() -> tuple[Rows, ...]:
    leaked = (Image.split != "train") & (Snapshot.kind == "training")
    images = select(SnapshotImage.snapshot_id, SnapshotImage.image_id).join(Snapshot)
    masks = select(SnapshotMask.snapshot_id, SnapshotMask.mask_id).join(Snapshot)
    by_mask = masks.join(Mask, Mask.id == SnapshotMask.mask_id).join(Image, Image.id == Mask.image_id)
    return images.join(Image, Image.id == SnapshotImage.image_id).where(leaked), by_mask.where(leaked)


def _split_groups() -> Rows:
    """Look-alikes on both sides of the split, named by one image of the group."""
    groups = select(func.max(Image.id)).group_by(Image.dataset_id, Image.near_duplicate_group)
    return groups.having(func.min(Image.split) != func.max(Image.split))


def _masks_beside_their_images() -> Rows:
    there = exists().where(
        SnapshotImage.snapshot_id == SnapshotMask.snapshot_id, SnapshotImage.image_id == Mask.image_id
    )
    members = select(SnapshotMask.snapshot_id, SnapshotMask.mask_id)
    return members.join(Mask, Mask.id == SnapshotMask.mask_id).where(~there)


def _other_snapshots(look: Look) -> Iterator[object]:
    """Snapshots whose counts or digest are not those of their members."""
    with look.workspace.read() as session:
        snapshots = session.scalars(select(Snapshot).order_by(Snapshot.id)).all()
    for snapshot in snapshots:
        with look.workspace.read() as session:
            found = _recount(session, snapshot.id)
        look.on_rows(snapshot.n_images + snapshot.n_masks)
        if found != (snapshot.n_images, snapshot.n_masks, snapshot.digest_sha256):
            yield f"snapshots {snapshot.id}"


def _recount(session: Session, snapshot_id: int) -> tuple[int, int, str]:
    """(n_images, n_masks, digest) over the members, worked out apart from the arrow that wrote them."""
    columns = Image.export_id, Image.pixels_sha256
    images = select(*columns).join(SnapshotImage, SnapshotImage.image_id == Image.id)
    images = images.where(SnapshotImage.snapshot_id == snapshot_id).order_by(Image.export_id)
    name = func.coalesce(Category.name, "")
    masks = select(Image.export_id, Mask.export_id, Mask.counts, Mask.iscrowd, name)
    masks = masks.join(SnapshotMask, SnapshotMask.mask_id == Mask.id)
    masks = masks.join(Image, Image.id == Mask.image_id).outerjoin(Category, Category.id == Mask.category_id)
    masks = masks.where(SnapshotMask.snapshot_id == snapshot_id)
    digest, counted = hashlib.sha256(), []
    listings = (("image", images), ("mask", masks.order_by(Image.export_id, Mask.export_id, Mask.id)))
    for noun, listing in listings:
        counted.append(0)
        for row in session.execute(listing.execution_options(yield_per=PAGE)):
            digest.update(f"{noun} {' '.join(map(str, row))}\n".encode())
            counted[-1] += 1
    return counted[0], counted[1], digest.hexdigest()


def _doubled_leases() -> Rows:
    open_ones = select(func.max(Assignment.id)).where(Assignment.state == "open")
    return open_ones.group_by(Assignment.image_id, Assignment.stage).having(func.count() > 1)


def _odd_ends() -> tuple[Rows, ...]:
    """A thing that is over says when, one that goes on does not."""
    return (
        select(Assignment.id).where((Assignment.state == "open") != Assignment.ended_at.is_(None)),
        select(Job.id).where(Job.state.in_(("queued", "running")) != Job.ended_at.is_(None)),
        select(Job.id).where((Job.state == "failed") & Job.reason.is_(None)),
        select(ScheduleRun.id).where((ScheduleRun.state == "started") & ScheduleRun.round_number.is_(None)),
    )


def _stuck_jobs(look: Look) -> Iterator[object]:
    with look.workspace.read() as session:
        long_ago = database_now(session) - STUCK_AFTER
        stuck = Job.lease_until.is_(None) | (Job.lease_until < long_ago)
        ids = session.scalars(select(Job.id).where(Job.state == "running", stuck).order_by(Job.id))
        yield from (f"jobs {id}" for id in ids)


def _activation(job: Job) -> Any:
    return exists().where(
        Event.dataset_id == job.dataset_id,
        Event.kind == "model.activated",
        Event.subject_id == job.arguments.get("model_version_id"),
    )


def _done_without_effect(look: Look) -> Iterator[object]:
    """Jobs that are done and whose row is not there. Embeddings may have been collected since."""
    made: dict[str, Any] = {
        "train": lambda job: exists().where(ModelVersion.id == (job.outcome or {}).get("model_version")),
        "snapshot": lambda job: exists().where(Snapshot.id == (job.outcome or {}).get("training")),
        "evaluate": lambda job: exists().where(
            Evaluation.model_version_id == job.arguments.get("model_version_id"),
            Evaluation.snapshot_id == job.arguments.get("snapshot_id"),
        ),
        "promote": lambda job: exists().where(
            Decision.model_version_id == job.arguments.get("model_version_id")
        ),
        "activate": _activation,
        "rollback": _activation,
    }
    with look.workspace.read() as session:
        done = select(Job).where(Job.state == "done", Job.kind.in_(made)).order_by(Job.id)
        for job in session.scalars(done.execution_options(yield_per=PAGE)):
            if not session.scalar(select(made[job.kind](job))):
                yield f"jobs {job.id} ({job.kind})"


def _active_without_word() -> Rows:
    """Serving, and neither the dataset's first version nor ever activated on the record."""
    first = select(func.min(_first.id)).where(_first.dataset_id == ActiveModel.dataset_id).scalar_subquery()
    activated = exists().where(
        Event.dataset_id == ActiveModel.dataset_id,
        Event.kind == "model.activated",
        Event.subject_id == ActiveModel.model_version_id,
    )
    return select(ActiveModel.dataset_id).where(ActiveModel.model_version_id != first, ~activated)


def _activated_without_decision(look: Look) -> Iterator[object]:
    """Versions the loop itself switched to; a person may activate by hand what was never decided."""
    with look.workspace.read() as session:
        promoted = set(
            session.scalars(select(Decision.model_version_id).where(Decision.verdict == "promote"))
        )
        switched = session.scalars(select(Job.arguments).where(Job.kind == "activate", Job.state == "done"))
        versions = {arguments.get("model_version_id") for arguments in switched}
    yield from (f"model_versions {id}" for id in sorted(versions - promoted - {None}))


def _trained_on_other() -> Rows:
    trained = select(ModelVersion.id).join(Snapshot, Snapshot.id == ModelVersion.snapshot_id)
    return trained.where(Snapshot.kind != "training")


def _short_exports() -> Rows:
    written = select(Export.id).join(Snapshot, Snapshot.id == Export.snapshot_id)
    return written.where(Export.n_masks != Snapshot.n_masks)


def _miscounted_generations() -> Rows:
    """Proposals name no generation; they share its image, weights, stage and settings."""
    mine = (
        (Proposal.image_id == Generation.image_id)
        & (Proposal.model_version_id == Generation.model_version_id)
        & (Proposal.stage == Generation.stage)
        & (Proposal.config_sha256 == Generation.config_sha256)
    )
    n_proposals = select(func.count()).select_from(Proposal).where(mine).scalar_subquery()
    # Corrections and masks brought back name the proposal too; those are acts of people.
    by_itself = (
        (Mask.image_id == Generation.image_id) & ~Mask.touched_by_person & Mask.annotation_id.is_(None)
    )
    masks = select(func.count()).select_from(Proposal).join(Mask, Mask.proposal_id == Proposal.id)
    n_masks = masks.where(mine, by_itself).scalar_subquery()
    miscounted = (Generation.n_proposals != n_proposals) | (Generation.n_masks != n_masks)
    return select(Generation.id).where(miscounted)


_RESTORE = "rows were changed behind the database's back: `maskloop db restore DIR --home NEW` from a backup"
_RETRAIN = "take a new snapshot and train anew (`maskloop train`); promote nothing that learned from it"
PROMISES = (
    Check("masks_have_their_images_size", _RESTORE, rows_of(_masks_off_their_image())),
    Check("an_accepted_act_made_one_mask", _RESTORE, rows_of(_acts_without_mask())),
    Check("a_persons_mask_has_its_act", _RESTORE, rows_of(_masks_without_act())),
    Check("acts_are_by_who_held_the_image", _RESTORE, rows_of(_acts_of_others())),
    Check("kept_proposals_have_masks", _RESTORE, rows_of(_kept_without_mask())),
    Check("corrections_are_chains", _RESTORE, rows_of(_bent_chains(), _forked_chains())),
    Check("export_ids_are_unique", _RESTORE, rows_of(*map(_shared_export_ids, COUNTED.values()))),
    Check("export_ids_are_counted", _RESTORE, rows_of(*map(_free_export_ids, COUNTED, COUNTED.values()))),
    Check("held_out_never_trains", _RETRAIN, rows_of(*_held_out_in_training())),
    Check("look_alikes_share_a_split", _RETRAIN, rows_of(_split_groups())),
    Check("snapshots_cover_their_masks_images", _RETRAIN, rows_of(_masks_beside_their_images())),
    Check(
        "snapshots_are_as_taken",
        "its members are no longer those it was taken of: `maskloop snapshot create` takes a new one",
        _other_snapshots,
        ("snapshot_images", "snapshot_masks"),
    ),
    Check(
        "one_open_lease_per_image_and_stage",
        "let the people submit or release all but one of them",
        rows_of(_doubled_leases()),
    ),
    Check("ended_things_say_so", "`maskloop jobs show ID` tells more; " + _RESTORE, rows_of(*_odd_ends())),
    Check(
        "no_job_is_stuck",
        "no worker takes up what others dropped: `maskloop up` starts one, `maskloop work` is one",
        _stuck_jobs,
    ),
    Check(
        "done_jobs_left_their_rows",
        "the work is lost though the job says done: ask for it again (`maskloop train`)",
        _done_without_effect,
    ),
    Check(
        "active_versions_were_activated",
        "`maskloop models promote NAME --anyway` puts a version in place on the record",
        rows_of(_active_without_word()),
    ),
    Check(
        "the_loop_switches_only_to_promoted",
        "`maskloop models list` shows them; `maskloop models rollback` goes back",
        _activated_without_decision,
    ),
    Check("models_learn_from_training_snapshots", _RETRAIN, rows_of(_trained_on_other())),
    Check("generations_are_whole", _RESTORE, rows_of(_miscounted_generations())),
    Check("exports_are_whole", "write it again: `maskloop export`", rows_of(_short_exports())),
)
