"""The loop as a query: what the database's state calls for becomes job rows. Lose the broker, lose nothing.

masks -> round (two snapshots) -> candidate -> evaluations -> decision -> warm images -> active, and again.
"""

import hashlib
from collections.abc import Callable
from importlib import import_module
from typing import Any

from sqlalchemy import String, cast, exists, func, literal, select
from sqlalchemy.orm import Session

from engine.config import Settings
from engine.errors import Conflict
from engine.store.assignments import Assignment
from engine.store.datasets import Dataset
from engine.store.embeddings import Embedding
from engine.store.evaluations import Evaluation
from engine.store.events import Event
from engine.store.images import Image, ImageProgress
from engine.store.jobs import Job, ask, retry
from engine.store.masks import Mask, current_masks
from engine.store.model_versions import ActiveModel, Decision, ModelVersion
from engine.store.runner import Write
from engine.store.snapshots import Snapshot, SnapshotMask

# Kind of job -> the arrow that does it. Imported when first run: only some of them need torch.
ARROWS = {
    "embed": "embed:embed",
    "snapshot": "snapshot:freeze_round",
    "train": "train:train",
    "evaluate": "evaluate:evaluate",
    "promote": "promote:decide",
    "activate": "promote:activate",
}
# Smaller runs first: somebody waits for an image, nobody for a round.
PRIORITIES = {
    "embed": 10,
    "warm": 20,
    "activate": 30,
    "snapshot": 30,
    "promote": 30,
    "evaluate": 50,
    "train": 60,
}


def arrow(kind: str) -> Callable[..., Write]:
    """The function behind a kind of job."""
    module, name = ARROWS[kind].split(":")
    found: Callable[..., Write] = getattr(import_module(f"engine.pipeline.{module}"), name)
    return found


def due(session: Session, settings: Settings) -> int:
    """Asks for every job that is called for now; returns how many are new. Asking twice changes nothing."""
    n_asked = 0
    for dataset in session.scalars(select(Dataset).order_by(Dataset.id)):
        active = session.get(ActiveModel, dataset.id)
        if active is None:
            continue
        if dataset.open_stage is not None:
            n_asked += _embed_next(session, settings, dataset, active.model_version_id, "embed")
        n_asked += _continue_round(session, settings, dataset, active)
    return n_asked


def start_round(session: Session, settings: Settings, dataset_id: int) -> int:
    """Asks for a training round now, whatever the counters say; its number. Conflict while one runs."""
    if _round_in_progress(session, dataset_id):
        raise Conflict("a training round is in progress: `maskloop jobs list` shows it")
    number = _next_number(session, dataset_id)
    key = f"{dataset_id}:{number}"
    arguments = {"dataset_id": dataset_id, "number": number}
    if not _ask(session, settings, "snapshot", dataset_id, arguments, key):
        # It was asked before and failed, or the number would have moved on.
        retry(session, session.scalars(select(Job.id).where(Job.unique_key == f"snapshot:{key}")).one())
    return number


def new_masks(session: Session, dataset_id: int) -> int:
    """Masks a person made on training images that no training round has seen."""
    last = _last_training(session, dataset_id)
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


def _embed_next(
    session: Session, settings: Settings, dataset: Dataset, version_id: int, priority: str
) -> int:
    """Embeddings of the images at the head of the queue, and one more for each person at work."""
    n_open = session.scalar(select(func.count()).select_from(Assignment).where(Assignment.state == "open"))
    ahead = settings.embed.ahead + (n_open or 0)
    missing = _head_of_queue(session, dataset, version_id, ahead)
    for image_id in missing:
        arguments = {"image_id": image_id, "model_version_id": version_id}
        _ask(session, settings, "embed", dataset.id, arguments, f"{image_id}:{version_id}", priority)
    return len(missing)


def _head_of_queue(session: Session, dataset: Dataset, version_id: int, ahead: int) -> list[int]:
    """Of the first `ahead` unfinished images, those this version has not embedded nor been asked to.

    An image whose embedding failed is passed over, or a few broken ones would stop the whole queue.
    """
    finished = exists().where(ImageProgress.image_id == Image.id, ImageProgress.stage == dataset.open_stage)
    key = literal("embed:") + cast(Image.id, String) + f":{version_id}"
    broken = exists().where(Job.unique_key == key, Job.state == "failed")
    head = select(Image.id).where(Image.dataset_id == dataset.id, ~finished, ~broken)
    ids = list(session.scalars(head.order_by(Image.id).limit(ahead)))
    ready = select(Embedding.image_id).where(
        Embedding.model_version_id == version_id, Embedding.image_id.in_(ids)
    )
    keys = {f"embed:{image_id}:{version_id}": image_id for image_id in ids}
    asked = select(Job.unique_key).where(Job.unique_key.in_(keys))
    settled = set(session.scalars(ready)) | {keys[key] for key in session.scalars(asked)}
    return [image_id for image_id in ids if image_id not in settled]


def _continue_round(session: Session, settings: Settings, dataset: Dataset, active: ActiveModel) -> int:
    """The next step of the dataset's round, if one is due."""
    training = _last_training(session, dataset.id)
    candidate = _candidate_of(session, training)
    if training is not None and candidate is None and not _has_ended(session, f"train:{training.id}"):
        arguments = {"snapshot_id": training.id, "parent_id": active.model_version_id}
        return _ask(session, settings, "train", dataset.id, arguments, str(training.id))
    if training is not None and candidate is not None and not _settled(session, candidate, active):
        return _judge(session, settings, dataset, training, candidate, active)
    return _begin_round(session, settings, dataset)


def _begin_round(session: Session, settings: Settings, dataset: Dataset) -> int:
    if dataset.open_stage is None or new_masks(session, dataset.id) < settings.train.min_new_masks:
        return 0
    if held_out_masks(session, dataset.id) < settings.train.min_holdout_masks:
        return 0
    number = _next_number(session, dataset.id)
    arguments = {"dataset_id": dataset.id, "number": number}
    return _ask(session, settings, "snapshot", dataset.id, arguments, f"{dataset.id}:{number}")


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
        return _warm_and_activate(session, settings, dataset, candidate, active)
    pair = (candidate.id, active.model_version_id)
    judged = select(Evaluation.model_version_id).where(
        Evaluation.snapshot_id == gate.id, Evaluation.model_version_id.in_(pair)
    )
    missing = set(pair) - set(session.scalars(judged))
    n_asked = 0
    for version_id in sorted(missing):
        arguments = {"model_version_id": version_id, "snapshot_id": gate.id}
        key = f"{version_id}:{gate.id}:{_protocol_key(settings)}"
        n_asked += _ask(session, settings, "evaluate", dataset.id, arguments, key)
    if missing:
        return n_asked
    arguments = {"model_version_id": candidate.id, "snapshot_id": gate.id}
    return _ask(
        session, settings, "promote", dataset.id, arguments, f"{candidate.id}:{active.model_version_id}"
    )


def _warm_and_activate(
    session: Session, settings: Settings, dataset: Dataset, candidate: ModelVersion, active: ActiveModel
) -> int:
    """A promoted version serves once the next images are embedded, so nobody waits for the switch."""
    if dataset.open_stage is not None:
        n_asked = _embed_next(session, settings, dataset, candidate.id, "warm")
        if n_asked or _embedding_now(session, candidate.id):
            return n_asked
    arguments = {"model_version_id": candidate.id, "expected_id": active.model_version_id}
    return _ask(
        session, settings, "activate", dataset.id, arguments, f"{candidate.id}:{active.model_version_id}"
    )


def _embedding_now(session: Session, version_id: int) -> bool:
    waiting = Job.state.in_(("queued", "running"))
    mine = (Job.kind == "embed") & Job.unique_key.like(f"embed:%:{version_id}")
    return session.scalar(select(Job.id).where(waiting, mine).limit(1)) is not None


def _protocol_key(settings: Settings) -> str:
    train = settings.train
    written = f"{train.eval_clicks} {train.noc_iou} {train.click_cap}"
    return hashlib.sha256(written.encode()).hexdigest()[:12]


def _ask(
    session: Session,
    settings: Settings,
    kind: str,
    dataset_id: int,
    arguments: dict[str, Any],
    key: str,
    priority: str | None = None,
) -> int:
    """1 if the job is new, 0 if it was asked before (and runs, ran or failed)."""
    known = session.scalar(select(Job.id).where(Job.unique_key == f"{kind}:{key}"))
    queue = "train" if kind == "train" else "cpu"
    ask(
        session,
        kind,
        arguments,
        f"{kind}:{key}",
        dataset_id=dataset_id,
        queue=queue,
        priority=PRIORITIES[priority or kind],
        max_attempts=settings.worker.max_attempts,
    )
    return int(known is None)


def _last_training(session: Session, dataset_id: int) -> Snapshot | None:
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


def _round_in_progress(session: Session, dataset_id: int) -> bool:
    """Whether a step of the round runs or is still to be asked; a failed step ends it for a new one."""
    steps = (Job.dataset_id == dataset_id) & Job.kind.in_(
        ("snapshot", "train", "evaluate", "promote", "activate")
    )
    if session.scalar(select(Job.id).where(steps, Job.state.in_(("queued", "running"))).limit(1)) is not None:
        return True
    training, active = _last_training(session, dataset_id), session.get(ActiveModel, dataset_id)
    if training is None or active is None:
        return False
    candidate = _candidate_of(session, training)
    if candidate is None:
        return not _has_ended(session, f"train:{training.id}")
    stopped = steps & Job.state.in_(("failed", "cancelled")) & (Job.created_at >= candidate.created_at)
    return not _settled(session, candidate, active) and session.scalar(select(Job.id).where(stopped)) is None
