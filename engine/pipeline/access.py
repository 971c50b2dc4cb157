"""What the page reaches by a name or an id from outside: each is looked up here, with its check."""

from dataclasses import dataclass

from sqlalchemy import select
from sqlalchemy.orm import Session

from engine.errors import NotFound
from engine.store import jobs
from engine.store.assignments import Assignment
from engine.store.datasets import Dataset
from engine.store.events import record_event
from engine.store.images import Image

# Roles that look at any image; the others see what was lent to them.
SEES_ALL = frozenset({"researcher", "admin"})


@dataclass(frozen=True)
class StoredPicture:
    """Where an image's pixels lie and what they are."""

    pixels_sha256: str
    media_type: str


def dataset(session: Session, name: str) -> Dataset:
    """The dataset of that name; NotFound without saying which others there are."""
    found = session.scalar(select(Dataset).where(Dataset.name == name))
    if found is None:
        raise NotFound(f"there is no dataset {name!r}")
    return found


def picture_of(session: Session, image_id: int, user_id: int, role: str) -> StoredPicture:
    """The picture, for somebody whose role sees all or who had the image lent; NotFound for anybody else."""
    image = session.get(Image, image_id)
    lent = select(Assignment.id).where(Assignment.image_id == image_id, Assignment.user_id == user_id)
    if image is None or (role not in SEES_ALL and session.scalar(lent.limit(1)) is None):
        raise NotFound("no such image of yours")
    return StoredPicture(image.pixels_sha256, image.media_type)


def retry_job(session: Session, job_id: int, user_id: int) -> str:
    """Queues a failed or cancelled job again and notes who asked; NotFound or Conflict otherwise."""
    jobs.retry(session, job_id)
    record_event(session, "job.retried", actor_id=user_id, subject_id=job_id)
    return jobs.state_of(session, job_id)
