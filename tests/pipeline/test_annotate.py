"""Acts: each is kept once, as it happened; a mask is changed only by a newer one."""

import threading
from collections.abc import Callable
from dataclasses import replace
from datetime import timedelta
from typing import Any

import pytest
from sqlalchemy import select
from sqlalchemy.exc import IntegrityError

from engine.errors import BadInput, Conflict, NotFound, Refused
from engine.geometry.rle import Rle, area, bbox_xywh, encode
from engine.pipeline import annotate, assign, predict
from engine.pipeline.annotate import Accept
from engine.store.annotations import Annotation
from engine.store.assignments import Assignment
from engine.store.base import database_now, utc_now
from engine.store.categories import Category
from engine.store.masks import Mask, current_masks
from tests.pipeline.conftest import Lab, ellipse, rows

POINT = {"kind": "point", "x": 30.0, "y": 30.0, "label": 1, "at_ms": 400}
RLE = encode(ellipse(30, 30, 9, 9))
# Inside RLE, so that the mask shows it.
BRUSH = {"kind": "brush", "size": 3, "points": [28.0, 30.0, 32.5, 31.0]}
OTHER = encode(ellipse(60, 30, 9, 9))


class Desk:
    """One person at one image."""

    def __init__(self, lab: Lab, user_id: int) -> None:
        self.lab, self.workspace, self.user_id = lab, lab.workspace, user_id
        with self.workspace.write() as session:
            found = assign.next_assignment(session, self.workspace.settings, lab.dataset_id, user_id)
        assert isinstance(found, Assignment), found
        self.assignment = found

    def body(self, client_id: str = "client-0001", **changes: Any) -> Accept:
        body = Accept(
            assignment_id=self.assignment.id,
            client_id=client_id,
            prompts=[POINT],
            chosen=[1],
            segmentation=RLE,
            model_version_id=self.assignment.model_version_id,
            predicted_iou=0.9,
            stability_score=0.8,
            active_ms=2500,
        )
        return replace(body, **changes)

    def accept(self, client_id: str = "client-0001", **changes: Any) -> tuple[Mask, bool]:
        return self.send(annotate.accept, self.body(client_id, **changes))

    def delete(self, client_id: str, mask_id: int) -> int:
        return self.send(annotate.delete, self.assignment.id, client_id, mask_id)

    def restore(self, client_id: str, mask_id: int) -> tuple[Mask, bool]:
        return self.send(annotate.restore, self.assignment.id, client_id, mask_id)

    def send(self, verb: Callable[..., Any], *arguments: Any) -> Any:
        with self.workspace.write() as session:
            return verb(session, self.workspace.settings, self.user_id, *arguments)

    def expire(self) -> None:
        with self.workspace.write() as session:
            row = session.get_one(Assignment, self.assignment.id)
            row.lease_until = database_now(session) - timedelta(seconds=1)

    def current(self) -> list[int]:
        return sorted(rows(self.workspace, select(current_masks.c.mask_id)))


@pytest.fixture
def desk(lab: Lab) -> Desk:
    lab.embed(*lab.image_ids[:2])
    return Desk(lab, lab.ann)


@pytest.fixture
def desks(labs: Lab) -> Desk:
    """On SQLite and on Postgres."""
    labs.embed(*labs.image_ids[:2])
    return Desk(labs, labs.ann)


def test_an_accepted_mask_is_kept_with_its_whole_history(desks: Desk) -> None:
    mask, created = desks.accept(strokes=[BRUSH], n_undos=2)
    assert created and desks.current() == [mask.id]
    assert (mask.counts, mask.area, mask.bbox_xywh) == (RLE["counts"], area(RLE), list(bbox_xywh(RLE)))
    assert (mask.stage, mask.source, mask.touched_by_person) == ("assisted_manual", "human", True)
    assert (mask.author_id, mask.model_version_id, mask.active_seconds) == (
        desks.lab.ann,
        desks.lab.version_id,
        2.5,
    )
    (act,) = rows(desks.workspace, select(Annotation))
    assert (act.act, act.prompts, act.chosen, act.counts) == ("accept", [POINT], [1], RLE["counts"])
    assert (act.n_clicks, act.n_undos, act.strokes, act.active_ms) == (1, 2, [BRUSH], 2500)
    assert act.embedding_sha256 is not None and act.assignment_id == desks.assignment.id


def test_an_accepted_prediction_equals_replaying_its_prompts(desk: Desk) -> None:
    prompts: list[dict[str, Any]] = []
    for n, point in enumerate([(20.0, 30.0, 1), (50.0, 20.0, 1), (80.0, 40.0, 0)]):
        x, y, label = point
        prompts.append({"kind": "point", "x": x, "y": y, "label": label, "at_ms": 100 * n})
    chosen, segmentation = [], None
    for n in range(1, 4):
        answer = predict.predict(desk.workspace, desk.assignment.id, desk.lab.ann, prompts[:n], chosen)
        chosen.append(answer.best)
        segmentation = answer.candidates[answer.best].segmentation
    assert segmentation is not None
    mask, _ = desk.accept(prompts=prompts, chosen=chosen, segmentation=segmentation)
    predict._steps._known.clear()
    with desk.workspace.read() as session:
        act = session.scalars(select(Annotation)).one()
        ground = predict.ground_of(session, act.image_id, mask.model_version_id or 0)
    replayed = predict.fold_on(desk.workspace, ground, act.prompts, act.chosen)
    again = predict.as_candidates(replayed, ground)[act.chosen[-1]]
    assert again.segmentation == Rle(size=[mask.height, mask.width], counts=mask.counts)
    assert ground.embedding_sha256 == act.embedding_sha256


def test_the_same_act_sent_twice_is_one_mask(desks: Desk) -> None:
    mask, _ = desks.accept()
    again, created = desks.accept()
    assert (again.id, created) == (mask.id, False) and desks.current() == [mask.id]


def test_the_same_client_id_with_another_body_is_a_conflict(desks: Desk) -> None:
    mask, _ = desks.accept()
    with pytest.raises(Conflict, match="client_id was used for another act"):
        desks.accept(segmentation=OTHER)
    with pytest.raises(Conflict, match="client_id"):
        desks.delete("client-0001", mask.id)


def test_a_client_id_of_another_person_is_a_conflict(desk: Desk) -> None:
    desk.accept()
    with pytest.raises(Conflict, match="client_id"):
        Desk(desk.lab, desk.lab.bea).send(annotate.accept, desk.body())


def test_one_act_sent_by_six_threads_is_one_mask(desks: Desk) -> None:
    start, answers = threading.Barrier(6), []

    def run() -> None:
        start.wait()
        answers.append(desks.accept())

    threads = [threading.Thread(target=run) for _ in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len({mask.id for mask, _ in answers}) == 1 and sum(created for _, created in answers) == 1
    assert (
        len(rows(desks.workspace, select(Mask.id))) == len(rows(desks.workspace, select(Annotation.id))) == 1
    )


@pytest.mark.parametrize(
    "changes, reason",
    [
        ({"segmentation": {"size": [64, 96], "counts": "\x7f\x7f"}}, "counts"),
        ({"segmentation": {"size": [96, 64], "counts": RLE["counts"]}}, "the image is 64 x 96"),
        ({"segmentation": {"size": [64, 96], "counts": RLE["counts"][:-2]}}, "counts|runs"),
        ({"segmentation": encode(ellipse(-50, -50, 2, 2))}, "empty"),
        ({"segmentation": {}}, "segmentation is"),
        ({"prompts": [], "chosen": []}, "at least one"),
        ({"prompts": [POINT | {"x": 200.0}]}, "outside"),
        ({"chosen": []}, "one candidate index"),
        ({"chosen": [3]}, "one candidate index"),
        ({"active_ms": -1}, "active_ms"),
        ({"predicted_iou": float("nan")}, "infinite or none"),
        ({"client_id": "short"}, "client_id must be"),
        ({"prompts": [POINT] * 65, "chosen": [0] * 65}, "at most"),
        ({"strokes": [BRUSH | {"size": 0}]}, "stroke 1 cannot be painted: size must be"),
        ({"strokes": [BRUSH] * 1001}, "at most 1000 strokes"),
        ({"strokes": [BRUSH | {"kind": "erase"}]}, "does not show its strokes"),
    ],
)
def test_what_does_not_fit_the_image_is_refused(desk: Desk, changes: dict[str, Any], reason: str) -> None:
    with pytest.raises(BadInput, match=reason):
        desk.accept(**changes)
    assert rows(desk.workspace, select(Annotation.id)) == []


def test_a_mask_of_another_model_version_is_a_conflict(desk: Desk) -> None:
    with pytest.raises(Conflict, match="another model version"):
        desk.accept(model_version_id=desk.lab.version_id + 1)


def test_an_image_holds_so_many_masks_and_no_more(desk: Desk) -> None:
    settings = desk.workspace.settings
    limits = settings.limits.model_copy(update={"max_masks_per_image": 2})
    tight = settings.model_copy(update={"limits": limits})
    for n in range(2):
        desk.accept(f"client-{n:04}")
    with desk.workspace.write() as session, pytest.raises(Refused, match="at most 2 masks"):
        annotate.accept(session, tight, desk.user_id, desk.body("client-0009"))


def test_categories_are_checked(desk: Desk) -> None:
    with desk.workspace.write() as session:
        for n, name in enumerate(["cell", "old"], start=1):
            session.add(Category(dataset_id=desk.lab.dataset_id, name=name, export_id=n))
        session.flush()
        old = session.scalars(select(Category).where(Category.name == "old")).one()
        old.retired_at = utc_now()
    assert desk.accept(category_id=1)[0].category_id == 1
    with pytest.raises(Conflict, match="old was retired"):
        desk.accept("client-0002", category_id=2)
    with pytest.raises(NotFound, match="no such category"):
        desk.accept("client-0002", category_id=99)


def test_somebody_elses_assignment_and_a_closed_one_take_no_mask(desk: Desk) -> None:
    with desk.workspace.write() as session, pytest.raises(NotFound):
        annotate.accept(session, desk.workspace.settings, desk.lab.bea, desk.body())
    mask, _ = desk.accept()
    with desk.workspace.write() as session:
        assign.submit(session, desk.workspace.settings, desk.assignment.id, desk.user_id)
    with pytest.raises(Conflict, match="submitted already"):
        desk.accept("client-0002")
    with pytest.raises(Conflict, match="submitted already"):
        desk.delete("client-0003", mask.id)
    # The answer to a repeated request that got lost is still given.
    assert desk.accept()[0].id == mask.id


def test_a_late_mask_is_kept_as_a_second_opinion(desks: Desk) -> None:
    first, _ = desks.accept()
    desks.expire()
    heir = Desk(desks.lab, desks.lab.bea)
    assert heir.assignment.image_id == desks.assignment.image_id
    late, created = desks.accept("client-0002", segmentation=OTHER, supersedes_id=first.id)
    assert created and late.second_opinion and late.supersedes_id is None
    assert late.export_id != first.export_id and desks.current() == [first.id]
    with pytest.raises(Conflict, match="somebody else took"):
        desks.delete("client-0003", first.id)
    with pytest.raises(NotFound, match="no such mask"):
        desks.accept("client-0004", supersedes_id=9999)


def test_a_late_mask_that_nobody_else_waited_for_is_an_ordinary_one(desk: Desk) -> None:
    desk.expire()
    mask, _ = desk.accept()
    assert not mask.second_opinion and desk.current() == [mask.id]
    (row,) = rows(desk.workspace, select(Assignment))
    with desk.workspace.read() as session:
        assert row.lease_until > database_now(session)


def test_a_correction_is_a_new_row_with_the_old_export_id(desks: Desk) -> None:
    first, _ = desks.accept()
    second, _ = desks.accept("client-0002", segmentation=OTHER, supersedes_id=first.id)
    assert (second.supersedes_id, second.export_id) == (first.id, first.export_id)
    assert desks.current() == [second.id] and first.counts == RLE["counts"]
    with pytest.raises(Conflict, match="changed or deleted meanwhile"):
        desks.accept("client-0003", supersedes_id=first.id)


def test_a_deleted_mask_is_gone_and_comes_back_whole(desks: Desk) -> None:
    mask, _ = desks.accept()
    assert desks.delete("client-0002", mask.id) == mask.id and desks.current() == []
    assert desks.delete("client-0002", mask.id) == mask.id
    with pytest.raises(Conflict, match="changed or deleted"):
        desks.delete("client-0003", mask.id)
    restored, created = desks.restore("client-0004", mask.id)
    assert created and desks.current() == [restored.id]
    assert desks.restore("client-0004", mask.id)[0].id == restored.id
    same = ("counts", "export_id", "prompts", "chosen", "author_id", "active_seconds", "predicted_iou")
    assert all(getattr(restored, name) == getattr(mask, name) for name in same)
    with pytest.raises(Conflict, match="brought back already"):
        desks.restore("client-0005", mask.id)
    assert [act.act for act in rows(desks.workspace, select(Annotation).order_by(Annotation.id))] == [
        "accept",
        "delete",
        "restore",
    ]


def test_a_correction_is_taken_back_and_made_again_by_restoring_either_mask(desks: Desk) -> None:
    first, _ = desks.accept(strokes=[BRUSH])
    second, _ = desks.accept("client-0002", segmentation=OTHER, supersedes_id=first.id)
    back, _ = desks.restore("client-0003", first.id)
    assert desks.current() == [back.id] and back.counts == first.counts
    assert (back.supersedes_id, back.export_id) == (second.id, first.export_id)
    again, _ = desks.restore("client-0004", second.id)
    assert desks.current() == [again.id] and again.counts == second.counts
    act = rows(desks.workspace, select(Annotation).where(Annotation.id == back.annotation_id))[0]
    assert (act.strokes, act.target_mask_id) == ([BRUSH], first.id)
    with pytest.raises(Conflict, match="brought back already"):
        desks.restore("client-0005", again.id)


def test_deleting_a_correction_does_not_bring_the_old_mask_back(desk: Desk) -> None:
    first, _ = desk.accept()
    second, _ = desk.accept("client-0002", segmentation=OTHER, supersedes_id=first.id)
    desk.delete("client-0003", second.id)
    assert desk.current() == []
    with pytest.raises(Conflict):
        desk.restore("client-0004", first.id)


def test_masks_of_another_image_are_not_found(desk: Desk) -> None:
    mask, _ = desk.accept()
    other = Desk(desk.lab, desk.lab.bea)
    assert other.assignment.image_id != desk.assignment.image_id
    for verb in (other.delete, other.restore):
        with pytest.raises(NotFound, match="no such mask on this image"):
            verb("client-0009", mask.id)
    with pytest.raises(NotFound):
        other.accept("client-0009", supersedes_id=mask.id)


def test_a_mask_row_is_never_edited(desks: Desk) -> None:
    mask, _ = desks.accept()
    with pytest.raises(IntegrityError, match="facts"), desks.workspace.write() as session:
        session.get_one(Mask, mask.id).area = 1
