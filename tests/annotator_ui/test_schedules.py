"""Schedules over HTTP: everybody sees them, who runs things changes them."""

from collections.abc import Callable
from typing import Any

from sqlalchemy import select

from engine.store.events import Event
from engine.store.session import Workspace

Browsers = Callable[..., Any]
ADDRESS = "datasets/cells/schedules"


def remove(browser: Any, schedule_id: int) -> Any:
    return browser.client.delete(
        f"/api/v1/schedules/{schedule_id}", headers={"X-CSRF-Token": browser.csrf_token}
    )


def test_a_schedule_is_added_seen_by_everybody_and_removed(browser: Browsers, furnished: Workspace) -> None:
    researcher, annotator = browser("res"), browser("ann")
    added = researcher.post(ADDRESS, nightly_at="03:30", every_new_masks=5000)
    assert added.status_code == 201, added.text
    assert (added.json["masks_to_go"], added.json["runs"]) == (5000, [])
    assert "T03:30:00" in added.json["next_due_at"]
    (seen,) = annotator.get(ADDRESS).json["schedules"]
    assert seen == added.json
    assert annotator.post(ADDRESS, nightly_at="03:30").status_code == 403
    assert remove(annotator, seen["id"]).status_code == 403
    assert remove(researcher, seen["id"]).json == {"id": seen["id"], "removed": True}
    assert annotator.get(ADDRESS).json == {"schedules": []}
    assert remove(researcher, seen["id"]).status_code == 404
    with furnished.read() as session:
        told = session.scalars(
            select(Event).where(Event.kind.startswith("schedule.")).order_by(Event.id)
        ).all()
    assert [event.kind for event in told] == ["schedule.added", "schedule.removed"]
    assert all(event.actor_id is not None for event in told)


def test_a_schedule_that_cannot_be_is_refused_in_a_sentence(browser: Browsers) -> None:
    researcher = browser("res")
    assert "nightly" in researcher.post(ADDRESS).json["detail"]
    assert "HH:MM" in researcher.post(ADDRESS, nightly_at="25:00").json["detail"]
    for body in ({"every_new_masks": 0}, {"every_new_masks": "9"}, {"weekly": True}):
        assert researcher.post(ADDRESS, **body).status_code == 422, body
    assert researcher.post("datasets/none/schedules", nightly_at="02:00").status_code == 404
