"""Reviews: a person's word on what was prefilled is kept, counts once, and settles what becomes a mask."""

from collections.abc import Callable
from typing import Any

import pytest
from sqlalchemy import select

from engine.errors import BadInput, Conflict, NotFound
from engine.geometry.rle import area, bbox_xywh
from engine.pipeline import annotate, assign, report, review
from engine.pipeline.stages import open_stage
from engine.store.assignments import Assignment
from engine.store.images import Image
from engine.store.masks import Mask
from engine.store.model_versions import ModelVersion
from engine.store.reviews import Review
from tests.factories import a_detector_version, a_proposal, a_snapshot
from tests.pipeline.conftest import Lab, rows
from tests.pipeline.test_annotate import OTHER, RLE, Desk
from tests.pipeline.test_assign import at_once


class Judge(Desk):
    """A person at an image with four proposals, scores 0.9 to 0.6."""

    def __init__(self, lab: Lab, user_id: int) -> None:
        super().__init__(lab, user_id)
        self.ids = [row["id"] for row in self.view()["proposals"]]

    def view(self) -> dict[str, Any]:
        with self.workspace.read() as session:
            return report.assignment_view(session, session.get_one(Assignment, self.assignment.id))

    def states(self) -> list[str]:
        return [row["state"] for row in self.view()["proposals"]]

    def say(self, verb: Callable[..., Any], ids: list[int], client_id: str = "client-0001") -> Any:
        return self.send(verb, self.assignment.id, client_id, ids)

    def submit(self) -> None:
        with self.workspace.write() as session:
            settings = self.workspace.settings
            review.keep_rest(session, settings, self.user_id, self.assignment.id)
            assign.submit(session, settings, self.assignment.id, self.user_id)


def prefill(lab: Lab, image_id: int) -> None:
    with lab.workspace.write() as session:
        image, version = session.get_one(Image, image_id), session.get_one(ModelVersion, lab.version_id)
        name = {"name": f"d{image_id}"}
        detector = a_detector_version(
            session, version, a_snapshot(session, lab.dataset_id, n=image_id), **name
        )
        for n, rle in enumerate((RLE, OTHER, RLE, OTHER)):
            columns = {"counts": rle["counts"], "area": area(rle), "bbox_xywh": list(bbox_xywh(rle))}
            columns |= {"score": 0.9 - 0.1 * n, "detector_version_id": detector.id}
            a_proposal(session, image, version, **columns)


def ready(lab: Lab) -> Lab:
    lab.embed(*lab.image_ids[:2])
    with lab.workspace.write() as session:
        open_stage(session, lab.dataset_id, "semi_automatic")
    for image_id in lab.image_ids[:2]:
        prefill(lab, image_id)
    return lab


@pytest.fixture
def judge(lab: Lab) -> Judge:
    return Judge(ready(lab), lab.ann)


@pytest.fixture
def judges(labs: Lab) -> Judge:
    """On SQLite and on Postgres."""
    return Judge(ready(labs), labs.ann)


def test_what_is_neither_refused_nor_corrected_is_kept_when_the_image_is_submitted(judges: Judge) -> None:
    first, second, third, fourth = judges.ids
    judges.say(review.reject, [third, fourth], "client-0001")
    judges.say(review.unreject, [fourth], "client-0002")
    mask, _ = judges.accept("client-0003", proposal_id=second)
    assert judges.states() == ["open", "corrected", "rejected", "open"]
    assert (mask.proposal_id, mask.source, mask.touched_by_person) == (second, "human", True)
    judges.submit()
    assert judges.states() == ["kept", "corrected", "rejected", "kept"]
    kept = rows(judges.workspace, select(Mask).where(Mask.source == "model").order_by(Mask.proposal_id))
    assert [row.proposal_id for row in kept] == [first, fourth]
    for row in kept:
        assert (row.stage, row.touched_by_person, row.annotation_id) == ("semi_automatic", False, None)
        assert row.prompts == [{"kind": "box", "x0": 0.0, "y0": 0.0, "x1": 2.0, "y1": 2.0}]
    said = rows(judges.workspace, select(Review).order_by(Review.id))
    assert [(row.act, row.proposal_id) for row in said] == [
        ("reject", third),
        ("reject", fourth),
        ("unreject", fourth),
        ("keep", first),
        ("keep", fourth),
    ]
    assert {row.author_id for row in said} == {judges.user_id}


def test_the_page_sees_proposals_with_their_scores_and_the_detector_behind_them(judge: Judge) -> None:
    view = judge.view()
    assert view["prefill"] == {
        "threshold": 0.5,
        "detector_version": f"d{judge.assignment.image_id}",
        "false_prefill_rate": 0.1,
    }
    best = view["proposals"][0]
    assert best["segmentation"] == RLE and best["score"] == 0.9 and best["state"] == "open"
    assert [row["score"] for row in view["proposals"]] == pytest.approx([0.9, 0.8, 0.7, 0.6])
    assert best["chosen"] == [0] and view["masks"] == []


def test_the_same_review_sent_by_six_threads_counts_once(judges: Judge) -> None:
    answers = at_once([lambda: judges.say(review.reject, judges.ids)] * 6)
    assert all(answer == answers[0] for answer in answers)
    assert {row["state"] for row in answers[0]} == {"rejected"} and len(answers[0]) == 4
    assert len(rows(judges.workspace, select(Review.id))) == 4


def test_a_client_id_is_good_for_one_act_of_one_person(judge: Judge) -> None:
    judge.say(review.reject, judge.ids[:1])
    for verb, ids in ((review.reject, judge.ids[:2]), (review.unreject, judge.ids[:1])):
        with pytest.raises(Conflict, match="client_id was used"):
            judge.say(verb, ids)
    other = Judge(judge.lab, judge.lab.bea)
    with pytest.raises(Conflict, match="client_id was used"):
        other.say(review.reject, other.ids[:1])
    with pytest.raises(BadInput, match="client_id must be"):
        judge.say(review.reject, judge.ids, "short")


def test_only_what_is_offered_on_ones_own_image_is_reviewed(judge: Judge) -> None:
    other = Judge(judge.lab, judge.lab.bea)
    with pytest.raises(NotFound, match="no such proposal"):
        judge.say(review.reject, [*judge.ids, other.ids[0]])
    with pytest.raises(NotFound, match="no such assignment of yours"):
        judge.send(review.reject, other.assignment.id, "client-0001", other.ids)
    with pytest.raises(BadInput, match="between 1 and 500"):
        judge.say(review.reject, [])
    with pytest.raises(NotFound, match="no such proposal"):
        judge.accept("client-0002", proposal_id=other.ids[0])
    assert rows(judge.workspace, select(Review.id)) == []


def test_a_corrected_proposal_is_settled_and_a_refused_one_is_not_corrected(judge: Judge) -> None:
    judge.accept("client-0001", proposal_id=judge.ids[0])
    with pytest.raises(Conflict, match="became a mask"):
        judge.say(review.reject, judge.ids[:1], "client-0002")
    with pytest.raises(Conflict, match="corrected or rejected already"):
        judge.accept("client-0003", proposal_id=judge.ids[0])
    judge.say(review.reject, judge.ids[1:2], "client-0004")
    with pytest.raises(Conflict, match="corrected or rejected already"):
        judge.accept("client-0005", proposal_id=judge.ids[1])


def test_a_correction_deleted_again_leaves_the_proposal_open(judges: Judge) -> None:
    mask, _ = judges.accept("client-0001", proposal_id=judges.ids[0])
    judges.delete("client-0002", mask.id)
    assert judges.states()[0] == "open"
    judges.accept("client-0003", proposal_id=judges.ids[0])
    assert judges.states()[0] == "corrected"


def test_a_correction_of_a_correction_stands_for_the_proposal_until_it_is_deleted(judges: Judge) -> None:
    first, _ = judges.accept("client-0011", proposal_id=judges.ids[0])
    second, _ = judges.accept("client-0012", segmentation=OTHER, supersedes_id=first.id)
    assert (second.proposal_id, judges.states()[0]) == (judges.ids[0], "corrected")
    back, _ = judges.restore("client-0013", first.id)
    assert (back.proposal_id, judges.states()[0]) == (judges.ids[0], "corrected")
    judges.delete("client-0014", back.id)
    assert judges.states()[0] == "open"
    judges.say(review.reject, judges.ids[:1], "client-0015")
    assert judges.states()[0] == "rejected"


def test_an_expired_lease_reviews_nothing_and_keeps_its_corrections_apart(judges: Judge) -> None:
    judges.expire()
    heir = Judge(judges.lab, judges.lab.bea)
    assert heir.assignment.image_id == judges.assignment.image_id
    with pytest.raises(Conflict, match="somebody else took the image"):
        judges.say(review.reject, judges.ids)
    late, _ = judges.accept("client-0002", proposal_id=judges.ids[0])
    assert late.second_opinion and heir.states() == ["open"] * 4
    with pytest.raises(Conflict, match="somebody else took the image"):
        judges.submit()
    heir.submit()
    assert heir.states() == ["kept"] * 4
    with pytest.raises(Conflict, match="submitted already"):
        heir.say(review.reject, heir.ids, "client-0003")


def test_no_more_is_kept_than_the_image_may_hold(judge: Judge) -> None:
    limits = judge.workspace.settings.limits.model_copy(update={"max_masks_per_image": 3})
    tight = judge.workspace.settings.model_copy(update={"limits": limits})
    judge.accept("client-0001")
    with judge.workspace.write() as session:
        kept = review.keep_rest(session, tight, judge.user_id, judge.assignment.id)
    assert [mask.proposal_id for mask in kept] == judge.ids[:2]


def test_a_skipped_image_keeps_nothing(judge: Judge) -> None:
    with judge.workspace.write() as session:
        assign.skip(session, judge.workspace.settings, judge.assignment.id, judge.user_id, "blurred")
        assert review.keep_rest(session, judge.workspace.settings, judge.user_id, judge.assignment.id) == []
    assert rows(judge.workspace, select(Mask.id)) == []


def test_an_act_without_a_proposal_has_the_digest_it_always_had() -> None:
    act = annotate.Accept(1, "client-0001", [], [], {}, 1)
    assert "proposal_id" not in annotate._body(act)
