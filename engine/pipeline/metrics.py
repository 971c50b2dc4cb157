"""The figures that a monitor asks for: counts of rows by state, ages of what waits, what is ready ahead.

Counting every mask and job takes about a second per several million rows: ask every few seconds at most.
"""

from dataclasses import dataclass, field
from typing import Any

from sqlalchemy import exists, func, select
from sqlalchemy.orm import Session

from engine.config import Settings
from engine.store.assignments import Assignment
from engine.store.base import database_now
from engine.store.datasets import Dataset
from engine.store.embeddings import Embedding
from engine.store.images import Image, ImageProgress
from engine.store.jobs import QUEUES, Job
from engine.store.masks import Mask
from engine.store.model_versions import ActiveModel, ModelVersion

Labels = tuple[str, ...]


@dataclass(frozen=True)
class Figures:
    """Each field maps label values to a figure; the labels are named in the field's comment."""

    # kind, state, queue -> jobs
    jobs: dict[Labels, float] = field(default_factory=dict)
    # queue -> seconds; 0 when nothing waits
    oldest_waiting_job_s: dict[Labels, float] = field(default_factory=dict)
    # dataset -> rows
    images: dict[Labels, float] = field(default_factory=dict)
    # dataset, stage ("imported" for none) -> rows, superseded and deleted ones included
    masks: dict[Labels, float] = field(default_factory=dict)
    # dataset -> images at the head of the queue that are embedded with the active version
    embeddings_ready_ahead: dict[Labels, float] = field(default_factory=dict)
    # state (live, expired) -> open assignments
    leases: dict[Labels, float] = field(default_factory=dict)
    # dataset, version, architecture, weights_sha256 -> 1
    active_model: dict[Labels, float] = field(default_factory=dict)


def figures(session: Session, settings: Settings) -> Figures:
    """Everything at once, in the caller's transaction. Unavailable when the database does not answer."""
    names = {row.id: row.name for row in session.scalars(select(Dataset).order_by(Dataset.id))}
    return Figures(
        jobs=_rows(session, select(Job.kind, Job.state, Job.queue, func.count()).group_by(*_job_labels())),
        oldest_waiting_job_s=_oldest_waiting(session),
        images=_by_dataset(session, names, Image.dataset_id),
        masks=_masks(session, names),
        embeddings_ready_ahead=_ready_ahead(session, settings),
        leases=_leases(session),
        active_model=_active_models(session, names),
    )


def _job_labels() -> tuple[Any, ...]:
    return Job.kind, Job.state, Job.queue


def _rows(session: Session, query: Any) -> dict[Labels, float]:
    """Rows of labels that end in a number."""
    return {tuple(str(label) for label in row[:-1]): float(row[-1]) for row in session.execute(query)}


def _oldest_waiting(session: Session) -> dict[Labels, float]:
    now = database_now(session)
    due = Job.not_before.is_(None) | (Job.not_before <= now)
    oldest = select(Job.queue, func.min(Job.created_at)).where(Job.state == "queued", due).group_by(Job.queue)
    ages = {queue: (now - at).total_seconds() for queue, at in session.execute(oldest)}
    # Every queue always: an alert on a series that is absent never fires.
    return {(queue,): max(0.0, ages.get(queue, 0.0)) for queue in sorted({*QUEUES, *ages})}


def _by_dataset(session: Session, names: dict[int, str], column: Any) -> dict[Labels, float]:
    rows = session.execute(select(column, func.count()).group_by(column))
    counted = {dataset_id: n for dataset_id, n in rows}
    return {(name,): float(counted.get(dataset_id, 0)) for dataset_id, name in names.items()}


def _masks(session: Session, names: dict[int, str]) -> dict[Labels, float]:
    labels = (Mask.dataset_id, Mask.stage)
    counted = session.execute(select(*labels, func.count()).group_by(*labels))
    return {(names[dataset_id], stage or "imported"): float(n) for dataset_id, stage, n in counted}


def _ready_ahead(session: Session, settings: Settings) -> dict[Labels, float]:
    serving = select(Dataset.id, Dataset.name, Dataset.open_stage, ActiveModel.model_version_id).join(
        ActiveModel, ActiveModel.dataset_id == Dataset.id
    )
    ready: dict[Labels, float] = {}
    for dataset_id, name, stage, version_id in session.execute(
        serving.where(Dataset.open_stage.is_not(None))
    ):
        finished = exists().where(ImageProgress.image_id == Image.id, ImageProgress.stage == stage)
        head = select(Image.id).where(Image.dataset_id == dataset_id, ~finished).order_by(Image.id)
        ahead = head.limit(settings.embed.ahead).subquery()
        embedded = select(func.count()).select_from(Embedding).join(ahead, ahead.c.id == Embedding.image_id)
        found = session.scalar(embedded.where(Embedding.model_version_id == version_id))
        ready[(name,)] = float(found or 0)
    return ready


def _leases(session: Session) -> dict[Labels, float]:
    is_open, now = Assignment.state == "open", database_now(session)
    count = select(func.count()).select_from(Assignment).where(is_open)
    live = session.scalar(count.where(Assignment.lease_until > now)) or 0
    return {("live",): float(live), ("expired",): float((session.scalar(count) or 0) - live)}


def _active_models(session: Session, names: dict[int, str]) -> dict[Labels, float]:
    version = ModelVersion.name, ModelVersion.architecture, ModelVersion.weights_sha256
    active = select(ActiveModel.dataset_id, *version)
    rows = session.execute(active.join(ModelVersion, ModelVersion.id == ActiveModel.model_version_id))
    return {(names[dataset_id], *described): 1.0 for dataset_id, *described in rows}
