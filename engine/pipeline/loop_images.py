"""The images next in line: what has to be ready before somebody opens them."""

from sqlalchemy import String, cast, exists, literal, select
from sqlalchemy.orm import Session

from engine.config import Settings
from engine.pipeline.loop_ask import ask_for
from engine.pipeline.stages import queue_of, stage_of
from engine.store.datasets import Dataset
from engine.store.embeddings import Embedding
from engine.store.images import Image
from engine.store.jobs import Job


def embed_next(session: Session, settings: Settings, dataset: Dataset, version_id: int, priority: str) -> int:
    """Embeddings of the images at the head of the queue."""
    missing = _not_embedded(session, head_of_queue(session, settings, dataset, version_id), version_id)
    for image_id in missing:
        arguments = {"image_id": image_id, "model_version_id": version_id}
        ask_for(session, settings, "embed", dataset.id, arguments, f"{image_id}:{version_id}", priority)
    return len(missing)


def head_of_queue(session: Session, settings: Settings, dataset: Dataset, version_id: int) -> list[int]:
    """The images that are handed out next, in the order of `assign`: two for each person at work, and as many
    more as are kept ready. One that somebody has open keeps the version it was opened with.

    An image whose embedding or proposals failed is passed over, or a few broken ones would stop the whole
    queue. None in a stage without people.
    """
    stage = stage_of(settings, dataset)
    if stage is None or stage.accepts == "model":
        return []
    queue = queue_of(dataset, stage)
    n_held, left = queue.n_held(session), queue.left_of_share(session)
    ahead = settings.embed.ahead + 2 * n_held
    number = cast(Image.id, String)
    embed, propose = literal("embed:") + number, literal("propose:") + number
    is_of_image = (Job.unique_key == embed + f":{version_id}") | Job.unique_key.like(
        propose + f":{stage.name}:%:{version_id}"
    )
    broken = exists().where(Job.state == "failed", is_of_image)
    ids = queue.ids(queue.unfinished(), ~queue.held(session), ~broken)
    return list(session.scalars(ids.limit(ahead if left is None else min(ahead, max(left - n_held, 0)))))


def n_wanted_next(session: Session, settings: Settings, dataset: Dataset) -> int:
    """How many images of the head must be ready so that nobody waits: the next one of each person, and
    half of what is kept ready. People may take as many again while the others are made."""
    stage = stage_of(settings, dataset)
    n_people = 0 if stage is None else queue_of(dataset, stage).n_held(session)
    return n_people + (settings.embed.ahead + 1) // 2


def _not_embedded(session: Session, ids: list[int], version_id: int) -> list[int]:
    """Of these images, those this version has not embedded nor been asked to."""
    ready = select(Embedding.image_id).where(
        Embedding.model_version_id == version_id, Embedding.image_id.in_(ids)
    )
    keys = {f"embed:{image_id}:{version_id}": image_id for image_id in ids}
    asked = select(Job.unique_key).where(Job.unique_key.in_(keys))
    settled = set(session.scalars(ready)) | {keys[key] for key in session.scalars(asked)}
    return [image_id for image_id in ids if image_id not in settled]
