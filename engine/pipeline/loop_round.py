"""A training round: masks -> two snapshots -> candidate -> evaluations -> decision -> active version."""

import hashlib
from typing import Any

from sqlalchemy import exists, func, or_, select
from sqlalchemy.orm import Session

from engine.config import Settings
from engine.errors import Conflict
from engine.pipeline.loop_ask import ask_for
from engine.pipeline.loop_switch import warm_and_switch
from engine.pipeline.stages import stage_of
from engine.store.datasets import Dataset
from engine.store.evaluations import Evaluation
from engine.store.events import Event
from engine.store.images import Image
from engine.store.jobs import Job, retry
from engine.store.masks import Mask, current_masks
from engine.store.model_versions import ActiveModel, Decision, ModelVersion, roll_back_asked
from engine.store.schedules import Schedule
from engine.store.snapshots import Snapshot, SnapshotMask


def start_round(session: Session, settings: Settings, dataset_id: int) -> int:
    """Asks for a training round now, whatever the counters say; its number. Conflict while one runs."""
    # Of two who ask at once the second waits here, then sees the first one's round.
    session.execute(select(Dataset.id).where(Dataset.id == dataset_id).with_for_update(key_share=True))
    if round_in_progress(session, dataset_id):
        raise Conflict("a training round is in progress: `maskloop jobs list` shows it")
    number = _next_number(session, dataset_id)
    key = f"{dataset_id}:{number}"
    arguments = {"dataset_id": dataset_id, "number": number}
    if not ask_for(session, settings, "snapshot", dataset_id, arguments, key):
        # It was asked before and failed, or the number would have moved on.
        retry(session, session.scalars(select(Job.id).where(Job.unique_key == f"snapshot:{key}")).one())
    return number


def new_masks(session: Session, dataset_id: int) -> int:
    """Masks a person made on training images that no training round has seen."""
    last = last_training(session, dataset_id)
    count = _human_masks(dataset_id, "train")
    if last is not None:
        count = count.where(
            ~exists().where(SnapshotMask.snapshot_id == last.id, SnapshotMask.mask_id == Mask.id)
        )
    return session.scalar(count) or 0


def held_out_masks(session: Session, dataset_id: int) -> int:
    """Masks a person made on held-out images: what candidates are judged by."""
    return session.scalar(_human_masks(dataset_id, "val")) or 0


def _human_masks(dataset_id: int, split: str) -> Any:
    columns = select(func.count()).select_from(Mask).join(current_masks, current_masks.c.mask_id == Mask.id)
    here = (
        (Image.dataset_id == dataset_id)
        & (Image.split == split)
        & Mask.touched_by_person
        & (Mask.iscrowd == 0)
    )
    return columns.join(Image, Image.id == Mask.image_id).where(here)


def continue_round(session: Session, settings: Settings, dataset: Dataset, active: ActiveModel) -> int:
    """The next step of the dataset's round, if one is due; a roll-back goes before it."""
    asked = roll_back_asked(session, dataset.id)
    if asked is not None and asked.subject_id is not None:
        key = f"{asked.subject_id}:{active.model_version_id}:{asked.id}"
        return warm_and_switch(session, settings, dataset, asked.subject_id, active, "rollback", key)
    training = last_training(session, dataset.id)
    candidate = _candidate_of(session, training)
    if training is not None and candidate is None and not _has_ended(session, f"train:{training.id}"):
        arguments = {"snapshot_id": training.id} | _begins_with(session, settings, dataset, active)
        return ask_for(session, settings, "train", dataset.id, arguments, str(training.id))
    if training is not None and candidate is not None and not _settled(session, candidate, active):
        return _judge(session, settings, dataset, training, candidate, active)
    return _begin_round(session, settings, dataset)


def _begins_with(
    session: Session, settings: Settings, dataset: Dataset, active: ActiveModel
) -> dict[str, Any]:
    """The weights that a round trains: the active ones, or where the stage names another architecture the
    newest version of that one, imported or from an earlier round; without any, random ones."""
    stage = stage_of(settings, dataset)
    wanted = "" if stage is None else stage.architecture
    if wanted in ("", session.get_one(ModelVersion, active.model_version_id).architecture):
        return {"parent_id": active.model_version_id}
    same = (ModelVersion.dataset_id == dataset.id) & (ModelVersion.architecture == wanted)
    newest = session.scalar(select(ModelVersion.id).where(same).order_by(ModelVersion.id.desc()).limit(1))
    if newest is not None:
        return {"parent_id": newest}
    return {"parent_id": None, "architecture": wanted}


def _begin_round(session: Session, settings: Settings, dataset: Dataset) -> int:
    stage = stage_of(settings, dataset)
    if stage is None or not stage.retrain_after_new_masks or _has_schedule(session, dataset):
        return 0
    if new_masks(session, dataset.id) < stage.retrain_after_new_masks:
        return 0
    if held_out_masks(session, dataset.id) < settings.train.min_holdout_masks:
        return 0
    number = _next_number(session, dataset.id)
    arguments = {"dataset_id": dataset.id, "number": number}
    return ask_for(session, settings, "snapshot", dataset.id, arguments, f"{dataset.id}:{number}")


def _has_schedule(session: Session, dataset: Dataset) -> bool:
    live = (Schedule.dataset_id == dataset.id) & Schedule.removed_at.is_(None)
    return session.scalar(select(Schedule.id).where(live).limit(1)) is not None


def _judge(
    session: Session,
    settings: Settings,
    dataset: Dataset,
    training: Snapshot,
    candidate: ModelVersion,
    active: ActiveModel,
) -> int:
    """Evaluate both on the round's held-out masks, decide, warm the next images, then switch."""
    gate = session.scalars(
        select(Snapshot).where(
            Snapshot.dataset_id == dataset.id, Snapshot.name == f"{training.name}-held-out"
        )
    ).one()
    decision = session.scalar(select(Decision).where(Decision.model_version_id == candidate.id))
    if decision is not None:
        key = f"{candidate.id}:{active.model_version_id}"
        return warm_and_switch(session, settings, dataset, candidate.id, active, "activate", key)
    pair = (candidate.id, active.model_version_id)
    judged = select(Evaluation.model_version_id).where(
        Evaluation.snapshot_id == gate.id, Evaluation.model_version_id.in_(pair)
    )
    missing = set(pair) - set(session.scalars(judged))
    n_asked = 0
    for version_id in sorted(missing):
        arguments = {"model_version_id": version_id, "snapshot_id": gate.id}
        key = f"{version_id}:{gate.id}:{_protocol_key(settings)}"
        n_asked += ask_for(session, settings, "evaluate", dataset.id, arguments, key)
    if missing:
        return n_asked
    arguments = {"model_version_id": candidate.id, "snapshot_id": gate.id}
    return ask_for(
        session, settings, "promote", dataset.id, arguments, f"{candidate.id}:{active.model_version_id}"
    )


def _protocol_key(settings: Settings) -> str:
    train = settings.train
    written = f"{train.eval_clicks} {train.noc_iou} {train.click_cap}"
    return hashlib.sha256(written.encode()).hexdigest()[:12]


def jobs_of_round(session: Session, dataset_id: int, number: int | str) -> list[Job]:
    """The round's jobs as far as they were asked: snapshot, training, evaluations, decision, switch."""
    named = select(Snapshot).where(Snapshot.dataset_id == dataset_id)
    training = session.scalar(named.where(Snapshot.name == f"round-{number}"))
    gate = session.scalar(named.where(Snapshot.name == f"round-{number}-held-out"))
    candidate = _candidate_of(session, training)
    keys = [Job.unique_key == f"snapshot:{dataset_id}:{number}"]
    keys += [] if training is None else [Job.unique_key == f"train:{training.id}"]
    keys += [] if gate is None else [Job.unique_key.like(f"evaluate:%:{gate.id}:%")]
    if candidate is not None:
        keys += [Job.unique_key.startswith(f"{kind}:{candidate.id}:") for kind in ("promote", "activate")]
    return list(session.scalars(select(Job).where(or_(*keys)).order_by(Job.id)))


def last_training(session: Session, dataset_id: int) -> Snapshot | None:
    """The training snapshot of the last round; those a person took by hand start none."""
    rounds = (
        (Snapshot.dataset_id == dataset_id) & (Snapshot.kind == "training") & Snapshot.name.like("round-%")
    )
    return session.scalar(select(Snapshot).where(rounds).order_by(Snapshot.id.desc()).limit(1))


def _next_number(session: Session, dataset_id: int) -> int:
    rounds = (
        (Snapshot.dataset_id == dataset_id) & (Snapshot.kind == "training") & Snapshot.name.like("round-%")
    )
    return (session.scalar(select(func.count()).select_from(Snapshot).where(rounds)) or 0) + 1


def _candidate_of(session: Session, training: Snapshot | None) -> ModelVersion | None:
    if training is None:
        return None
    made = select(ModelVersion).where(ModelVersion.snapshot_id == training.id)
    return session.scalar(made.order_by(ModelVersion.id.desc()).limit(1))


def _settled(session: Session, candidate: ModelVersion, active: ActiveModel) -> bool:
    """Refused, active at some time, or overtaken by a person who activated another version than the one it
    was compared with: the round is over. A failed step waits for a person's retry."""
    decision = session.scalar(select(Decision).where(Decision.model_version_id == candidate.id))
    if decision is None:
        return False
    if decision.verdict == "refuse" or decision.figures["active_id"] != active.model_version_id:
        return True
    switched = (Event.kind == "model.activated") & (Event.subject_id == candidate.id)
    return session.scalar(select(Event.id).where(switched).limit(1)) is not None


def _has_ended(session: Session, unique_key: str) -> bool:
    """Failed, cancelled, or done without a candidate of its own: the trainer gave weights that were there."""
    ended = Job.state.in_(("failed", "cancelled", "done"))
    return session.scalar(select(Job.id).where(Job.unique_key == unique_key, ended)) is not None


def round_in_progress(session: Session, dataset_id: int) -> bool:
    """Whether a step of the round runs or is still to be asked; a failed step ends it for a new one."""
    steps = (Job.dataset_id == dataset_id) & Job.kind.in_(
        ("snapshot", "train", "evaluate", "promote", "activate")
    )
    if session.scalar(select(Job.id).where(steps, Job.state.in_(("queued", "running"))).limit(1)) is not None:
        return True
    training, active = last_training(session, dataset_id), session.get(ActiveModel, dataset_id)
    if training is None or active is None:
        return False
    candidate = _candidate_of(session, training)
    if candidate is None:
        return not _has_ended(session, f"train:{training.id}")
    stopped = steps & Job.state.in_(("failed", "cancelled")) & (Job.created_at >= candidate.created_at)
    return not _settled(session, candidate, active) and session.scalar(select(Job.id).where(stopped)) is None
