"""When a dataset's model is retrained by itself: seen by everybody, changed by who runs things."""

from typing import Any

from apiflask import APIBlueprint

from annotator_ui import wire_schedules
from annotator_ui.app import workspace
from annotator_ui.auth import EVERYBODY, RUNNING, person, policy
from engine.pipeline import access, schedule

blueprint = APIBlueprint("schedules", __name__, url_prefix="/api/v1")


@blueprint.get("/datasets/<printable:name>/schedules")
@blueprint.output(wire_schedules.ScheduleList)
@policy(*EVERYBODY)
def list_schedules(name: str) -> dict[str, Any]:
    """Every schedule with its next due time and what became of the last ones."""
    with workspace().read() as session:
        return {"schedules": schedule.schedule_views(session, access.dataset(session, name))}


@blueprint.post("/datasets/<printable:name>/schedules")
@blueprint.input(wire_schedules.NewSchedule)
@blueprint.output(wire_schedules.Schedule, status_code=201)
@policy(*RUNNING)
def add_schedule(name: str, json_data: wire_schedules.NewSchedule) -> dict[str, Any]:
    """A schedule that counts from now on."""
    with workspace().write() as session:
        dataset = access.dataset(session, name)
        made = schedule.add_schedule(session, dataset.id, **json_data.model_dump(), user_id=person().id)
        return schedule.schedule_view(session, made, made.created_at)


@blueprint.delete("/schedules/<row:schedule_id>")
@blueprint.output(wire_schedules.RemovedSchedule)
@policy(*RUNNING)
def remove_schedule(schedule_id: int) -> dict[str, Any]:
    """Starts nothing more by it; a round in progress goes on."""
    with workspace().write() as session:
        schedule.remove_schedule(session, schedule_id, person().id)
    return {"id": schedule_id, "removed": True}
