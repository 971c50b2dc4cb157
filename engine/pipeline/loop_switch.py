"""The switch: a version serves once the next images are ready under it, so that nobody waits for it."""

from sqlalchemy import ColumnElement, exists, func, select
from sqlalchemy.orm import Session

from engine.config import Settings
from engine.pipeline.loop_ask import PRIORITIES, ask_for
from engine.pipeline.loop_images import embed_next, head_of_queue, n_wanted_next
from engine.pipeline.loop_stages import newest_detector, warm_stage
from engine.pipeline.stages import stage_of
from engine.store.datasets import Dataset
from engine.store.embeddings import Embedding
from engine.store.generations import Generation
from engine.store.jobs import Job
from engine.store.model_versions import ActiveModel


def warm_and_switch(
    session: Session,
    settings: Settings,
    dataset: Dataset,
    version_id: int,
    active: ActiveModel,
    kind: str,
    key: str,
) -> int:
    """Asks for what people would wait for under the version, and for the switch (`kind`) once it is there:
    embeddings, in a stage with a detector this and its proposals. Where these fail the version serves all the
    same; one that can embed nothing does not."""
    n_asked = 0
    if dataset.open_stage is not None and not _proposes_nothing(session, settings, version_id):
        n_asked += embed_next(session, settings, dataset, version_id, "warm")
        n_asked += warm_stage(session, settings, dataset, version_id)
        if _embeds_nothing(session, version_id):
            return n_asked
        is_coming = n_asked or _is_being_made(session, _warming(version_id))
        if is_coming and not _is_warm(session, settings, dataset, version_id):
            return n_asked
    arguments = {"model_version_id": version_id, "expected_id": active.model_version_id}
    return n_asked + ask_for(session, settings, kind, dataset.id, arguments, key)


def _is_warm(session: Session, settings: Settings, dataset: Dataset, version_id: int) -> bool:
    """Whether enough of the next images are ready. Not all that were asked for: while people go on taking
    images there is always one more to make."""
    ids = head_of_queue(session, settings, dataset, version_id)
    of_version = Embedding.model_version_id == version_id
    ready = select(Embedding.image_id).where(of_version, Embedding.image_id.in_(ids))
    stage = stage_of(settings, dataset)
    if stage is not None and stage.proposes == "detector":
        if newest_detector(session, version_id) is not None:
            same = Generation.image_id == Embedding.image_id, Generation.stage == stage.name
            ready = ready.where(exists().where(*same, Generation.model_version_id == version_id))
        elif _is_being_made(session, _detector(dataset, version_id)):
            return False
    n_wanted = n_wanted_next(session, settings, dataset)
    return len(session.scalars(ready).all()) >= min(n_wanted, len(ids))


def _warming(version_id: int) -> ColumnElement[bool]:
    """Embeddings and proposals, whose keys end in the version. Nobody waits for what is left of its bulk, as
    there is of one that is gone back to."""
    mine = Job.kind.in_(("embed", "train-detector", "propose")) & Job.unique_key.like(f"%:{version_id}")
    return mine & (Job.priority < PRIORITIES["propose-bulk"])


def _detector(dataset: Dataset, version_id: int) -> ColumnElement[bool]:
    training = (Job.kind == "train-detector") & Job.unique_key.like(f"train-detector:%:{version_id}")
    return training | (Job.unique_key == f"detector-snapshot:{dataset.id}")


def _is_being_made(session: Session, jobs: ColumnElement[bool]) -> bool:
    waiting = Job.state.in_(("queued", "running"))
    return session.scalar(select(Job.id).where(waiting, jobs).limit(1)) is not None


def _embeds_nothing(session: Session, version_id: int) -> bool:
    """Every embedding it was asked for failed: people would be handed nothing. Its failed jobs say why."""
    if session.scalar(select(Embedding.id).where(Embedding.model_version_id == version_id).limit(1)):
        return False
    mine = (Job.kind == "embed") & Job.unique_key.like(f"embed:%:{version_id}")
    return session.scalar(select(Job.id).where(mine, Job.state == "failed").limit(1)) is not None


def _proposes_nothing(session: Session, settings: Settings, version_id: int) -> bool:
    """As many proposals as are kept ready failed and none was made: to wait for one would be to try every
    image of the dataset. Its failed jobs say why."""
    made = select(Generation.id).where(Generation.model_version_id == version_id)
    if session.scalar(made.limit(1)) is not None:
        return False
    mine = (Job.kind == "propose") & Job.unique_key.like(f"propose:%:{version_id}")
    n_failed = session.scalar(select(func.count()).select_from(Job).where(mine, Job.state == "failed")) or 0
    return n_failed >= max(1, settings.embed.ahead)
