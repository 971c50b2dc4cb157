"""Who asks, and whether they may: every route declares its policy, and what is undeclared is refused.

A sign-in session is a row and the cookie a random id. flask-login is not used: its session is a signed
cookie, which the server cannot end.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypeVar

from flask import Flask, Response, abort, current_app, g, request

from engine.config import Settings
from engine.pipeline import accounts

if TYPE_CHECKING:
    from annotator_ui.app import Workspace

View = TypeVar("View", bound=Callable[..., Any])

ANNOTATING = ("annotator", "reviewer", "admin")
RUNNING = ("researcher", "admin")
EVERYBODY = ("annotator", "reviewer", "researcher", "admin")
# No role of people: a monitoring program, which signs in nowhere.
MONITOR = frozenset({"monitor"})
LOOPBACK = frozenset({"127.0.0.1", "::1"})
# What a proxy adds; then the peer's address says nothing about who asks.
FORWARDED = ("Forwarded", "X-Forwarded-For", "X-Forwarded-Host", "X-Forwarded-Proto", "X-Real-IP", "Via")
SAFE_METHODS = frozenset({"GET", "HEAD", "OPTIONS"})


@dataclass(frozen=True)
class Person:
    """Whoever is signed in, for the length of one request."""

    id: int
    name: str
    role: str
    csrf_token: str


def policy(*roles: str) -> Callable[[View], View]:
    """Declares which roles may use a view."""
    unknown = set(roles) - set(EVERYBODY)
    if unknown or not roles:
        raise ValueError(f"a policy names roles of {EVERYBODY}, not {sorted(unknown)}")

    def declare(view: View) -> View:
        view.__dict__["policy"] = frozenset(roles)
        return view

    return declare


def public(view: View) -> View:
    """Declares that anybody may use a view: sign-in, health, the page's own files."""
    view.__dict__["policy"] = None
    return view


def monitors(view: View) -> View:
    """Declares that a monitoring program may use a view: one with `web.metrics_token`, or on this machine."""
    view.__dict__["policy"] = MONITOR
    return view


def policy_of(app: Flask, endpoint: str) -> frozenset[str] | None:
    """The roles of an endpoint, None for a public one; KeyError when it declared nothing."""
    roles: frozenset[str] | None = app.view_functions[endpoint].__dict__["policy"]
    return roles


def require_policies(app: Flask) -> None:
    """Refuses to start an app with a route that declares no policy or answers several methods by one view."""
    for rule in app.url_map.iter_rules():
        if "policy" not in app.view_functions[rule.endpoint].__dict__:
            raise RuntimeError(f"{rule.rule} declares no policy: add @policy(...) or @public to its view")
        if len((rule.methods or set()) - {"HEAD", "OPTIONS"}) != 1:
            raise RuntimeError(f"{rule.rule} answers several methods by one view: write one view per method")


def guard(app: Flask, workspace: "Workspace") -> None:
    """Puts the gate before every view of `app`."""

    def gate() -> None:
        if request.routing_exception is not None or request.endpoint is None:
            return
        roles = app.view_functions[request.endpoint].__dict__.get("policy", frozenset())
        unsafe = request.method not in SAFE_METHODS
        if unsafe and not _from_own_page(workspace.settings):
            abort(403, "this request came from another site: use Maskloop's own page")
        if roles is None:
            return
        if roles == MONITOR:
            if not _is_monitor(workspace.settings):
                abort(401, "send the web.metrics_token of the settings as Authorization: Bearer TOKEN")
            return
        found = _signed_in(workspace)
        if found is None:
            abort(401, "sign in first: nobody is signed in, or the session has ended")
        if found.role not in roles:
            abort(403, f"the role {found.role} may not do this: ask an administrator")
        given = request.headers.get("X-CSRF-Token", "")
        if unsafe and not accounts.same_token(given, found.csrf_token):
            abort(403, "the X-CSRF-Token header is missing or old: reload the page")
        g.person = found

    app.before_request(gate)


def person() -> Person:
    """Whoever the gate let in; only views with a policy may ask."""
    found: Person = g.person
    return found


def cookie_name(settings: Settings) -> str:
    """Browsers keep cookies by host and not by port, so two installations on one machine need two names."""
    return "__Host-maskloop" if settings.web.tls else f"maskloop_{settings.web.port}"


def cookie() -> str:
    """The session cookie as the browser sent it, or an empty string."""
    return request.cookies.get(cookie_name(_settings()), "")


def give_cookie(response: Response, value: str) -> Response:
    """Sets the session cookie: not for scripts, not for other sites, under TLS only over TLS."""
    web = _settings().web
    response.set_cookie(
        cookie_name(_settings()),
        value,
        max_age=int(web.session_absolute_s),
        path="/",
        httponly=True,
        secure=web.tls,
        samesite="Lax",
    )
    return response


def take_cookie(response: Response) -> Response:
    """Removes the session cookie."""
    secure = _settings().web.tls
    response.delete_cookie(cookie_name(_settings()), path="/", httponly=True, secure=secure, samesite="Lax")
    return response


def _signed_in(workspace: "Workspace") -> Person | None:
    value = request.cookies.get(cookie_name(workspace.settings), "")
    if not value:
        return None
    with workspace.read() as session:
        found = accounts.session_user(session, workspace.settings, value)
    if found is None:
        return None
    user, row = found
    if accounts.touch_due(workspace.settings, row):
        with workspace.write() as session:
            accounts.touch_session(session, row.id_sha256)
    return Person(user.id, user.name, user.role, row.csrf_token)


def _is_monitor(settings: Settings) -> bool:
    """The token's bearer; else a direct request of this machine, which behind a proxy all seem to be."""
    if "Authorization" in request.headers:
        kind, _, given = request.headers["Authorization"].partition(" ")
        wanted = settings.web.metrics_token
        return bool(wanted) and kind.lower() == "bearer" and accounts.same_token(given, wanted)
    direct = not settings.web.tls and not any(name in request.headers for name in FORWARDED)
    return direct and request.remote_addr in LOOPBACK


def _from_own_page(settings: Settings) -> bool:
    """Browsers say where a request comes from; a program that says nothing still needs the CSRF token."""
    site = request.headers.get("Sec-Fetch-Site")
    if site is not None and site != "same-origin":
        return False
    origin = request.headers.get("Origin")
    scheme = "https" if settings.web.tls else request.scheme
    return origin is None or origin == f"{scheme}://{request.host}"


def _settings() -> Settings:
    settings: Settings = current_app.extensions["maskloop"].settings
    return settings
