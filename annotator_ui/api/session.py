"""Signing in by password or one-time link, signing out, and the person's own account."""

from typing import Any

from apiflask import APIBlueprint
from flask import abort, after_this_request

from annotator_ui import auth, wire
from annotator_ui.app import workspace
from annotator_ui.auth import EVERYBODY, policy, public
from annotator_ui.sign_in_limit import count_attempt
from engine.errors import Refused
from engine.pipeline import accounts

blueprint = APIBlueprint("session", __name__, url_prefix="/api/v1")


@blueprint.post("/sign-in")
@blueprint.input(wire.SignIn)
@blueprint.output(wire.SignedIn)
@public
def sign_in(json_data: wire.SignIn) -> dict[str, object]:
    """Signs in by name and password."""
    count_attempt(json_data.name.strip())
    with workspace().read() as session:
        user = accounts.check_password(session, json_data.name, json_data.password)
    if user is None:
        abort(401, "name and password do not belong together: try again")
    with workspace().write() as session:
        return _begin(session, user, json_data.password)


@blueprint.post("/sign-in-link")
@blueprint.input(wire.SignInLink)
@blueprint.output(wire.SignedIn)
@public
def sign_in_by_link(json_data: wire.SignInLink) -> dict[str, object]:
    """Signs in by a one-time link's token, and uses it up."""
    count_attempt(None)
    with workspace().write() as session:
        user = accounts.redeem_link(session, json_data.token)
        if user is not None:
            return _begin(session, user, None)
    abort(401, "this link was used already or has run out: ask for a new one")


@blueprint.post("/sign-out")
@blueprint.output({}, status_code=204)
@policy(*EVERYBODY)
def sign_out() -> str:
    """Ends this session."""
    with workspace().write() as session:
        accounts.close_session(session, auth.cookie())
    after_this_request(auth.take_cookie)
    return ""


@blueprint.get("/me")
@blueprint.output(wire.SignedIn)
@policy(*EVERYBODY)
def me() -> dict[str, object]:
    """Who is signed in, and the token that unsafe requests must carry."""
    return _signed_in(auth.person())


@blueprint.post("/me/password")
@blueprint.input(wire.NewPassword)
@blueprint.output({}, status_code=204)
@policy(*EVERYBODY)
def change_password(json_data: wire.NewPassword) -> str:
    """Changes the person's password; their other sessions end."""
    person = auth.person()
    count_attempt(person.name)
    with workspace().read() as session:
        if accounts.check_password(session, person.name, json_data.old) is None:
            raise Refused("the old password is not right: try again")
    with workspace().write() as session:
        accounts.set_password(session, person.id, json_data.new, keep=auth.cookie())
    return ""


def _begin(session: Any, user: Any, password: str | None) -> dict[str, object]:
    # A session that was open in this browser ends, so the id is always a fresh one.
    accounts.close_session(session, auth.cookie())
    value, row = accounts.open_session(session, workspace().settings, user.id, password=password)
    after_this_request(lambda response: auth.give_cookie(response, value))
    return _signed_in(auth.Person(user.id, user.name, user.role, row.csrf_token))


def _signed_in(person: auth.Person) -> dict[str, object]:
    user = {"id": person.id, "name": person.name, "role": person.role}
    return {"user": user, "csrf_token": person.csrf_token}
