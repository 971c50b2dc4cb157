"""The page and a worker on this machine: `up` starts both as child processes and stops both."""

from __future__ import annotations

import os
import signal
import sys
import time
import webbrowser
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from engine.cli.accounts import sign_in_address
from engine.cli.opening import opened
from engine.cli.options import AsJson, Home, Host, Port
from engine.cli.processes import Child, children
from engine.cli.showing import print_json
from engine.errors import Unavailable

if TYPE_CHECKING:
    from engine.store.session import Workspace

Open = Annotated[bool, typer.Option("--open", help="Open the link in a browser.")]

# Importing the web app on a busy machine; it answers within 3 s on an idle one.
STARTED_WITHIN_S = 120.0
LINK_MINUTES = 60


def add_to(app: typer.Typer) -> None:
    """Hangs the verb into the command."""
    app.command("up")(up)


def up(
    host: Host = None, port: Port = None, browse: Open = False, home: Home = None, as_json: AsJson = False
) -> None:
    """Serve the page and run the worker until Ctrl+C; prints a link that signs the admin in once."""
    web = {name: value for name, value in (("host", host), ("port", port)) if value is not None}
    serve(home, web, browse=browse, as_json=as_json)


def serve(
    home: Path | None, web: Mapping[str, object], *, browse: bool = False, as_json: bool = False
) -> None:
    """`up` with the settings of its web section given; returns after Ctrl+C or SIGTERM.

    A worker that dies, as by a job that crashes its process, is started again; its job is tried again and
    fails with a reason after its last attempt. Raises Unavailable when one of the two processes cannot start,
    or the page ends by itself.
    """
    from engine.config import environment_of

    with opened(home, {"web": web}, begin=True) as workspace:
        settings = workspace.settings
        environment = os.environ | environment_of(settings.home, {"web": web})
        logs, modules = settings.home / "logs", {"page": ["annotator_ui"], "worker": ["workers"]}
        with _stoppable(), children(modules, logs, environment) as (page, worker):
            address = _await_address(page, worker)
            _greet(workspace, address, browse=browse, as_json=as_json)
            while page.runs():
                worker.keep_alive()
                time.sleep(0.3)
            raise Unavailable(page.epitaph())


@contextmanager
def _stoppable() -> Iterator[None]:
    """SIGTERM ends the block as Ctrl+C does, and neither is an error."""

    def stop(*_: Any) -> None:
        raise KeyboardInterrupt

    before = signal.signal(signal.SIGTERM, stop)
    try:
        yield
    except KeyboardInterrupt:
        print("stopped", file=sys.stderr)
    finally:
        signal.signal(signal.SIGTERM, before)


def _await_address(page: Child, worker: Child) -> str:
    """The address that the page says it serves on."""
    deadline = time.monotonic() + STARTED_WITHIN_S
    while time.monotonic() < deadline:
        for line in page.lines():
            if line.startswith("serving http"):
                return line.removeprefix("serving ")
        for child in (page, worker):
            if not child.runs():
                raise Unavailable(child.epitaph())
        time.sleep(0.1)
    raise Unavailable(f"the page did not start within {STARTED_WITHIN_S:.0f} s: see {page.log}")


def _greet(workspace: Workspace, address: str, *, browse: bool, as_json: bool) -> None:
    link = sign_in_address(address, _admin_token(workspace))
    if as_json:
        print_json({"address": address, "link": link})
    else:
        print(f"Maskloop serves {workspace.settings.home} on {address}")
        print(f"Sign in once within the hour: {link}")
        print("(`maskloop users link NAME` makes another). Ctrl+C stops.", flush=True)
    if browse:
        webbrowser.open(link)


def _admin_token(workspace: Workspace) -> str:
    """A one-time token for the first active admin, who is made if there is none."""
    from engine.pipeline import accounts

    with workspace.write() as session:
        admins = [user for user in accounts.list_users(session) if user.role == "admin" and user.active]
        admin = admins[0] if admins else accounts.add_user(session, "admin", "admin")
        return accounts.make_link(session, admin.id, LINK_MINUTES * 60)
