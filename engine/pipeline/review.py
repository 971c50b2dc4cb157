"""Proposal -> Review, Mask: a person's word on what was prefilled. What is neither refused nor corrected by
the time the image is submitted was looked at and let stand: it becomes a mask (paper, section 4, stage 2).

A refusal that stands is a negative for the next detector.
"""

import hashlib
import json
from collections.abc import Iterable, Sequence
from datetime import timedelta
from typing import Any

from sqlalchemy import func, select
from sqlalchemy.orm import Session

from engine.config import Settings
from engine.errors import BadInput, Conflict, NotFound
from engine.store.assignments import Assignment
from engine.store.base import database_now
from engine.store.events import record_event
from engine.store.generations import is_made_a_mask, make_masks, offered
from engine.store.images import Image
from engine.store.masks import Mask, current_masks
from engine.store.proposals import Proposal
from engine.store.reviews import Review, last_review_is, states_of

MOST_AT_ONCE = 500


def reject(
    session: Session,
    settings: Settings,
    user_id: int,
    assignment_id: int,
    client_id: str,
    proposal_ids: Sequence[int],
) -> list[dict[str, Any]]:
    """Refuses these proposals; the state of each, as (id, state). The same client_id and ids change nothing.

    Raises NotFound for somebody else's assignment or proposals that are not offered there, Conflict for a
    closed image, a proposal that was corrected, or a client_id used for something else.
    """
    return _review(session, settings, user_id, assignment_id, client_id, "reject", proposal_ids)


def unreject(
    session: Session,
    settings: Settings,
    user_id: int,
    assignment_id: int,
    client_id: str,
    proposal_ids: Sequence[int],
) -> list[dict[str, Any]]:
    """Takes refusals back, as `reject` makes them."""
    return _review(session, settings, user_id, assignment_id, client_id, "unreject", proposal_ids)


def keep_rest(session: Session, settings: Settings, user_id: int, assignment_id: int) -> list[Mask]:
    """Masks of every proposal that was let stand, for the transaction that submits the image.

    No more than the image may hold, the highest scores first. An assignment that is not open keeps nothing.
    """
    assignment = _locked(session, user_id, assignment_id)
    if assignment.state != "open":
        return []
    image = session.get_one(Image, assignment.image_id)
    open_ones = _offered(assignment).where(~_is_settled())
    there = select(func.count()).select_from(current_masks).where(current_masks.c.image_id == image.id)
    room = settings.limits.max_masks_per_image - (session.scalar(there) or 0)
    kept = list(session.scalars(open_ones.limit(max(room, 0))))
    if not kept:
        return []
    digest = _body_sha256("keep", assignment_id, [proposal.id for proposal in kept])
    session.add_all(_reviews(assignment, f"keep-{assignment_id}", digest, "keep", kept))
    masks = make_masks(session, image, kept)
    _log(session, settings, assignment, image, "keep", len(kept))
    return masks


def _review(
    session: Session,
    settings: Settings,
    user_id: int,
    assignment_id: int,
    client_id: str,
    act: str,
    proposal_ids: Sequence[int],
) -> list[dict[str, Any]]:
    ids = sorted(set(proposal_ids))
    if not 1 <= len(ids) <= MOST_AT_ONCE:
        raise BadInput(f"review between 1 and {MOST_AT_ONCE} proposals at once")
    digest = _body_sha256(act, assignment_id, ids)
    # Waiting for the lock first: of two equal requests at once the second finds the first's rows.
    assignment = _locked(session, user_id, assignment_id)
    if not _is_known(session, client_id, digest, user_id):
        _check_open(assignment)
        states = _states(session, assignment)
        changed = _changed_by(act, ids, states)
        proposals = list(session.scalars(_offered(assignment).where(Proposal.id.in_(changed))))
        session.add_all(_reviews(assignment, client_id, digest, act, proposals))
        image = session.get_one(Image, assignment.image_id)
        _log(session, settings, assignment, image, act, len(changed))
    states = _states(session, assignment)
    return [{"id": proposal_id, "state": states[proposal_id]} for proposal_id in ids]


def _changed_by(act: str, ids: Iterable[int], states: dict[int, str]) -> list[int]:
    """Those whose state the act changes; the others are what they should be already."""
    if any(proposal_id not in states for proposal_id in ids):
        raise NotFound("no such proposal on this image")
    if any(states[proposal_id] in ("corrected", "kept") for proposal_id in ids):
        raise Conflict(
            "a proposal among them became a mask already: delete the mask instead; reload the image"
        )
    before = "open" if act == "reject" else "rejected"
    return [proposal_id for proposal_id in ids if states[proposal_id] == before]


def _locked(session: Session, user_id: int, assignment_id: int) -> Assignment:
    assignment = session.get(Assignment, assignment_id, with_for_update=True)
    if assignment is None or assignment.user_id != user_id:
        raise NotFound("no such assignment of yours")
    return assignment


def _check_open(assignment: Assignment) -> None:
    if assignment.state == "expired":
        raise Conflict("the lease ran out and somebody else took the image; ask for the next one")
    if assignment.state != "open":
        raise Conflict(f"this image was {assignment.state} already; its proposals are settled")


def _states(session: Session, assignment: Assignment) -> dict[int, str]:
    return states_of(session, assignment.image_id, assignment.model_version_id, assignment.stage)


def _offered(assignment: Assignment) -> Any:
    return offered(assignment.image_id, assignment.model_version_id, assignment.stage)


def _is_settled() -> Any:
    return last_review_is("reject") | last_review_is("keep") | is_made_a_mask("human")


def _is_known(session: Session, client_id: str, digest: str, user_id: int) -> bool:
    if not 8 <= len(client_id) <= 64:
        raise BadInput("client_id must be a text of 8 to 64 characters, such as a UUID")
    known = session.scalar(select(Review).where(Review.client_id == client_id).limit(1))
    if known is not None and (known.body_sha256 != digest or known.author_id != user_id):
        raise Conflict("this client_id was used for another act; make a new one")
    return known is not None


def _body_sha256(act: str, assignment_id: int, proposal_ids: Sequence[int]) -> str:
    body = {"act": act, "assignment_id": assignment_id, "proposal_ids": list(proposal_ids)}
    return hashlib.sha256(json.dumps(body, sort_keys=True).encode()).hexdigest()


def _reviews(
    assignment: Assignment, client_id: str, digest: str, act: str, proposals: Iterable[Proposal]
) -> list[Review]:
    return [
        Review(
            client_id=client_id,
            body_sha256=digest,
            act=act,
            proposal_id=proposal.id,
            image_id=assignment.image_id,
            author_id=assignment.user_id,
            assignment_id=assignment.id,
        )
        for proposal in proposals
    ]


def _log(
    session: Session, settings: Settings, assignment: Assignment, image: Image, act: str, n_proposals: int
) -> None:
    """The event, and the lease moved forward: every act renews it."""
    assignment.lease_until = database_now(session) + timedelta(seconds=settings.assign.lease_s)
    record_event(
        session,
        "assignment.reviewed",
        dataset_id=image.dataset_id,
        actor_id=assignment.user_id,
        subject_id=assignment.id,
        act=act,
        n_proposals=n_proposals,
    )
    session.flush()
