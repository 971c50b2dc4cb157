"""Every request seen once: an id that travels with it, one line in the log, one count for the metrics."""

import logging
import re
import secrets
import time

from flask import Flask, Response, current_app, g, request
from prometheus_client import CollectorRegistry, Counter, Histogram

from engine import logs

logger = logging.getLogger("annotator_ui.requests")

# A proxy's id is kept if it is one word; anything else could forge lines of the log.
REQUEST_ID = re.compile(r"[A-Za-z0-9._:-]{1,64}")
LATENCIES_S = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0)


class Requests:
    """The counters of one app. Labels are the route's pattern, not the address: ids have no end."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        labels = ("method", "route")
        self._answered = Counter(
            "maskloop_http_requests",
            "Requests answered by this process.",
            (*labels, "status"),
            registry=self.registry,
        )
        self._seconds = Histogram(
            "maskloop_http_request_seconds",
            "Time from the request's arrival in the app to its answer.",
            labels,
            buckets=LATENCIES_S,
            registry=self.registry,
        )

    def count(self, method: str, route: str, status: int, seconds: float) -> None:
        """One answered request."""
        self._answered.labels(method, route, str(status)).inc()
        self._seconds.labels(method, route).observe(seconds)


def observe(app: Flask) -> None:
    """Hangs the three onto `app`; register it first, so that refused requests are seen as well."""
    app.extensions["requests"] = Requests()
    app.before_request(_begin)
    app.after_request(_end)
    app.teardown_request(_forget)


def requests_seen() -> Requests:
    """The counters of the app that answers the request in hand."""
    seen: Requests = current_app.extensions["requests"]
    return seen


def _begin() -> None:
    g.began = time.perf_counter()
    given = request.headers.get("X-Request-ID", "")
    g.request_id = given if REQUEST_ID.fullmatch(given) else secrets.token_hex(8)
    logs.rebind(request_id=g.request_id)


def _end(response: Response) -> Response:
    seconds = time.perf_counter() - g.began
    response.headers["X-Request-ID"] = g.request_id
    route = request.url_rule.rule if request.url_rule is not None else "unknown"
    # Any word may stand where the method does.
    method = request.method if request.method in ("GET", "HEAD", "POST", "OPTIONS") else "other"
    requests_seen().count(method, route, response.status_code, seconds)
    person = g.get("person")
    about = {"method": method, "path": request.path, "status": response.status_code}
    about |= {"duration_ms": round(seconds * 1000, 1)} | ({"user_id": person.id} if person else {})
    logger.info("%s %s: %d", method, request.path, response.status_code, extra={"about": about})
    return response


def _forget(_error: BaseException | None) -> None:
    """What the thread says next belongs to no request."""
    logs.rebind()
