"""Leases: who gets which image, for how long, and what the others are told meanwhile."""

import threading
from collections.abc import Callable
from datetime import timedelta
from typing import Any

import pytest
from sqlalchemy import select

from engine.errors import Conflict, NotFound
from engine.pipeline import assign
from engine.pipeline.assign import Waiting
from engine.store.assignments import Assignment
from engine.store.base import database_now
from engine.store.datasets import add_dataset
from engine.store.images import ImageProgress
from engine.store.model_versions import ActiveModel
from engine.store.session import Workspace
from tests.factories import a_user
from tests.pipeline.conftest import Lab, rows


@pytest.fixture
def ready(labs: Lab) -> Lab:
    """Three images are embedded."""
    labs.embed(*labs.image_ids[:3])
    return labs


def ask_next(lab: Lab, user_id: int) -> Assignment | Waiting:
    with lab.workspace.write() as session:
        return assign.next_assignment(session, lab.workspace.settings, lab.dataset_id, user_id)


def given(lab: Lab, user_id: int) -> Assignment:
    assignment = ask_next(lab, user_id)
    assert isinstance(assignment, Assignment), assignment
    return assignment


def act(lab: Lab, verb: Callable[..., Assignment], assignment: Assignment, *more: Any) -> Assignment:
    with lab.workspace.write() as session:
        return verb(session, lab.workspace.settings, assignment.id, assignment.user_id, *more)


def expire(lab: Lab, assignment: Assignment) -> None:
    with lab.workspace.write() as session:
        row = session.get_one(Assignment, assignment.id)
        row.lease_until = database_now(session) - timedelta(seconds=1)


def at_once(calls: list[Callable[[], Any]]) -> list[Any]:
    """What each call gave, all begun at the same moment."""
    start, answers = threading.Barrier(len(calls)), [None] * len(calls)

    def run(n: int) -> None:
        start.wait()
        answers[n] = calls[n]()

    threads = [threading.Thread(target=run, args=(n,)) for n in range(len(calls))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return answers


def test_two_people_get_two_images_and_ones_own_comes_back(ready: Lab) -> None:
    first, second = given(ready, ready.ann), given(ready, ready.bea)
    assert [first.image_id, second.image_id] == ready.image_ids[:2]
    again = given(ready, ready.ann)
    assert again.id == first.id and again.lease_until >= first.lease_until
    assert (first.state, first.stage, first.model_version_id) == ("open", "assisted_manual", ready.version_id)


def test_six_people_who_race_for_three_images_get_one_each(ready: Lab) -> None:
    with ready.workspace.write() as session:
        people = [a_user(session, 10 + n).id for n in range(6)]
    answers = at_once([lambda user_id=user_id: ask_next(ready, user_id) for user_id in people])
    taken = [answer.image_id for answer in answers if isinstance(answer, Assignment)]
    assert sorted(taken) == ready.image_ids[:3]
    assert sum(isinstance(answer, Waiting) for answer in answers) == 3


def test_a_page_that_asks_four_times_at_once_gets_one_image(ready: Lab) -> None:
    answers = at_once([lambda: ask_next(ready, ready.ann)] * 4)
    assert len({answer.id for answer in answers}) == 1


def test_an_expired_lease_goes_to_the_next_who_asks(ready: Lab) -> None:
    lost = given(ready, ready.ann)
    expire(ready, lost)
    heir = given(ready, ready.bea)
    assert heir.image_id == lost.image_id
    (row,) = rows(ready.workspace, select(Assignment).where(Assignment.id == lost.id))
    assert row.state == "expired" and row.ended_at is not None
    for verb in (assign.renew, assign.submit, assign.release):
        with pytest.raises(Conflict, match="somebody else took the image"):
            act(ready, verb, lost)
    assert given(ready, ready.ann).image_id == ready.image_ids[1]


def test_an_expired_lease_that_nobody_wanted_is_renewed(ready: Lab) -> None:
    lease = given(ready, ready.ann)
    expire(ready, lease)
    assert act(ready, assign.renew, lease).lease_until > lease.lease_until - timedelta(seconds=5)
    assert act(ready, assign.submit, lease).state == "submitted"


def test_only_one_of_two_heirs_takes_an_expired_lease(ready: Lab) -> None:
    expire(ready, given(ready, ready.ann))
    with ready.workspace.write() as session:
        carl = a_user(session, 3).id
    answers = at_once([lambda: ask_next(ready, ready.bea), lambda: ask_next(ready, carl)])
    assert {answer.image_id for answer in answers} == set(ready.image_ids[:2])


def test_submitted_and_skipped_images_are_not_handed_out_again(ready: Lab) -> None:
    act(ready, assign.submit, given(ready, ready.ann))
    act(ready, assign.skip, given(ready, ready.ann), "out of focus")
    assert given(ready, ready.bea).image_id == ready.image_ids[2]
    progress = rows(ready.workspace, select(ImageProgress).order_by(ImageProgress.image_id))
    assert [(row.state, row.reason) for row in progress] == [("done", None), ("skipped", "out of focus")]


def test_a_released_image_is_anybodys(ready: Lab) -> None:
    lease = given(ready, ready.ann)
    assert act(ready, assign.release, lease).state == "released"
    assert given(ready, ready.bea).image_id == lease.image_id
    with pytest.raises(Conflict, match="was released already"):
        act(ready, assign.submit, lease)


def test_somebody_elses_assignment_is_not_found(ready: Lab) -> None:
    lease = given(ready, ready.ann)
    for verb in (assign.renew, assign.submit, assign.release):
        with ready.workspace.write() as session, pytest.raises(NotFound, match="no such assignment of yours"):
            verb(session, ready.workspace.settings, lease.id, ready.bea)
    with ready.workspace.write() as session, pytest.raises(NotFound):
        assign.renew(session, ready.workspace.settings, 999, ready.bea)


def test_whoever_must_wait_is_told_why(lab: Lab) -> None:
    waiting = ask_next(lab, lab.ann)
    assert isinstance(waiting, Waiting) and "being prepared" in waiting.reason and waiting.retry_after_s == 2
    lab.embed(*lab.image_ids)
    with lab.workspace.write() as session:
        people = [a_user(session, 10 + n).id for n in range(6)]
    leases = [given(lab, user_id) for user_id in people]
    waiting = ask_next(lab, lab.ann)
    assert isinstance(waiting, Waiting) and "in somebody's hands" in waiting.reason
    for lease in leases:
        act(lab, assign.submit, lease)
    waiting = ask_next(lab, lab.ann)
    assert waiting == Waiting("Every image of this dataset is done.")


def test_a_dataset_without_images_model_or_stage_says_so(sqlite_workspace: Workspace) -> None:
    settings = sqlite_workspace.settings
    with sqlite_workspace.write() as session:
        user_id, dataset = a_user(session).id, add_dataset(session, "bare")
        answer = assign.next_assignment(session, settings, dataset.id, user_id)
        assert isinstance(answer, Waiting) and "No stage" in answer.reason
        dataset.open_stage = "assisted_manual"
        answer = assign.next_assignment(session, settings, dataset.id, user_id)
        assert isinstance(answer, Waiting) and "no active model" in answer.reason


def test_an_empty_dataset_is_not_called_done(lab: Lab) -> None:
    with lab.workspace.write() as session:
        other = add_dataset(session, "empty")
        other.open_stage = "assisted_manual"
        session.add(ActiveModel(dataset_id=other.id, model_version_id=lab.version_id))
        session.flush()
        answer = assign.next_assignment(session, lab.workspace.settings, other.id, lab.ann)
    assert isinstance(answer, Waiting) and "no image yet" in answer.reason
