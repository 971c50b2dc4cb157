"""The headers, hosts and body limits of every response (docs: RELIABILITY section 8)."""

from flask import Flask, Response, abort, request

from engine.config import Settings

CONTENT_SECURITY_POLICY = "; ".join(
    (
        "default-src 'none'",
        "script-src 'self' 'wasm-unsafe-eval'",
        "worker-src 'self'",
        "style-src 'self'",
        "img-src 'self' blob:",
        "connect-src 'self'",
        "font-src 'self'",
        "base-uri 'none'",
        "object-src 'none'",
        "form-action 'self'",
        "frame-ancestors 'none'",
        "require-trusted-types-for 'script'",
        "trusted-types maskloop",
    )
)
POWERS = "accelerometer camera display-capture geolocation gyroscope magnetometer microphone midi payment usb"
# Isolation is on every page and not only on the labelling one: the page routes on its own, so whichever
# document came first decides whether wasm may use threads.
HEADERS = {
    "Content-Security-Policy": CONTENT_SECURITY_POLICY,
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Embedder-Policy": "require-corp",
    "Cross-Origin-Resource-Policy": "same-origin",
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "same-origin",
    "Permissions-Policy": ", ".join(f"{power}=()" for power in POWERS.split()),
}
HSTS = "max-age=31536000"


def secure(app: Flask, settings: Settings) -> None:
    """Sets limits and trusted hosts on `app` and puts the headers on everything it answers."""
    web = settings.web
    app.config["MAX_CONTENT_LENGTH"] = web.max_body_mb * 1_000_000
    app.config["MAX_FORM_PARTS"] = 20
    app.config["TRUSTED_HOSTS"] = list(web.trusted_hosts) or own_hosts(web.host)
    app.before_request(refuse_large_or_foreign_bodies)

    def add_headers(response: Response) -> Response:
        response.headers.update(HEADERS)
        if web.tls:
            response.headers["Strict-Transport-Security"] = HSTS
        # A view that may be cached says so itself; all else is private.
        response.headers.setdefault("Cache-Control", "no-store")
        response.vary.add("Cookie")
        return response

    app.after_request(add_headers)


def own_hosts(host: str) -> list[str]:
    """The names a browser on this machine uses for it, and the address served on."""
    return [*dict.fromkeys((host, "localhost", "127.0.0.1", "[::1]"))]


def refuse_large_or_foreign_bodies() -> None:
    """413 by the announced length, before anything is read; 415 for bodies that are not JSON."""
    limit = request.max_content_length
    if limit is not None and (request.content_length or 0) > limit:
        abort(413, f"the request is larger than {limit // 1_000_000} MB: send less at once")
    if request.content_length and request.mimetype != "application/json":
        abort(415, "send JSON with Content-Type: application/json")
