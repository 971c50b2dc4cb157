"""The images next in line: what has to be ready before somebody opens them."""

from sqlalchemy import String, cast, exists, func, literal, select
from sqlalchemy.orm import Session

from engine.config import Settings
from engine.pipeline.loop_ask import ask_for
from engine.store.assignments import Assignment
from engine.store.datasets import Dataset
from engine.store.embeddings import Embedding
from engine.store.images import Image, ImageProgress
from engine.store.jobs import Job


def embed_next(session: Session, settings: Settings, dataset: Dataset, version_id: int, priority: str) -> int:
    """Embeddings of the images at the head of the queue, and one more for each person at work."""
    n_open = session.scalar(select(func.count()).select_from(Assignment).where(Assignment.state == "open"))
    ahead = settings.embed.ahead + (n_open or 0)
    missing = _head_of_queue(session, dataset, version_id, ahead)
    for image_id in missing:
        arguments = {"image_id": image_id, "model_version_id": version_id}
        ask_for(session, settings, "embed", dataset.id, arguments, f"{image_id}:{version_id}", priority)
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
