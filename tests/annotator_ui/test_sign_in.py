"""Signing in and out through the real app: cookies, tokens, links, limits."""

from collections.abc import Callable
from datetime import timedelta
from typing import Any

import pytest
from apiflask import APIFlask
from sqlalchemy import select, update

from annotator_ui.app import create_app
from engine.config import load_settings
from engine.pipeline import accounts
from engine.store.base import utc_now
from engine.store.session import Workspace, open_workspace
from engine.store.users import SignInSession, User

Browsers = Callable[..., Any]
PASSWORD = "a long enough password"


def user_id(workspace: Workspace, name: str) -> int:
    with workspace.read() as session:
        return session.scalars(select(User.id).where(User.name == name)).one()


def test_signing_in_sets_a_cookie_scripts_and_other_sites_do_not_get(browser: Browsers) -> None:
    reply = browser().post("sign-in", name="ann", password=PASSWORD)
    cookie = reply.headers["Set-Cookie"]
    assert reply.status_code == 200
    assert reply.json["user"] == {"id": 1, "name": "ann", "role": "annotator"}
    assert "HttpOnly" in cookie and "SameSite=Lax" in cookie and "Path=/" in cookie
    assert reply.json["csrf_token"] not in cookie


def test_under_tls_the_cookie_is_a_secure_host_cookie(home: Any) -> None:
    workspace = open_workspace(load_settings(home, {"web": {"tls": True}}))
    client = create_app(workspace).test_client()
    body = {"name": "ann", "password": PASSWORD}
    reply = client.post("/api/v1/sign-in", json=body, base_url="https://localhost")
    assert reply.headers["Set-Cookie"].startswith("__Host-maskloop=")
    assert "Secure" in reply.headers["Set-Cookie"]
    assert reply.headers["Strict-Transport-Security"]
    workspace.close()


@pytest.mark.parametrize("given", [("ann", "wrong password!"), ("nobody", PASSWORD), ("robot", PASSWORD)])
def test_wrong_name_or_password_gets_one_and_the_same_sentence(
    browser: Browsers, given: tuple[str, str]
) -> None:
    name, password = given
    reply = browser().post("sign-in", name=name, password=password)
    assert reply.status_code == 401 and "Set-Cookie" not in reply.headers
    assert reply.json["detail"] == "name and password do not belong together: try again"


def test_me_says_who_is_there_and_a_stranger_gets_401(browser: Browsers) -> None:
    assert browser("rev").get("me").json["user"]["role"] == "reviewer"
    stranger = browser().get("me")
    assert stranger.status_code == 401 and "sign in" in stranger.json["detail"]


def test_signing_out_ends_the_session_on_the_server(browser: Browsers, app: APIFlask) -> None:
    ann = browser("ann")
    cookie = ann.client.get_cookie("maskloop_8765")
    assert cookie is not None
    assert ann.post("sign-out").status_code == 204
    other = browser()
    other.client.set_cookie("maskloop_8765", cookie.value)
    assert other.get("me").status_code == 401


def test_signing_in_again_gives_a_fresh_id_and_ends_the_old(browser: Browsers, furnished: Workspace) -> None:
    ann = browser("ann")
    before = ann.client.get_cookie("maskloop_8765")
    ann.sign_in("ann")
    after = ann.client.get_cookie("maskloop_8765")
    assert before is not None and after is not None and before.value != after.value
    with furnished.read() as session:
        assert len(session.scalars(select(SignInSession.id_sha256)).all()) == 1


@pytest.mark.parametrize("column", ["last_seen_at", "expires_at"])
def test_an_idle_or_old_session_is_no_session(browser: Browsers, furnished: Workspace, column: str) -> None:
    ann = browser("ann")
    with furnished.write() as session:
        session.execute(update(SignInSession).values({column: utc_now() - timedelta(hours=2)}))
    assert ann.get("me").status_code == 401


def test_using_the_page_keeps_the_session_alive(browser: Browsers, furnished: Workspace) -> None:
    ann = browser("ann")
    then = utc_now() - timedelta(minutes=50)
    with furnished.write() as session:
        session.execute(update(SignInSession).values(last_seen_at=then))
    assert ann.get("me").status_code == 200
    with furnished.read() as session:
        assert session.scalars(select(SignInSession.last_seen_at)).one() > then


def test_a_link_signs_in_once(browser: Browsers, furnished: Workspace) -> None:
    with furnished.write() as session:
        token = accounts.make_link(session, user_id(furnished, "adm"))
    first, second = browser().post("sign-in-link", token=token), browser().post("sign-in-link", token=token)
    assert first.status_code == 200 and first.json["user"]["name"] == "adm"
    assert second.status_code == 401 and "used already" in second.json["detail"]


def test_a_change_of_password_needs_the_old_one_and_ends_other_sessions(browser: Browsers) -> None:
    here, there = browser("ann"), browser("ann")
    wrong = here.post("me/password", old="not this one at all", new="another long one")
    assert wrong.status_code == 403 and there.get("me").status_code == 200
    short = here.post("me/password", old=PASSWORD, new="short")
    assert short.status_code == 422 and "12" in short.json["detail"]
    assert here.post("me/password", old=PASSWORD, new="another long one").status_code == 204
    assert here.get("me").status_code == 200 and there.get("me").status_code == 401


def test_a_changed_role_ends_the_session(browser: Browsers, furnished: Workspace) -> None:
    ann = browser("ann")
    with furnished.write() as session:
        accounts.set_role(session, user_id(furnished, "ann"), "researcher")
    assert ann.get("me").status_code == 401


def test_attempts_are_limited_per_account(home: Any) -> None:
    with_limit = {"web": {"login_per_account": 3, "login_per_address": 100}}
    workspace = open_workspace(load_settings(home, with_limit))
    client = create_app(workspace).test_client()
    body = {"name": "ann", "password": "wrong password!"}
    codes = [client.post("/api/v1/sign-in", json=body).status_code for _ in range(4)]
    other = client.post("/api/v1/sign-in", json={"name": "bea", "password": PASSWORD})
    assert codes == [401, 401, 401, 429] and other.status_code == 200
    workspace.close()


def test_attempts_are_limited_per_address_over_passwords_and_links(home: Any) -> None:
    workspace = open_workspace(load_settings(home, {"web": {"login_per_address": 2}}))
    client = create_app(workspace).test_client()
    codes = [client.post("/api/v1/sign-in-link", json={"token": "x"}).status_code for _ in range(2)]
    last = client.post("/api/v1/sign-in", json={"name": "bea", "password": PASSWORD})
    assert codes == [401, 401] and last.status_code == 429
    assert last.headers["Retry-After"] == "60" and "wait a minute" in last.json["detail"]
    workspace.close()
