"""The page and a worker on this machine: `up` starts both as child processes and stops both."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
import webbrowser
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from engine.cli.accounts import sign_in_address
from engine.cli.opening import opened
from engine.cli.options import AsJson, Home, Host, Port
from engine.cli.showing import print_json
from engine.errors import Unavailable

if TYPE_CHECKING:
    from engine.store.session import Workspace

Open = Annotated[bool, typer.Option("--open", help="Open the link in a browser.")]

# The worker gives its jobs back within 15 s of being told to stop.
STOPPED_WITHIN_S = 20.0
# Importing the web app on a busy machine; it answers within 3 s on an idle one.
STARTED_WITHIN_S = 120.0
LINK_MINUTES = 60
# A worker that died begins again after 1, 2, 4, ... seconds; one that had lived for long, after one again.
LONGEST_PAUSE_S = 60.0
LONG_LIVED_S = 300.0


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
        with _stoppable(), _children(settings.home / "logs", environment) as (page, worker):
            address = _await_address(page, worker)
            _greet(workspace, address, browse=browse, as_json=as_json)
            while page.runs():
                worker.keep_alive()
                time.sleep(0.3)
            raise Unavailable(_epitaph(page))


@dataclass
class Child:
    """One of our processes; what it prints goes to its log."""

    name: str
    process: subprocess.Popen[bytes]
    log: Path
    begin: Callable[[], subprocess.Popen[bytes]]
    began_at: float = field(default_factory=time.monotonic)
    pause_s: float = 1.0
    again_at: float | None = None

    def runs(self) -> bool:
        """True until it ended."""
        return self.process.poll() is None

    def lines(self) -> list[str]:
        """What it printed so far, without empty lines."""
        return [line for line in self.log.read_text("utf-8", "replace").splitlines() if line.strip()]

    def keep_alive(self) -> None:
        """Begins it again after a pause if it died, and says so; to be called often. Raises Unavailable for a
        fault it has stated, such as settings it refuses: it would only state that again."""
        if self.runs():
            return
        if self.again_at is not None:
            self._begin_again_if_time()
            return
        if self.process.returncode == 1 and self.lines() and self.lines()[-1].startswith("error: "):
            raise Unavailable(_epitaph(self))
        if time.monotonic() - self.began_at > LONG_LIVED_S:
            self.pause_s = 1.0
        print(f"maskloop: {_epitaph(self)}; it begins again in {self.pause_s:.0f} s", file=sys.stderr)
        self.again_at = time.monotonic() + self.pause_s

    def _begin_again_if_time(self) -> None:
        now = time.monotonic()
        if self.again_at is not None and now >= self.again_at:
            self.process, self.began_at, self.again_at = self.begin(), now, None
            self.pause_s = min(2 * self.pause_s, LONGEST_PAUSE_S)


@contextmanager
def _children(logs: Path, environment: dict[str, str]) -> Iterator[tuple[Child, Child]]:
    """The page and the worker; both are stopped when the block ends, however it ends."""
    logs.mkdir(parents=True, exist_ok=True)
    started: list[Child] = []
    try:
        for name, module in (("page", "annotator_ui"), ("worker", "workers")):
            log = logs / f"{name}.log"
            log.unlink(missing_ok=True)
            begin = partial(_start, module, log, environment)
            started.append(Child(name, begin(), log, begin))
        yield started[0], started[1]
    finally:
        _stop(started)


def _start(module: str, log: Path, environment: dict[str, str]) -> subprocess.Popen[bytes]:
    with log.open("ab") as sink:
        # A session of their own: Ctrl+C reaches only us, and we stop them in good order.
        return subprocess.Popen(
            [sys.executable, "-m", module],
            env=environment,
            stdin=subprocess.DEVNULL,
            stdout=sink,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )


def _stop(children: list[Child]) -> None:
    """Asks all to end, waits together for at most STOPPED_WITHIN_S, then ends them by force."""
    for child in children:
        if child.runs():
            child.process.terminate()
    deadline = time.monotonic() + STOPPED_WITHIN_S
    try:
        for child in children:
            child.process.wait(max(0.0, deadline - time.monotonic()))
    except (subprocess.TimeoutExpired, KeyboardInterrupt):
        for child in children:
            if child.runs():
                child.process.kill()


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
                raise Unavailable(_epitaph(child))
        time.sleep(0.1)
    raise Unavailable(f"the page did not start within {STARTED_WITHIN_S:.0f} s: see {page.log}")


def _epitaph(child: Child) -> str:
    """Its own last words where they are a sentence of ours, else where to read them."""
    last = (child.lines() or ["without a word"])[-1][-300:]
    for stated in ("annotator_ui: ", "error: "):
        if last.startswith(stated):
            return last.removeprefix(stated)
    return f"the {child.name} ended by itself (code {child.process.returncode}): {last} (see {child.log})"


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
