"""The headers of every kind of response, and the description of the API."""

import json
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from apiflask import APIFlask

from annotator_ui.api import pages
from annotator_ui.security import HEADERS, own_hosts

Browsers = Callable[..., Any]
ASKED = {
    "page": ("GET", "/"),
    "labelling page": ("GET", "/label/cells"),
    "health": ("GET", "/healthz"),
    "readiness": ("GET", "/readyz"),
    "answer": ("GET", "/api/v1/me"),
    "image": ("GET", "/api/v1/images/1/pixels"),
    "unknown address": ("GET", "/nothing"),
    "unknown row": ("GET", "/api/v1/assignments/999"),
    "wrong method": ("DELETE", "/api/v1/me"),
    "forbidden": ("POST", "/api/v1/jobs/1/retry"),
    "bad body": ("POST", "/api/v1/sign-in"),
    "missing asset": ("GET", "/static/assets/nothing.js"),
}


@pytest.mark.parametrize("kind", ASKED)
def test_every_response_carries_the_security_headers(ann: Any, kind: str) -> None:
    method, path = ASKED[kind]
    ann.image()
    reply = ann.client.open(path, method=method, json={} if method == "POST" else None)
    for name, value in HEADERS.items():
        assert reply.headers[name] == value
    assert "Cookie" in reply.headers["Vary"]
    assert "Strict-Transport-Security" not in reply.headers
    assert "Access-Control-Allow-Origin" not in reply.headers
    private = path.startswith("/api/") and kind != "image"
    assert not private or reply.headers["Cache-Control"] == "no-store"


def test_the_content_policy_lets_nothing_inline_run() -> None:
    policy = HEADERS["Content-Security-Policy"]
    assert "unsafe-inline" not in policy and "unsafe-eval'" not in policy.replace("'wasm-unsafe-eval'", "")
    assert policy.startswith("default-src 'none'") and "frame-ancestors 'none'" in policy


@pytest.fixture
def built_page(tmp_path: Any) -> Iterator[None]:
    """A built page in the place of the real one, which the checkout may not have."""
    real, pages.STATIC = pages.STATIC, tmp_path / "static"
    (pages.STATIC / "assets").mkdir(parents=True)
    (pages.STATIC / "index.html").write_text("<!doctype html><title>Maskloop</title>")
    (pages.STATIC / "assets" / "main-abc123.js").write_text("export {};")
    (pages.STATIC / "icon.svg").write_text("<svg xmlns='http://www.w3.org/2000/svg'/>")
    (pages.STATIC / ".source-hash").write_text("abc")
    yield
    pages.STATIC = real


@pytest.mark.usefixtures("built_page")
def test_the_page_is_one_document_and_its_hashed_files_are_kept_for_ever(browser: Browsers) -> None:
    stranger = browser()
    for path in ("/", "/sign-in", "/label/cells", "/progress/cells"):
        page = stranger.get(path)
        assert page.status_code == 200 and page.mimetype == "text/html"
        assert page.headers["Cache-Control"] == "no-cache"
    script = stranger.get("/static/assets/main-abc123.js")
    assert script.mimetype == "text/javascript"
    assert script.headers["Cache-Control"] == "public, max-age=31536000, immutable"
    assert stranger.get("/static/icon.svg").headers["Cache-Control"] == "no-cache"
    assert stranger.get("/static/.source-hash").status_code == 404
    assert stranger.get("/static/index.html").status_code == 404


def test_a_page_that_is_not_built_says_which_command_builds_it(browser: Browsers, tmp_path: Any) -> None:
    real, pages.STATIC = pages.STATIC, tmp_path
    try:
        reply = browser().get("/")
    finally:
        pages.STATIC = real
    assert reply.status_code == 503 and "make install" in reply.text


def test_the_api_describes_itself_and_every_reference_resolves(app: APIFlask, ann: Any) -> None:
    document = ann.get("openapi.json").json
    assert document["openapi"].startswith("3.")
    described = set(document["paths"])
    ours = {rule.rule for rule in app.url_map.iter_rules() if rule.rule.startswith("/api/v1")}
    for converter in ("row:", "printable:"):
        ours = {rule.replace(f"<{converter}", "{").replace(">", "}") for rule in ours}
    assert described >= ours - {"/api/v1/openapi.json"}
    for reference in references(document):
        place: Any = document
        for step in reference.removeprefix("#/").split("/"):
            place = place[step]
    assert "Traceback" not in json.dumps(document)


def references(node: Any) -> Iterator[str]:
    """Every $ref below `node`."""
    if isinstance(node, dict):
        if isinstance(node.get("$ref"), str):
            yield node["$ref"]
        for inner in node.values():
            yield from references(inner)
    elif isinstance(node, list):
        for inner in node:
            yield from references(inner)


def test_the_hosts_answered_to_are_this_machines_own() -> None:
    assert own_hosts("127.0.0.1") == ["127.0.0.1", "localhost", "[::1]"]
