"""What a process says on stderr: lines for people, or one JSON object a line; secrets are masked in both.

`begin` once per process; `bound` names the request or job that everything inside it is about.
"""

import json
import logging
import os
import re
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from datetime import UTC, datetime
from types import MappingProxyType, TracebackType
from urllib.parse import unquote, urlsplit

from engine.config import Settings

_NOTHING: Mapping[str, object] = MappingProxyType({})
_bound: ContextVar[Mapping[str, object]] = ContextVar("bound", default=_NOTHING)

# Other people's libraries, which tell at level info what nobody asked.
QUIET = ("alembic", "amqp", "celery", "kombu", "urllib3", "botocore", "aiobotocore", "waitress")
MASK = "***"
# user:password@ in any address, and what follows a word that announces a secret.
_IN_ADDRESS = re.compile(r"(\b[a-z][a-z0-9+.-]*://[^\s:/@]*:)[^\s/@]+@", re.IGNORECASE)
_ANNOUNCED = re.compile(
    r"""((?:password|passwd|secret|token|authorization|cookie|api[_-]?key)["']?\s*[=:]\s*["']?(?:bearer\s+)?)"""
    r"""[^\s"',;&)}]+""",
    re.IGNORECASE,
)
# Anything shorter would also mask ordinary words.
SHORTEST_SECRET = 6


def begin(settings: Settings, process: str) -> None:
    """Sends every logger's lines to stderr as `[logs]` says; `process` is web, worker or tick."""
    secrets = secrets_of(settings)
    json_wanted = settings.logs.format == "json"
    handler = logging.StreamHandler()
    handler.setFormatter(JsonLines(process, secrets) if json_wanted else TextLines(secrets))
    logging.basicConfig(level=settings.logs.level.upper(), handlers=[handler], force=True)
    logging.captureWarnings(True)
    for library in QUIET:
        logging.getLogger(library).setLevel(logging.WARNING)
    if json_wanted:
        sys.excepthook = _say_last_words


@contextmanager
def bound(**fields: object) -> Iterator[None]:
    """Puts `fields` (request_id, job_id, worker) on every line this thread writes inside the block."""
    token = _bound.set({**_bound.get(), **fields})
    try:
        yield
    finally:
        _bound.reset(token)


def rebind(**fields: object) -> None:
    """Replaces what is bound in this thread, for a server whose threads serve one request after another."""
    _bound.set(fields)


def secrets_of(settings: Settings) -> tuple[str, ...]:
    """The passwords and tokens in the settings, which no line may carry."""
    addresses = (settings.database.url, settings.worker.broker, settings.files.url)
    passwords = [password for address in addresses if (password := _password(address))]
    found = {*passwords, *map(unquote, passwords), settings.web.metrics_token}
    return tuple(sorted(secret for secret in found if len(secret) >= SHORTEST_SECRET))


def masked(text: str, secrets: tuple[str, ...] = ()) -> str:
    """`text` with every known secret, password in an address and announced token replaced by ***."""
    for secret in secrets:
        text = text.replace(secret, MASK)
    return _ANNOUNCED.sub(rf"\1{MASK}", _IN_ADDRESS.sub(rf"\1{MASK}@", text))


class TextLines(logging.Formatter):
    """For people: time, level, logger, sentence, and in brackets what it is about."""

    def __init__(self, secrets: tuple[str, ...] = ()) -> None:
        super().__init__("%(asctime)s %(levelname)s %(name)s: %(message)s")
        self._secrets = secrets

    def formatMessage(self, record: logging.LogRecord) -> str:  # noqa: N802 (logging's name)
        about = " ".join(f"{name}={value}" for name, value in _about(record).items())
        return super().formatMessage(record) + (f" [{about}]" if about else "")

    def format(self, record: logging.LogRecord) -> str:
        """The line, and the trace of an exception below it."""
        return masked(super().format(record), self._secrets)


class JsonLines(logging.Formatter):
    """For collectors: one JSON object a line, with the trace of an exception under `error`."""

    def __init__(self, process: str, secrets: tuple[str, ...] = ()) -> None:
        super().__init__()
        self._process, self._secrets = process, secrets

    def format(self, record: logging.LogRecord) -> str:
        """The record as JSON; every text in it is masked."""
        at = datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds")
        line: dict[str, object] = {"time": at, "level": record.levelname.lower(), "logger": record.name}
        line |= {"message": record.getMessage(), "process": self._process, "pid": os.getpid()}
        line |= _about(record)
        if record.exc_info:
            line["error"] = self.formatException(record.exc_info)
        shown = {name: self._shown(value) for name, value in line.items()}
        return json.dumps(shown, ensure_ascii=False)

    def _shown(self, value: object) -> object:
        plain = value is None or isinstance(value, bool | int | float)
        return value if plain else masked(str(value), self._secrets)


def _about(record: logging.LogRecord) -> dict[str, object]:
    """What is bound, and what the call itself gave as extra={"about": {...}}."""
    return {**_bound.get(), **getattr(record, "about", {})}


def _password(address: str) -> str:
    try:
        return urlsplit(address).password or ""
    except ValueError:
        return ""


def _say_last_words(kind: type[BaseException], error: BaseException, trace: TracebackType | None) -> None:
    logging.getLogger("maskloop").critical("the process ends", exc_info=(kind, error, trace))
