"""Failed work, asked for again by hand."""

from typing import Any

from apiflask import APIBlueprint

from annotator_ui import wire
from annotator_ui.app import workspace
from annotator_ui.auth import RUNNING, person, policy
from engine.pipeline import access

blueprint = APIBlueprint("jobs", __name__, url_prefix="/api/v1")


@blueprint.post("/jobs/<row:job_id>/retry")
@blueprint.input(wire.Nothing)
@blueprint.output(wire.State)
@policy(*RUNNING)
def retry(job_id: int, json_data: wire.Nothing) -> dict[str, Any]:
    """Queues a failed job again; a worker's tick finds it."""
    with workspace().write() as session:
        return {"state": access.retry_job(session, job_id, person().id)}
