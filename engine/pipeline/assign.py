"""Image -> Assignment: the next image under a lease, for one person, pinned to one model version."""

from dataclasses import dataclass
from datetime import timedelta

from sqlalchemy import ColumnElement, Select, exists, func, select
from sqlalchemy.exc import IntegrityError
from sqlalchemy.orm import Session

from engine.config import Settings
from engine.errors import Conflict, NotFound
from engine.store.assignments import Assignment
from engine.store.base import database_now
from engine.store.datasets import Dataset
from engine.store.embeddings import Embedding
from engine.store.events import record_event
from engine.store.images import Image, ImageProgress
from engine.store.model_versions import ActiveModel
from engine.store.users import User

_RACES = 5


@dataclass(frozen=True)
class Waiting:
    """Why there is no image now, in a sentence; `retry_after_s` is None when waiting will not help."""

    reason: str
    retry_after_s: int | None = None


def next_assignment(
    session: Session, settings: Settings, dataset_id: int, user_id: int
) -> Assignment | Waiting:
    """The person's open assignment if there is one, else the first free image that is ready.

    An image is ready when the active model's embedding of it exists, so that the first click is answered at
    once. Runs inside the caller's transaction; of two people who race for an image one gets the next.
    """
    dataset = session.get_one(Dataset, dataset_id)
    if dataset.open_stage is None:
        return Waiting("No stage of this dataset is open: `maskloop stage open assisted-manual` opens one.")
    # A page that asks twice at once must not get two images: the second waits here and finds the first's.
    session.execute(select(User.id).where(User.id == user_id).with_for_update())
    mine = _open_one(session, dataset, user_id)
    if mine is not None:
        return _extend(session, settings, mine)
    active = session.get(ActiveModel, dataset_id)
    if active is None:
        return Waiting("This dataset has no active model yet: `maskloop stage open` gives it one.")
    for _ in range(_RACES):
        image_id = session.scalar(_free_images(session, dataset, active.model_version_id).limit(1))
        if image_id is None:
            return _why_none(session, dataset)
        taken = _take(session, settings, dataset, image_id, user_id, active.model_version_id)
        if taken is not None:
            return taken
    return Waiting("Many people are taking images right now; try again in a moment.", 1)


def renew(session: Session, settings: Settings, assignment_id: int, user_id: int) -> Assignment:
    """Moves the lease forward; Conflict once somebody else has the image."""
    return _extend(session, settings, open_assignment(session, assignment_id, user_id))


def submit(session: Session, settings: Settings, assignment_id: int, user_id: int) -> Assignment:
    """Ends the assignment and marks its image done in that stage."""
    assignment = open_assignment(session, assignment_id, user_id)
    return _end(session, assignment, "submitted", "done")


def skip(session: Session, settings: Settings, assignment_id: int, user_id: int, reason: str) -> Assignment:
    """Ends the assignment and sets the image aside, with the person's reason."""
    assignment = open_assignment(session, assignment_id, user_id)
    return _end(session, assignment, "skipped", "skipped", reason)


def release(session: Session, settings: Settings, assignment_id: int, user_id: int) -> Assignment:
    """Gives the image back undone; anyone may take it next."""
    return _end(session, open_assignment(session, assignment_id, user_id), "released", None)


def owned_assignment(session: Session, assignment_id: int, user_id: int) -> Assignment:
    """The person's assignment in whatever state; NotFound also for somebody else's."""
    assignment = session.get(Assignment, assignment_id)
    if assignment is None or assignment.user_id != user_id:
        raise NotFound("no such assignment of yours")
    return assignment


def open_assignment(session: Session, assignment_id: int, user_id: int) -> Assignment:
    """The person's assignment, still open; Conflict says what became of it otherwise."""
    assignment = owned_assignment(session, assignment_id, user_id)
    session.refresh(assignment, with_for_update=True)
    if assignment.state == "expired":
        raise Conflict("the lease ran out and somebody else took the image; ask for the next one")
    if assignment.state != "open":
        raise Conflict(f"this image was {assignment.state} already; ask for the next one")
    return assignment


def upcoming(session: Session, dataset: Dataset, n: int) -> Select[int]:
    """Ids of the first `n` images nobody has done or holds, in the order they are handed out."""
    waiting = _unfinished(dataset) & ~_held(session, dataset)
    return select(Image.id).where(waiting).order_by(Image.id).limit(n)


def _open_one(session: Session, dataset: Dataset, user_id: int) -> Assignment | None:
    mine = (Assignment.user_id == user_id) & (Assignment.state == "open")
    here = (Image.dataset_id == dataset.id) & (Assignment.stage == dataset.open_stage)
    found = select(Assignment).join(Image, Image.id == Assignment.image_id).where(mine, here)
    return session.scalar(found.order_by(Assignment.id).limit(1))


def _extend(session: Session, settings: Settings, assignment: Assignment) -> Assignment:
    assignment.lease_until = database_now(session) + timedelta(seconds=settings.assign.lease_s)
    session.flush()
    return assignment


def _unfinished(dataset: Dataset) -> ColumnElement[bool]:
    progress = (ImageProgress.image_id == Image.id) & (ImageProgress.stage == dataset.open_stage)
    return (Image.dataset_id == dataset.id) & ~exists().where(progress)


def _held(session: Session, dataset: Dataset) -> ColumnElement[bool]:
    alive = (Assignment.state == "open") & (Assignment.lease_until > database_now(session))
    return exists().where(Assignment.image_id == Image.id, Assignment.stage == dataset.open_stage, alive)


def _free_images(session: Session, dataset: Dataset, model_version_id: int) -> Select[int]:
    ready = exists().where(Embedding.image_id == Image.id, Embedding.model_version_id == model_version_id)
    free = _unfinished(dataset) & ~_held(session, dataset)
    return select(Image.id).where(free, ready).order_by(Image.id)


def _take(
    session: Session, settings: Settings, dataset: Dataset, image_id: int, user_id: int, model_version_id: int
) -> Assignment | None:
    """The new lease, or None when another transaction was faster; an expired lease is ended on the way."""
    assert dataset.open_stage is not None
    now = database_now(session)
    old = select(Assignment).where(
        Assignment.image_id == image_id, Assignment.stage == dataset.open_stage, Assignment.state == "open"
    )
    fresh = Assignment(
        image_id=image_id,
        stage=dataset.open_stage,
        user_id=user_id,
        model_version_id=model_version_id,
        state="open",
        lease_until=now + timedelta(seconds=settings.assign.lease_s),
        opened_at=now,
    )
    try:
        with session.begin_nested():
            for expired in session.scalars(old.with_for_update()):
                if expired.lease_until > now:
                    return None
                expired.state, expired.ended_at = "expired", now
            session.flush()
            session.add(fresh)
            session.flush()
    except IntegrityError:
        return None
    record_event(
        session,
        "assignment.opened",
        dataset_id=dataset.id,
        actor_id=user_id,
        subject_id=fresh.id,
        image_id=image_id,
    )
    return fresh


def _why_none(session: Session, dataset: Dataset) -> Waiting:
    left = session.scalar(select(func.count()).select_from(Image).where(_unfinished(dataset))) or 0
    if left == 0 and session.scalar(select(Image.id).where(Image.dataset_id == dataset.id).limit(1)) is None:
        return Waiting("This dataset has no image yet: `maskloop images import` brings some in.")
    if left == 0:
        return Waiting("Every image of this dataset is done.")
    free = select(func.count()).select_from(Image).where(_unfinished(dataset) & ~_held(session, dataset))
    if not session.scalar(free):
        return Waiting("Every image left is in somebody's hands; try again later.", 30)
    return Waiting("The next images are being prepared; try again in a few seconds.", 2)


def _end(
    session: Session, assignment: Assignment, state: str, progress: str | None, reason: str | None = None
) -> Assignment:
    assignment.state, assignment.ended_at = state, database_now(session)
    if progress is not None:
        session.merge(
            ImageProgress(image_id=assignment.image_id, stage=assignment.stage, state=progress, reason=reason)
        )
    image = session.get_one(Image, assignment.image_id)
    record_event(
        session,
        f"assignment.{state}",
        dataset_id=image.dataset_id,
        actor_id=assignment.user_id,
        subject_id=assignment.id,
        reason=reason,
    )
    session.flush()
    return assignment
