"""Who may do what: a walk over the route table, and the checks that stand before every view."""

from collections.abc import Callable
from typing import Any

import pytest
from apiflask import APIFlask
from flask import Flask

from annotator_ui.auth import EVERYBODY, policy, policy_of, public, require_policies

Browsers = Callable[..., Any]
PUBLIC = {"/", "/sign-in", "/label/<printable:name>", "/progress/<printable:name>", "/static/<path:name>"}
PUBLIC |= {"/healthz", "/readyz", "/api/v1/sign-in", "/api/v1/sign-in-link"}
# For monitoring programs, not for people: tests/annotator_ui/test_metrics.py.
MONITORED = {"/metrics"}
AFAR = {"REMOTE_ADDR": "192.0.2.7"}
RUNNING = {("POST", "/api/v1/jobs/<row:job_id>/retry"), ("DELETE", "/api/v1/schedules/<row:schedule_id>")}
RUNNING |= {("POST", "/api/v1/datasets/<printable:name>/schedules")}
ANNOTATING = "/assignments"
SOMEBODY = {"ann": "annotator", "rev": "reviewer", "res": "researcher", "adm": "admin"}


def routes(app: APIFlask) -> list[tuple[str, str, str]]:
    """(method, rule, endpoint) of every route."""
    found = []
    for rule in app.url_map.iter_rules():
        method = next(iter((rule.methods or set()) - {"HEAD", "OPTIONS"}))
        found.append((method, rule.rule, rule.endpoint))
    return sorted(found)


def filled(rule: str) -> str:
    """An address of the rule; its ids are of nothing."""
    parts = rule.replace("<printable:name>", "cells").replace("<path:name>", "nothing.js")
    for name in ("assignment_id", "image_id", "job_id", "schedule_id"):
        parts = parts.replace(f"<row:{name}>", "999")
    return parts


def expected_roles(method: str, rule: str) -> frozenset[str] | None:
    if rule in PUBLIC:
        return None
    if rule in MONITORED:
        return frozenset({"monitor"})
    if (method, rule) in RUNNING:
        return frozenset({"researcher", "admin"})
    return frozenset({"annotator", "reviewer", "admin"}) if ANNOTATING in rule else frozenset(EVERYBODY)


def test_every_route_declares_the_policy_written_here(app: APIFlask) -> None:
    for method, rule, endpoint in routes(app):
        assert policy_of(app, endpoint) == expected_roles(method, rule), rule


def test_a_stranger_reaches_nothing_but_sign_in_health_and_the_page(app: APIFlask, browser: Browsers) -> None:
    for method, rule, _ in routes(app):
        body = {} if method == "POST" else None
        reply = browser().client.open(filled(rule), method=method, json=body, environ_base=AFAR)
        assert (reply.status_code == 401) == (rule not in PUBLIC), (rule, reply.status_code)
        assert rule in PUBLIC or reply.mimetype == "application/problem+json"


@pytest.mark.parametrize("name", SOMEBODY)
def test_a_role_gets_403_exactly_where_its_policy_does_not_name_it(
    app: APIFlask, browser: Browsers, name: str
) -> None:
    somebody = browser(name)
    for method, rule, endpoint in routes(app):
        roles = policy_of(app, endpoint)
        if roles is None or rule in MONITORED or endpoint.endswith("sign_out"):
            continue
        request = {"json": {}, "headers": {"X-CSRF-Token": somebody.csrf_token}} if method != "GET" else {}
        reply = somebody.client.open(filled(rule), method=method, **request)
        assert (reply.status_code == 403) == (SOMEBODY[name] not in roles), (rule, reply.text)


def test_no_unsafe_route_works_without_its_csrf_token(app: APIFlask, browser: Browsers) -> None:
    admin = browser("adm")
    for method, rule, endpoint in routes(app):
        if method == "GET" or policy_of(app, endpoint) is None:
            continue
        for token in ({}, {"X-CSRF-Token": "guess"}, {"X-CSRF-Token": "\u00e9"}):
            reply = admin.client.open(filled(rule), method=method, json={}, headers=token)
            assert reply.status_code == 403 and "X-CSRF-Token" in reply.json["detail"], rule


@pytest.mark.parametrize(
    "headers",
    [
        {"Origin": "https://evil.example"},
        {"Origin": "null"},
        {"Sec-Fetch-Site": "cross-site"},
        {"Sec-Fetch-Site": "same-site"},
    ],
)
def test_an_unsafe_request_from_another_site_is_refused_even_with_the_token(
    browser: Browsers, headers: dict[str, str]
) -> None:
    ann = browser("ann")
    assert ann.send("datasets/cells/assignments", json={}, headers=headers).status_code == 403
    assert ann.send("sign-in", json={"name": "ann", "password": "x"}, headers=headers).status_code == 403


def test_an_unsafe_request_of_the_own_page_passes(browser: Browsers) -> None:
    own = {"Origin": "http://localhost", "Sec-Fetch-Site": "same-origin"}
    assert browser("ann").send("datasets/cells/assignments", json={}, headers=own).status_code == 200


def test_no_get_changes_anything(app: APIFlask) -> None:
    assert {method for method, _, _ in routes(app)} == {"GET", "POST", "DELETE"}


def test_an_app_with_an_undeclared_route_does_not_start() -> None:
    app = Flask("bare", static_folder=None)
    app.add_url_rule("/open", view_func=public(lambda: "open"))
    require_policies(app)
    app.add_url_rule("/undeclared", "undeclared", lambda: "oops")
    with pytest.raises(RuntimeError, match="/undeclared declares no policy"):
        require_policies(app)


def test_a_view_answers_one_method_so_that_its_policy_is_of_that_method() -> None:
    app = Flask("bare", static_folder=None)
    app.add_url_rule("/both", view_func=policy("admin")(lambda: ""), methods=["GET", "POST"], endpoint="both")
    with pytest.raises(RuntimeError, match="several methods"):
        require_policies(app)
    with pytest.raises(ValueError, match="root"):
        policy("root")


def test_a_strange_host_name_is_refused(browser: Browsers) -> None:
    reply = browser().client.get("/healthz", base_url="http://evil.example")
    assert reply.status_code == 400
    assert reply.mimetype == "application/problem+json"
