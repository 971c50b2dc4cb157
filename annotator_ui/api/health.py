"""Whether the process lives, whether it can serve, and the description of the API."""

from importlib.metadata import PackageNotFoundError, version
from typing import cast

from apiflask import APIBlueprint, APIFlask
from flask import Response, current_app, json

from annotator_ui import wire
from annotator_ui.app import workspace
from annotator_ui.auth import EVERYBODY, policy, public
from engine.errors import Unavailable

blueprint = APIBlueprint("health", __name__)


@blueprint.get("/healthz")
@blueprint.output(wire.Health)
@public
def healthz() -> dict[str, str]:
    """The process answers."""
    try:
        return {"status": "ok", "version": version("maskloop")}
    except PackageNotFoundError:
        return {"status": "ok", "version": "unknown"}


@blueprint.get("/readyz")
@blueprint.output(wire.Ready)
@public
def readyz() -> Response | dict[str, str]:
    """Database and files answer; 503 says which does not, without saying where they are."""
    state = {"database": _state_of_database(), "files": _state_of_files()}
    if set(state.values()) == {"ok"}:
        return state
    return Response(json.dumps(state), 503, mimetype="application/json")


@blueprint.get("/api/v1/openapi.json")
@blueprint.doc(hide=True)
@policy(*EVERYBODY)
def openapi() -> Response:
    """The OpenAPI document of every view."""
    return Response(json.dumps(cast(APIFlask, current_app).spec), mimetype="application/json")


def _state_of_database() -> str:
    try:
        with workspace().read() as session:
            session.connection()
        return "ok"
    except Unavailable:
        return "unavailable"


def _state_of_files() -> str:
    try:
        workspace().blobs.exists("0" * 64)
        return "ok"
    except Unavailable:
        return "unavailable"
