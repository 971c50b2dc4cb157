"""What there is to annotate, and how far it is."""

from typing import Any

from apiflask import APIBlueprint

from annotator_ui import wire
from annotator_ui.app import workspace
from annotator_ui.auth import EVERYBODY, policy
from engine.pipeline import access, report

blueprint = APIBlueprint("datasets", __name__, url_prefix="/api/v1")


@blueprint.get("/datasets")
@blueprint.output(wire.DatasetList)
@policy(*EVERYBODY)
def list_datasets() -> dict[str, Any]:
    """Every dataset with its counts."""
    with workspace().read() as session:
        return {"datasets": report.datasets(session)}


@blueprint.get("/datasets/<printable:name>")
@blueprint.output(wire.DatasetPage)
@policy(*EVERYBODY)
def show(name: str) -> dict[str, Any]:
    """One dataset with its categories, guideline and active model."""
    with workspace().read() as session:
        return report.dataset_view(session, access.dataset(session, name))


@blueprint.get("/datasets/<printable:name>/progress")
@blueprint.output(wire.Progress)
@policy(*EVERYBODY)
def progress(name: str) -> dict[str, Any]:
    """Images, masks and seconds, by model version."""
    with workspace().read() as session:
        return report.progress(session, workspace().settings, access.dataset(session, name))
