"""`python -m annotator_ui`: serves one home by waitress, on one machine; gunicorn takes `create_app`."""

import argparse
import socket
import sys
from collections.abc import Mapping
from pathlib import Path

import waitress  # type: ignore[import-untyped]  # it ships no hints

from annotator_ui.app import create_app
from annotator_ui.serving import serve
from engine import logs
from engine.config import Settings, load_settings
from engine.errors import MaskloopError, Unavailable


def main(arguments: list[str] | None = None) -> int:
    """Serves until SIGTERM or Ctrl-C; 1 and one line on stderr when it cannot start."""
    given = _parser().parse_args(arguments)
    try:
        settings = load_settings(given.home, {"web": _overrides(given)})
        logs.begin(settings, "web")
        app = create_app(settings)
        listener = _listen(settings)
    except MaskloopError as error:
        print(f"annotator_ui: {error}", file=sys.stderr)
        return 1
    server = waitress.create_server(
        app,
        sockets=[listener],
        threads=settings.web.threads,
        ident=None,
        max_request_body_size=settings.web.max_upload_mb * 1_000_000,
    )
    # Scripts wait for this line, so it comes only once the socket accepts.
    print(f"serving http://{settings.web.host}:{listener.getsockname()[1]}", flush=True)
    serve(server)
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m annotator_ui", description="Serve the annotation page.")
    parser.add_argument("--home", type=Path, help="folder of database and files (or MASKLOOP_HOME)")
    parser.add_argument("--host", help="address to serve on (web.host)")
    parser.add_argument("--port", type=int, help="port to serve on, 0 for any free one (web.port)")
    return parser


def _overrides(given: argparse.Namespace) -> Mapping[str, object]:
    return {key: value for key in ("host", "port") if (value := getattr(given, key)) is not None}


def _listen(settings: Settings) -> socket.socket:
    host, port = settings.web.host, settings.web.port
    listener = socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET)
    # A port whose last server just ended is free for us, as it is for every other server.
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listener.bind((host, port))
        listener.listen(128)
    except OSError as error:
        listener.close()
        advice = "stop what uses it or choose another by --port"
        raise Unavailable(f"cannot serve on {host} port {port} ({error.strerror}): {advice}") from None
    return listener


if __name__ == "__main__":
    sys.exit(main())
