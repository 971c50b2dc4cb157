"""The application factory. Nothing is opened by importing this module, and torch is never loaded by it."""

from apiflask import APIFlask
from flask import current_app

from annotator_ui import addresses, auth, observing, problems, security, sign_in_limit
from annotator_ui.wire_json import StrictJson
from engine.config import Settings
from engine.store.session import Workspace, open_workspace

__all__ = ["Workspace", "create_app", "workspace"]


def create_app(source: Workspace | Settings) -> APIFlask:
    """The web app of one home: `source` is its open workspace, or the settings to open one from.

    Raises Unavailable or BadInput, as `open_workspace` does, and RuntimeError for a route without a policy.
    """
    from annotator_ui.api import BLUEPRINTS  # here, because the views import `workspace` from this module

    workspace = open_workspace(source, bound_statements=True) if isinstance(source, Settings) else source
    app = APIFlask(
        "annotator_ui",
        "Maskloop",
        "1",
        spec_path=None,
        docs_path=None,
        static_folder=None,  # type: ignore[arg-type]  # Flask takes None, APIFlask's hint does not say so
    )
    app.json = StrictJson(app)
    app.extensions["maskloop"] = workspace
    observing.observe(app)
    addresses.read_addresses(app)
    problems.answer_problems(app)
    security.secure(app, workspace.settings)
    sign_in_limit.count_sign_ins(app, workspace.settings)
    auth.guard(app, workspace)
    for blueprint in BLUEPRINTS:
        app.register_blueprint(blueprint)
    auth.require_policies(app)
    return app


def workspace() -> Workspace:
    """The workspace of the app that answers the request in hand."""
    found: Workspace = current_app.extensions["maskloop"]
    return found
