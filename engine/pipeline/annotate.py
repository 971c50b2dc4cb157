"""Annotation -> Mask: a person's act, kept as it happened, and the mask it makes or ends."""

import hashlib
import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from datetime import timedelta
from typing import Any

import numpy as np
from sqlalchemy import func, select
from sqlalchemy.exc import IntegrityError
from sqlalchemy.orm import Session

from engine.config import Settings
from engine.errors import BadInput, Conflict, NotFound, Refused
from engine.geometry.rle import Rle, area, bbox_xywh, decode, validate
from engine.geometry.strokes import check_strokes, paint
from engine.modeling.prompts import check_prompts
from engine.store.annotations import Annotation, strokes_of
from engine.store.assignments import Assignment
from engine.store.base import database_now
from engine.store.categories import Category
from engine.store.datasets import take_export_ids
from engine.store.embeddings import Embedding
from engine.store.events import record_event
from engine.store.generations import is_made_a_mask, offered
from engine.store.images import Image
from engine.store.masks import Mask, current_masks
from engine.store.proposals import Proposal
from engine.store.reviews import last_review_is

_LONGEST_MASK_MS = 24 * 3600 * 1000


@dataclass(frozen=True)
class Accept:
    """A person says: this is a mask. `chosen` has one entry per prompt; the last is what was accepted.

    The mask is what the prompts give (without prompts the mask it supersedes, or nothing), with the strokes
    of engine/geometry/strokes.py laid over it.
    """

    assignment_id: int
    client_id: str
    prompts: list[dict[str, Any]]
    chosen: list[int]
    segmentation: Mapping[str, Any]
    model_version_id: int
    predicted_iou: float | None = None
    stability_score: float | None = None
    category_id: int | None = None
    active_ms: int = 0
    n_undos: int = 0
    supersedes_id: int | None = None
    # The proposal that the person corrected into this mask.
    proposal_id: int | None = None
    strokes: list[dict[str, Any]] = field(default_factory=list)


def accept(session: Session, settings: Settings, user_id: int, act: Accept) -> tuple[Mask, bool]:
    """The mask of this act and whether it is new: the same client_id and body give the first one again.

    Raises NotFound for somebody else's assignment, BadInput for a mask or prompts that do not fit the image,
    Conflict for a closed image, another model version, or a client_id used for something else. When the lease
    ran out and another person took the image, the mask is kept as a second opinion.
    """
    digest = _body_sha256(_body(act))
    known = _known(session, act.client_id, digest, user_id)
    if known is not None:
        return session.scalars(select(Mask).where(Mask.annotation_id == known.id)).one(), False
    assignment, image = _writable(session, act.assignment_id, user_id)
    rle = _checked_mask(settings, act, assignment, image)
    second_opinion = assignment.state == "expired"
    _check_room(session, settings, image)
    superseded = None
    if act.supersedes_id is not None:
        # Somebody else may have changed the mask by now; a second opinion replaces nothing anyway.
        corrected = (_mask_on if second_opinion else _current_mask)(session, image, act.supersedes_id)
        superseded = None if second_opinion else corrected
    _check_category(session, image, act.category_id)
    if act.proposal_id is not None:
        _check_proposal(session, assignment, act.proposal_id)
    annotation = _annotation(session, act, assignment, user_id, digest, rle)
    if not _insert(session, annotation):
        return accept(session, settings, user_id, act)
    mask = _mask(session, act, assignment, image, annotation, rle, superseded)
    _log(session, settings, assignment, image, annotation, mask.id)
    return mask, True


def delete(
    session: Session, settings: Settings, user_id: int, assignment_id: int, client_id: str, mask_id: int
) -> int:
    """Ends a current mask of the assignment's image; its row stays. Returns its id, also when repeated."""
    digest = _body_sha256({"act": "delete", "assignment_id": assignment_id, "mask_id": mask_id})
    if _known(session, client_id, digest, user_id) is not None:
        return mask_id
    assignment, image = _writable(session, assignment_id, user_id, second_opinions=False)
    _current_mask(session, image, mask_id)
    annotation = _bare("delete", client_id, digest, assignment, user_id, mask_id)
    if not _insert(session, annotation):
        return delete(session, settings, user_id, assignment_id, client_id, mask_id)
    _log(session, settings, assignment, image, annotation, mask_id)
    return mask_id


def restore(
    session: Session, settings: Settings, user_id: int, assignment_id: int, client_id: str, mask_id: int
) -> tuple[Mask, bool]:
    """Brings a deleted or corrected mask back: a new row, same region, prompts and strokes.

    It supersedes the deleted mask, or the correction that stands in its place now.
    """
    digest = _body_sha256({"act": "restore", "assignment_id": assignment_id, "mask_id": mask_id})
    known = _known(session, client_id, digest, user_id)
    if known is not None:
        return session.scalars(select(Mask).where(Mask.annotation_id == known.id)).one(), False
    assignment, image = _writable(session, assignment_id, user_id, second_opinions=False)
    former = _mask_on(session, image, mask_id)
    end = _replaceable(session, former)
    annotation = _bare("restore", client_id, digest, assignment, user_id, mask_id)
    annotation.counts = former.counts
    annotation.strokes = strokes_of(session, [former.annotation_id]).get(former.annotation_id, [])
    if not _insert(session, annotation):
        return restore(session, settings, user_id, assignment_id, client_id, mask_id)
    copied = {column.key: getattr(former, column.key) for column in Mask.__table__.columns}
    fresh = {"id", "annotation_id", "supersedes_id", "created_at"}
    mask = Mask(
        **{key: value for key, value in copied.items() if key not in fresh},
        annotation_id=annotation.id,
        supersedes_id=end.id,
    )
    session.add(mask)
    session.flush()
    _log(session, settings, assignment, image, annotation, mask.id)
    return mask, True


def _body(act: Accept) -> dict[str, Any]:
    """What makes two acts the same one; a mask of nobody's proposal has the digest it always had."""
    body = asdict(act)
    return {key: body[key] for key in body if key != "proposal_id" or body[key] is not None}


def _body_sha256(body: Mapping[str, Any]) -> str:
    try:
        written = json.dumps(body, sort_keys=True, separators=(",", ":"), allow_nan=False)
    except ValueError:
        raise BadInput("a number of this act is infinite or none at all: send plain numbers") from None
    return hashlib.sha256(written.encode()).hexdigest()


def _known(session: Session, client_id: str, digest: str, user_id: int) -> Annotation | None:
    """The act that this client_id already made; Conflict if it was another act or another person's."""
    if not 8 <= len(client_id) <= 64:
        raise BadInput("client_id must be a text of 8 to 64 characters, such as a UUID")
    known = session.scalar(select(Annotation).where(Annotation.client_id == client_id))
    if known is not None and (known.body_sha256 != digest or known.author_id != user_id):
        raise Conflict("this client_id was used for another act; make a new one")
    return known


def _writable(
    session: Session, assignment_id: int, user_id: int, *, second_opinions: bool = True
) -> tuple[Assignment, Image]:
    """Assignment and image, if the person may still write: open, or expired where that is kept apart."""
    assignment = session.get(Assignment, assignment_id, with_for_update=True)
    if assignment is None or assignment.user_id != user_id:
        raise NotFound("no such assignment of yours")
    if assignment.state == "expired" and not second_opinions:
        raise Conflict("the lease ran out and somebody else took the image; ask for the next one")
    if assignment.state not in ("open", "expired"):
        raise Conflict(f"this image was {assignment.state} already; nothing more can be added to it")
    return assignment, session.get_one(Image, assignment.image_id)


def _checked_mask(settings: Settings, act: Accept, assignment: Assignment, image: Image) -> Rle:
    if act.model_version_id != assignment.model_version_id:
        raise Conflict("the mask was made with another model version than this image was opened with; reload")
    hw = (image.height, image.width)
    rle = validate(act.segmentation, hw, max_runs=settings.limits.max_runs)
    if area(rle) == 0:
        raise BadInput("the mask is empty: click inside the object")
    if len(act.prompts) > settings.limits.max_prompts:
        raise BadInput(f"at most {settings.limits.max_prompts} prompts make one mask")
    # Strokes alone make a mask as well.
    if act.prompts or not act.strokes:
        check_prompts(list(act.prompts), hw)
    if len(act.chosen) != len(act.prompts) or not all(index in (0, 1, 2) for index in act.chosen):
        raise BadInput("chosen needs one candidate index (0, 1 or 2) for each prompt")
    if not 0 <= act.active_ms <= _LONGEST_MASK_MS or act.n_undos < 0:
        raise BadInput("active_ms must be between 0 and one day, n_undos at least 0")
    _check_obeys(settings, act, rle)
    return rle


def _check_obeys(settings: Settings, act: Accept, rle: Rle) -> None:
    """Painting its strokes over a mask that shows them changes nothing."""
    check_strokes(act.strokes, (rle["size"][0], rle["size"][1]), max_runs=settings.limits.max_runs)
    if not act.strokes:
        return
    mask = decode(rle)
    if not np.array_equal(paint(mask, act.strokes), mask):
        raise BadInput("the mask does not show its strokes: reload the page and draw it again")


def _check_room(session: Session, settings: Settings, image: Image) -> None:
    n_masks = session.scalar(
        select(func.count()).select_from(current_masks).where(current_masks.c.image_id == image.id)
    )
    if (n_masks or 0) >= settings.limits.max_masks_per_image:
        raise Refused(f"an image holds at most {settings.limits.max_masks_per_image} masks: submit it")


def _check_category(session: Session, image: Image, category_id: int | None) -> None:
    if category_id is None:
        return
    category = session.get(Category, category_id)
    if category is None or category.dataset_id != image.dataset_id:
        raise NotFound("no such category in this dataset")
    if category.retired_at is not None:
        raise Conflict(f"the category {category.name} was retired; choose another")


def _check_proposal(session: Session, assignment: Assignment, proposal_id: int) -> None:
    lent = assignment.image_id, assignment.model_version_id, assignment.stage
    if session.scalar(offered(*lent).where(Proposal.id == proposal_id)) is None:
        raise NotFound("no such proposal on this image")
    settled = is_made_a_mask("human") | last_review_is("reject")
    gone = session.scalar(select(Proposal.id).where(Proposal.id == proposal_id, settled))
    if gone is not None and assignment.state == "open":
        raise Conflict("this proposal was corrected or rejected already; reload the image")


def _mask_on(session: Session, image: Image, mask_id: int) -> Mask:
    mask = session.get(Mask, mask_id)
    if mask is None or mask.image_id != image.id:
        raise NotFound("no such mask on this image")
    return mask


def _current_mask(session: Session, image: Image, mask_id: int) -> Mask:
    mask = _mask_on(session, image, mask_id)
    current = select(current_masks.c.mask_id).where(current_masks.c.mask_id == mask_id)
    if session.scalar(current) is None:
        raise Conflict("this mask was changed or deleted meanwhile; reload the image")
    return mask


def _replaceable(session: Session, former: Mask) -> Mask:
    """What `former` takes the place of when it comes back: itself if deleted, else its latest correction."""
    end = former
    while (newer := _successor(session, end)) is not None:
        end = newer
    deleted = select(Annotation.id).where(Annotation.act == "delete", Annotation.target_mask_id == end.id)
    is_gone = session.scalar(deleted) is not None
    made_by = None if end.annotation_id is None else session.get_one(Annotation, end.annotation_id)
    is_back = made_by is not None and (made_by.act, made_by.target_mask_id) == ("restore", former.id)
    # A deleted mask comes back as itself; one that was corrected, while the correction is there.
    if is_gone != (end is former) or is_back:
        raise Conflict("this mask is not deleted, or was brought back already; reload the image")
    return end


def _successor(session: Session, mask: Mask) -> Mask | None:
    return session.scalar(select(Mask).where(Mask.supersedes_id == mask.id))


def _annotation(
    session: Session, act: Accept, assignment: Assignment, user_id: int, digest: str, rle: Rle
) -> Annotation:
    pair = (Embedding.image_id == assignment.image_id) & (
        Embedding.model_version_id == assignment.model_version_id
    )
    annotation = _bare("accept", act.client_id, digest, assignment, user_id, act.supersedes_id)
    annotation.model_version_id = act.model_version_id
    annotation.embedding_sha256 = session.scalar(select(Embedding.blob_sha256).where(pair))
    annotation.prompts, annotation.chosen, annotation.strokes = act.prompts, act.chosen, act.strokes
    annotation.predicted_iou, annotation.stability_score = act.predicted_iou, act.stability_score
    annotation.counts = rle["counts"]
    annotation.n_clicks, annotation.n_undos = len(act.prompts), act.n_undos
    annotation.active_ms = act.active_ms
    return annotation


def _bare(
    act: str, client_id: str, digest: str, assignment: Assignment, user_id: int, target_mask_id: int | None
) -> Annotation:
    return Annotation(
        client_id=client_id,
        body_sha256=digest,
        act=act,
        image_id=assignment.image_id,
        author_id=user_id,
        assignment_id=assignment.id,
        target_mask_id=target_mask_id,
    )


def _insert(session: Session, annotation: Annotation) -> bool:
    """False when the same client_id arrived twice at once and the other transaction was faster."""
    try:
        with session.begin_nested():
            session.add(annotation)
            session.flush()
    except IntegrityError as error:
        if "client_id" not in str(error.orig):
            raise
        return False
    return True


def _mask(
    session: Session,
    act: Accept,
    assignment: Assignment,
    image: Image,
    annotation: Annotation,
    rle: Rle,
    superseded: Mask | None,
) -> Mask:
    """A correction keeps the export id of what it corrects: to a reader it is the same object."""
    export_id = (
        superseded.export_id if superseded else take_export_ids(session, image.dataset_id, "mask", 1)[0]
    )
    # A person's mask that corrected a proposal goes on standing for it.
    proposal_id = act.proposal_id
    if proposal_id is None and superseded is not None and superseded.source == "human":
        proposal_id = superseded.proposal_id
    mask = Mask(
        dataset_id=image.dataset_id,
        image_id=image.id,
        annotation_id=annotation.id,
        proposal_id=proposal_id,
        supersedes_id=superseded.id if superseded else None,
        export_id=export_id,
        imported_id=superseded.imported_id if superseded else None,
        height=image.height,
        width=image.width,
        counts=rle["counts"],
        area=area(rle),
        bbox_xywh=list(bbox_xywh(rle)),
        stage=assignment.stage,
        # Another person has the image by now: kept, apart from the current masks.
        second_opinion=assignment.state == "expired",
        source="human",
        touched_by_person=True,
        predicted_iou=act.predicted_iou,
        stability_score=act.stability_score,
        prompts=act.prompts,
        chosen=act.chosen,
        model_version_id=act.model_version_id,
        author_id=assignment.user_id,
        active_seconds=act.active_ms / 1000,
        category_id=act.category_id,
    )
    session.add(mask)
    session.flush()
    return mask


def _log(
    session: Session,
    settings: Settings,
    assignment: Assignment,
    image: Image,
    annotation: Annotation,
    mask_id: int,
) -> None:
    """The event, and the lease moved forward: every act renews it."""
    if assignment.state == "open":
        assignment.lease_until = database_now(session) + timedelta(seconds=settings.assign.lease_s)
    record_event(
        session,
        f"mask.{annotation.act}",
        dataset_id=image.dataset_id,
        actor_id=annotation.author_id,
        subject_id=mask_id,
        annotation_id=annotation.id,
    )
    session.flush()
