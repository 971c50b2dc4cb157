"""Annotating one picture through HTTP: a real decoder, real rows, on SQLite and on Postgres."""

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta
from typing import Any
from uuid import uuid4

import pytest
from sqlalchemy import func, select, update

from annotator_ui.app import create_app
from engine.geometry.rle import decode
from engine.store.annotations import Annotation
from engine.store.assignments import Assignment
from engine.store.base import utc_now
from engine.store.jobs import Job, ask
from engine.store.masks import Mask
from engine.store.session import Workspace

Browsers = Callable[..., Any]
CLICK = {"kind": "point", "x": 30.0, "y": 30.0, "label": 1, "at_ms": 900}
BOX = {"kind": "box", "x0": 10, "y0": 8, "x1": 50.5, "y1": 52}


def predicted(browser: Any, assignment: dict[str, Any], *prompts: dict[str, Any]) -> Any:
    reply = browser.post(
        f"assignments/{assignment['id']}/predictions", prompts=prompts, chosen=[0] * (len(prompts) - 1)
    )
    assert reply.status_code == 200, reply.text
    return reply.json


def accept_body(browser: Any, assignment: dict[str, Any], **changes: Any) -> dict[str, Any]:
    """The body of an accept of the first prediction for one click."""
    offered = predicted(browser, assignment, CLICK)
    candidate = offered["candidates"][0]
    body = {"client_id": str(uuid4()), "prompts": [CLICK], "chosen": [0], "active_ms": 2400, "n_undos": 1}
    body |= {key: candidate[key] for key in ("segmentation", "predicted_iou", "stability_score")}
    return body | {"model_version_id": offered["model_version_id"]} | changes


def accepted(browser: Any, assignment: dict[str, Any], **changes: Any) -> dict[str, Any]:
    body = accept_body(browser, assignment, **changes)
    reply = browser.post(f"assignments/{assignment['id']}/masks", **body)
    assert reply.status_code == 201, reply.text
    return reply.json


def n_rows(workspace: Workspace, table: Any) -> int:
    with workspace.read() as session:
        return session.scalar(select(func.count()).select_from(table)) or 0


def test_one_click_offers_three_masks_and_a_second_prompt_one(ann: Any) -> None:
    assignment = ann.image()
    one, two = predicted(ann, assignment, CLICK), predicted(ann, assignment, CLICK, BOX)
    assert len(one["candidates"]) == 3 and len(two["candidates"]) == 1
    scores = [candidate["predicted_iou"] for candidate in one["candidates"]]
    assert one["best"] == scores.index(max(scores))
    for candidate in one["candidates"]:
        assert candidate["segmentation"]["size"] == [64, 96]
        assert int(decode(candidate["segmentation"]).sum()) == candidate["area"]


def test_the_same_prompts_give_the_same_answer(ann: Any) -> None:
    assignment = ann.image()
    first, again = (predicted(ann, assignment, BOX, CLICK)["candidates"] for _ in range(2))
    assert first == again


def test_a_whole_picture_from_lease_to_submission(ann: Any) -> None:
    assignment = ann.image()
    assert assignment["order"] == {"position": 1, "total": 3} and assignment["embedding_ready"]
    mask = accepted(ann, assignment)
    assert mask["author"] == "ann" and mask["stage"] == "assisted_manual" and mask["source"] == "human"
    assert mask["model_version"] == "small" and mask["prompts"] == [CLICK] and not mask["second_opinion"]
    assert ann.get(f"assignments/{assignment['id']}").json["masks"] == [mask]
    assert ann.image()["id"] == assignment["id"]
    assert ann.post(f"assignments/{assignment['id']}/submission").json == {"state": "submitted"}
    following = ann.image()
    assert following["image"]["id"] != assignment["image"]["id"] and following["order"]["position"] == 2
    line = ann.get("datasets").json["datasets"][0]
    assert (line["n_images"], line["n_done"], line["n_masks"]) == (3, 1, 1)


def test_the_same_act_sent_twice_is_kept_once(ann: Any, furnished: Workspace) -> None:
    assignment = ann.image()
    body = accept_body(ann, assignment)
    replies = [ann.post(f"assignments/{assignment['id']}/masks", **body) for _ in range(2)]
    assert [reply.status_code for reply in replies] == [201, 200]
    assert replies[0].json == replies[1].json
    assert n_rows(furnished, Mask) == n_rows(furnished, Annotation) == 1


def test_the_same_act_arriving_twice_at_once_is_kept_once(
    workspace: Workspace, furnish: Callable[[Workspace], None], browser_of: Browsers
) -> None:
    furnish(workspace)
    app = create_app(workspace)
    ann = browser_of(app, "ann")
    assignment = ann.image()
    body = accept_body(ann, assignment)
    others = [browser_of(app, "ann") for _ in range(4)]
    with ThreadPoolExecutor(4) as threads:
        where = f"assignments/{assignment['id']}/masks"
        sent = [threads.submit(other.post, where, **body) for other in others]
        codes = sorted(reply.result().status_code for reply in sent)
    assert codes == [200, 200, 200, 201]
    assert n_rows(workspace, Mask) == 1


def test_a_client_id_used_for_another_act_is_a_conflict(ann: Any, furnished: Workspace) -> None:
    assignment = ann.image()
    body = accept_body(ann, assignment)
    ann.post(f"assignments/{assignment['id']}/masks", **body)
    reply = ann.post(f"assignments/{assignment['id']}/masks", **body | {"active_ms": 1})
    assert reply.status_code == 409 and "client_id" in reply.json["detail"]
    assert n_rows(furnished, Mask) == 1


def test_a_mask_of_another_model_version_is_a_conflict(ann: Any) -> None:
    assignment = ann.image()
    body = accept_body(ann, assignment, model_version_id=77)
    reply = ann.post(f"assignments/{assignment['id']}/masks", **body)
    assert reply.status_code == 409 and "model version" in reply.json["detail"]


def test_a_deletion_is_undone_by_a_restoration_as_a_new_row(ann: Any, furnished: Workspace) -> None:
    assignment = ann.image()
    mask = accepted(ann, assignment)
    where = f"assignments/{assignment['id']}"
    deletion = {"client_id": str(uuid4()), "mask_id": mask["id"]}
    assert ann.post(f"{where}/deletions", **deletion).json == {"mask_id": mask["id"]}
    assert ann.post(f"{where}/deletions", **deletion).json == {"mask_id": mask["id"]}
    assert ann.get(where).json["masks"] == []
    restored = ann.post(f"{where}/restorations", client_id=str(uuid4()), mask_id=mask["id"])
    assert restored.status_code == 201 and restored.json["id"] != mask["id"]
    for key in ("segmentation", "prompts", "chosen", "area", "author"):
        assert restored.json[key] == mask[key]
    assert [shown["id"] for shown in ann.get(where).json["masks"]] == [restored.json["id"]]
    assert n_rows(furnished, Mask) == 2
    gone = ann.post(f"{where}/deletions", client_id=str(uuid4()), mask_id=mask["id"])
    assert gone.status_code == 409


def test_a_correction_takes_the_place_of_what_it_corrects(ann: Any) -> None:
    assignment = ann.image()
    first = accepted(ann, assignment)
    second = accepted(ann, assignment, supersedes_id=first["id"])
    shown = ann.get(f"assignments/{assignment['id']}").json["masks"]
    assert [mask["id"] for mask in shown] == [second["id"]]


def test_somebody_elses_assignment_is_not_there(ann: Any, browser: Browsers, furnished: Workspace) -> None:
    assignment = ann.image()
    mask, bea = accepted(ann, assignment), browser("bea")
    where = f"assignments/{assignment['id']}"
    body = accept_body(ann, assignment)
    target = {"client_id": str(uuid4()), "mask_id": mask["id"]}
    replies = [
        bea.get(where),
        bea.post(f"{where}/renew"),
        bea.post(f"{where}/predictions", prompts=[CLICK], chosen=[]),
        bea.post(f"{where}/masks", **body),
        bea.post(f"{where}/deletions", **target),
        bea.post(f"{where}/restorations", **target),
        bea.post(f"{where}/submission"),
        bea.post(f"{where}/skip", reason="not mine"),
        bea.post(f"{where}/release"),
    ]
    assert [reply.status_code for reply in replies] == [404] * 9
    assert n_rows(furnished, Mask) == 1


def test_two_people_never_hold_one_picture(ann: Any, browser: Browsers) -> None:
    held = {browser(name).image()["image"]["id"] for name in ("bea", "rev")} | {ann.image()["image"]["id"]}
    assert len(held) == 3
    waiting = browser("adm").post("datasets/cells/assignments").json
    assert waiting["assignment"] is None and "somebody's hands" in waiting["reason"]
    assert waiting["retry_after_s"] == 30


def test_an_act_after_the_lease_is_kept_while_nobody_took_the_picture(ann: Any, furnished: Workspace) -> None:
    assignment = ann.image()
    with furnished.write() as session:
        session.execute(update(Assignment).values(lease_until=utc_now() - timedelta(minutes=1)))
    assert not accepted(ann, assignment)["second_opinion"]
    with furnished.read() as session:
        assert session.scalars(select(Assignment.lease_until)).one() > utc_now()


def test_an_act_after_somebody_took_the_picture_is_a_second_opinion(
    ann: Any, browser: Browsers, furnished: Workspace
) -> None:
    assignment = ann.image()
    with furnished.write() as session:
        session.execute(update(Assignment).values(lease_until=utc_now() - timedelta(minutes=1)))
    bea = browser("bea")
    theirs = bea.image()
    assert theirs["image"]["id"] == assignment["image"]["id"]
    assert accepted(ann, assignment)["second_opinion"]
    assert bea.get(f"assignments/{theirs['id']}").json["masks"] == []
    assert ann.post(f"assignments/{assignment['id']}/submission").status_code == 409


def test_a_lease_is_renewed_and_a_picture_skipped_or_given_back(ann: Any) -> None:
    first = ann.image()
    renewed = ann.post(f"assignments/{first['id']}/renew").json["lease_until"]
    assert renewed >= first["lease_until"]
    assert ann.post(f"assignments/{first['id']}/release").json == {"state": "released"}
    again = ann.image()
    assert again["id"] != first["id"] and again["image"]["id"] == first["image"]["id"]
    assert ann.post(f"assignments/{again['id']}/skip", reason="too blurred").json == {"state": "skipped"}
    assert ann.image()["image"]["id"] != first["image"]["id"]
    late = ann.post(f"assignments/{again['id']}/submission")
    assert late.status_code == 409 and "skipped already" in late.json["detail"]


def test_when_all_is_done_a_sentence_says_so(ann: Any) -> None:
    for _ in range(3):
        ann.post(f"assignments/{ann.image()['id']}/submission")
    done = ann.post("datasets/cells/assignments").json
    assert done["assignment"] is None and done["reason"] == "Every image of this dataset is done."


def test_the_pixels_are_for_whom_they_were_lent_to(ann: Any, browser: Browsers) -> None:
    url = ann.image()["image"]["url"]
    assert browser().get(url).status_code == 401
    assert browser("bea").get(url).status_code == 404
    assert browser("res").get(url).status_code == 200
    reply = ann.get(url)
    assert reply.status_code == 200 and reply.mimetype == "image/png" and reply.data.startswith(b"\x89PNG")
    assert reply.headers["Cache-Control"] == "private, no-cache"
    again = ann.get(url, headers={"If-None-Match": reply.headers["ETag"]})
    assert again.status_code == 304 and not again.data
    assert browser("bea").get(url, headers={"If-None-Match": reply.headers["ETag"]}).status_code == 404


def test_the_progress_page_counts_what_was_done(ann: Any, browser: Browsers) -> None:
    accepted(ann, ann.image())
    progress = browser("res").get("datasets/cells/progress").json
    assert progress["masks"] == 1 and progress["images"] == {"total": 3, "done": 0, "skipped": 0, "open": 1}
    assert progress["active_seconds_per_mask"] == 2.4 and progress["clicks_per_mask"] == 1
    [line] = progress["by_model_version"]
    assert (line["model_version"], line["state"], line["masks"]) == ("small", "active", 1)
    assert progress["held_out_needed"] == 50 and "held-out" in progress["note"]


def test_a_dataset_is_shown_with_its_model(ann: Any) -> None:
    page = ann.get("datasets/cells").json
    assert page["model"]["name"] == "small" and page["categories"] == [] and page["guideline"] == ""
    assert ann.get("datasets/nothing").status_code == 404


@pytest.mark.parametrize("state", ["failed", "done"])
def test_a_failed_job_is_asked_for_again_by_hand(browser: Browsers, furnished: Workspace, state: str) -> None:
    with furnished.write() as session:
        job_id = ask(session, "embed", {}, "test").id
        session.execute(update(Job).values(state=state, reason="out of memory"))
    reply = browser("res").post(f"jobs/{job_id}/retry")
    expected = (200, "queued") if state == "failed" else (409, None)
    assert (reply.status_code, reply.json.get("state")) == expected
    assert browser("adm").post("jobs/999/retry").status_code == 404
