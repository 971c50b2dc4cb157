"""Every failure as problem+json (RFC 9457): a status, a sentence for people, never a trace."""

import logging
import secrets
from http import HTTPStatus
from typing import Any

from apiflask import APIFlask, HTTPError
from flask import Response, json
from werkzeug.exceptions import HTTPException

from engine.errors import BadInput, Conflict, MaskloopError, NotFound, Refused, Unavailable

STATUS: dict[type[MaskloopError], int] = {
    BadInput: 422,
    NotFound: 404,
    Conflict: 409,
    Refused: 403,
    Unavailable: 503,
}
SENTENCES = {
    404: "there is nothing at this address",
    405: "this address does not answer that method",
    400: "the request could not be read: send well-formed JSON",
    413: "the request is too large: send less at once",
}
logger = logging.getLogger(__name__)


def problem(status: int, detail: str, errors: dict[str, list[str]] | None = None) -> Response:
    """The one shape of an error; `errors` maps a field's path to what is wrong with it."""
    body: dict[str, Any] = {"type": "about:blank", "title": HTTPStatus(status).phrase, "status": status}
    body |= {"detail": detail} | ({"errors": errors} if errors else {})
    response = Response(json.dumps(body), status, mimetype="application/problem+json")
    if status in (429, 503):
        response.headers["Retry-After"] = "60" if status == 429 else "2"
    return response


def answer_problems(app: APIFlask) -> None:
    """Registers the shape for everything a view, the framework or the gate can raise."""
    app.register_error_handler(MaskloopError, _domain)
    app.register_error_handler(HTTPException, _http)
    app.register_error_handler(Exception, _unexpected)
    app.error_processor(_framework)
    # The line above also claims werkzeug's errors for APIFlask's shape; ours knows their sentences.
    app.register_error_handler(HTTPException, _http)


def _domain(error: MaskloopError) -> Response:
    status = next((code for kind, code in STATUS.items() if isinstance(error, kind)), 500)
    return problem(status, str(error))


def _http(error: HTTPException) -> Response:
    status = error.code or 500
    ours = error.description if type(error).description != error.description else None
    response = problem(status, SENTENCES.get(status, "") if ours is None else ours)
    if allowed := error.get_headers():
        response.headers.extend((name, value) for name, value in allowed if name == "Allow")
    return response


def _framework(error: HTTPError) -> Response:
    """APIFlask's validation errors: {"json": {path: [sentences]}}."""
    where = error.detail if isinstance(error.detail, dict) else {}
    errors = {path: list(said) for part in where.values() for path, said in part.items()}
    first = next((f"{path}: {said[0]}" for path, said in errors.items()), str(error.message))
    return problem(error.status_code, first, errors)


def _unexpected(error: Exception) -> Response:
    number = secrets.token_hex(4)
    logger.error("failure %s", number, exc_info=error)
    return problem(500, f"something failed here: tell an administrator {number}, which is in the log")
