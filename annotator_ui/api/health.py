"""Whether the process lives, whether it can serve, and the description of the API."""

import threading
import time
from importlib.metadata import PackageNotFoundError, version
from typing import cast

from apiflask import APIBlueprint, APIFlask
from flask import Response, current_app, json

from annotator_ui import wire
from annotator_ui.app import Workspace, workspace
from annotator_ui.auth import EVERYBODY, policy, public
from engine.pipeline import health

blueprint = APIBlueprint("health", __name__)

KEPT_S = 1.0


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
    """Database, files, disk, tick and jobs, "ok" or a sentence each without addresses; 503 unless all are."""
    kept: _Readiness = current_app.extensions.setdefault("readiness", _Readiness(workspace()))
    state = kept.state()
    if set(state.values()) == {"ok"}:
        return state
    return Response(json.dumps(state), 503, mimetype="application/json")


@blueprint.get("/api/v1/openapi.json")
@blueprint.doc(hide=True)
@policy(*EVERYBODY)
def openapi() -> Response:
    """The OpenAPI document of every view."""
    return Response(json.dumps(cast(APIFlask, current_app).spec), mimetype="application/json")


class _Readiness:
    """The last answer, kept a moment: anybody may ask, and asking writes a file."""

    def __init__(self, workspace: Workspace) -> None:
        self._workspace = workspace
        self._lock = threading.Lock()
        self._asked_at = float("-inf")
        self._state: dict[str, str] = {}

    def state(self) -> dict[str, str]:
        with self._lock:
            if time.monotonic() - self._asked_at > KEPT_S:
                self._state = {check.name: check.answer for check in health.readiness(self._workspace)}
                self._asked_at = time.monotonic()
            return self._state
