"""Image -> Assignment: the next image under a lease, for one person, pinned to one model version."""

from dataclasses import dataclass
from datetime import timedelta

from sqlalchemy import ColumnElement, Select, exists, func, select
from sqlalchemy.exc import IntegrityError
from sqlalchemy.orm import Session

from engine.config import Settings
from engine.errors import Conflict, NotFound
from engine.pipeline.stages import Stage, queue_of, stage_of
from engine.store.assignments import Assignment
from engine.store.base import database_now
from engine.store.datasets import Dataset
from engine.store.detector_versions import DetectorVersion
from engine.store.embeddings import Embedding
from engine.store.events import record_event
from engine.store.generations import Generation
from engine.store.image_queue import ImageQueue
from engine.store.images import Image, ImageProgress
from engine.store.jobs import Job
from engine.store.masks import Mask, current_masks
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
    once, and in a stage with a detector its proposals too. Runs inside the caller's transaction; of two
    people who race for an image one gets the next.
    """
    dataset = session.get_one(Dataset, dataset_id)
    stage = stage_of(settings, dataset)
    if stage is None:
        return Waiting("No stage of this dataset is open: `maskloop stage open assisted-manual` opens one.")
    if stage.accepts == "model":
        return Waiting(
            "This stage runs without people: workers make its masks. `maskloop stage open semi-automatic` "
            "hands out images again."
        )
    # A page that asks twice at once must not get two images: the second waits here and finds the first's.
    session.execute(select(User.id).where(User.id == user_id).with_for_update())
    mine = _open_one(session, dataset, user_id)
    if mine is not None:
        return _extend(session, settings, mine)
    active = session.get(ActiveModel, dataset_id)
    if active is None:
        return Waiting("This dataset has no active model yet: `maskloop stage open` gives it one.")
    queue = queue_of(dataset, stage)
    if _share_is_out(session, queue):
        return Waiting("This stage has handed out its share of the images; the others are left to the next.")
    for _ in range(_RACES):
        image_id = session.scalar(_free_images(session, queue, stage, active.model_version_id).limit(1))
        if image_id is None:
            return _why_none(session, queue, stage, active.model_version_id)
        taken = _take(session, settings, queue, image_id, user_id, active.model_version_id)
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


def _open_one(session: Session, dataset: Dataset, user_id: int) -> Assignment | None:
    mine = (Assignment.user_id == user_id) & (Assignment.state == "open")
    here = (Image.dataset_id == dataset.id) & (Assignment.stage == dataset.open_stage)
    found = select(Assignment).join(Image, Image.id == Assignment.image_id).where(mine, here)
    return session.scalar(found.order_by(Assignment.id).limit(1))


def _extend(session: Session, settings: Settings, assignment: Assignment) -> Assignment:
    assignment.lease_until = database_now(session) + timedelta(seconds=settings.assign.lease_s)
    session.flush()
    return assignment


def _share_is_out(session: Session, queue: ImageQueue) -> bool:
    if queue.image_share >= 1:
        return False
    # Two people who both see the last place would take two: those who ask count one after the other.
    session.execute(select(Dataset.id).where(Dataset.id == queue.dataset_id).with_for_update())
    left = queue.left_of_share(session)
    return left is not None and left <= queue.n_held(session)


def _free_images(session: Session, queue: ImageQueue, stage: Stage, model_version_id: int) -> Select[int]:
    free = queue.unfinished(), ~queue.held(session)
    return queue.ids(*free, *_is_ready(stage, model_version_id))


def _is_ready(stage: Stage, model_version_id: int) -> list[ColumnElement[bool]]:
    embedded = exists().where(Embedding.image_id == Image.id, Embedding.model_version_id == model_version_id)
    if stage.proposes != "detector":
        return [embedded]
    proposed = exists().where(
        Generation.image_id == Image.id,
        Generation.model_version_id == model_version_id,
        Generation.stage == stage.name,
    )
    return [embedded, proposed]


def _take(
    session: Session,
    settings: Settings,
    queue: ImageQueue,
    image_id: int,
    user_id: int,
    model_version_id: int,
) -> Assignment | None:
    """The new lease, or None when another transaction was faster; an expired lease is ended on the way."""
    try:
        with session.begin_nested():
            if not _end_expired(session, queue, image_id):
                return None
            # The clock is read only now: the wait for a lock may have been long.
            now = database_now(session)
            fresh = Assignment(
                image_id=image_id,
                stage=queue.stage,
                user_id=user_id,
                model_version_id=model_version_id,
                state="open",
                lease_until=now + timedelta(seconds=settings.assign.lease_s),
                opened_at=now,
            )
            session.add(fresh)
            session.flush()
    except IntegrityError:
        return None
    record_event(
        session,
        "assignment.opened",
        dataset_id=queue.dataset_id,
        actor_id=user_id,
        subject_id=fresh.id,
        image_id=image_id,
    )
    return fresh


def _end_expired(session: Session, queue: ImageQueue, image_id: int) -> bool:
    """Whether the image may be taken, once whoever was at it has finished; its expired lease is ended.

    People who claim one image wait for each other here, and for a submission of the expired lease.
    """
    session.execute(select(Image.id).where(Image.id == image_id).with_for_update(key_share=True))
    open_ones = select(Assignment).where(
        Assignment.image_id == image_id, Assignment.stage == queue.stage, Assignment.state == "open"
    )
    held = list(session.scalars(open_ones.with_for_update().execution_options(populate_existing=True)))
    now = database_now(session)
    if any(assignment.lease_until > now for assignment in held):
        return False
    # Whoever was waited for may have finished the image.
    if session.scalar(select(Image.id).where(Image.id == image_id, queue.unfinished())) is None:
        return False
    for assignment in held:
        assignment.state, assignment.ended_at = "expired", now
    session.flush()
    return True


def _why_none(session: Session, queue: ImageQueue, stage: Stage, model_version_id: int) -> Waiting:
    left = session.scalar(select(func.count()).select_from(Image).where(queue.unfinished())) or 0
    here = Image.dataset_id == queue.dataset_id
    if left == 0 and session.scalar(select(Image.id).where(here).limit(1)) is None:
        return Waiting("This dataset has no image yet: `maskloop images import` brings some in.")
    if left == 0:
        return Waiting("Every image of this dataset is done.")
    free = select(func.count()).select_from(Image).where(queue.unfinished(), ~queue.held(session))
    if not session.scalar(free):
        return Waiting("Every image left is in somebody's hands; try again later.", 30)
    if stage.proposes == "detector":
        missing = _missing_detector(session, queue.dataset_id, model_version_id)
        if missing is not None:
            return missing
    return Waiting("The next images are being prepared; try again in a few seconds.", 2)


def _missing_detector(session: Session, dataset_id: int, model_version_id: int) -> Waiting | None:
    """Why nothing can be proposed yet; None when there is a detector for the model."""
    made = select(DetectorVersion.id).where(DetectorVersion.model_version_id == model_version_id)
    if session.scalar(made.limit(1)) is not None:
        return None
    learnt_from = (Image.split == "train") & Mask.touched_by_person & (Mask.iscrowd == 0)
    masks = select(Mask.id).join(current_masks, current_masks.c.mask_id == Mask.id)
    there = masks.join(Image, Image.id == Mask.image_id).where(Image.dataset_id == dataset_id, learnt_from)
    if session.scalar(there.limit(1)) is None:
        return Waiting(
            "This stage's detector learns from masks on training images and there is none yet: annotate some "
            "images in stage assisted-manual first."
        )
    jobs = select(Job).where(Job.dataset_id == dataset_id, Job.kind == "train-detector")
    last = session.scalar(jobs.order_by(Job.id.desc()).limit(1))
    if last is not None and last.state in ("failed", "cancelled"):
        why = last.reason or "it was cancelled"
        return Waiting(f"The detector was not trained: {why} (`maskloop jobs retry {last.id}` tries again).")
    return Waiting("The detector of this stage is being trained; try again in a minute.", 10)


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
