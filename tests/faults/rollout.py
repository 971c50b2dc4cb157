"""An installation on its way from one version to the next: the code before, both versions' processes, locks.

No earlier version was ever released, so N-1 is the code of the commit before the one that added the newest
revision, taken from the repository's history and run as processes of its own; N is this working tree.
"""

import os
import sqlite3
import subprocess
import sys
import tarfile
import threading
import time
import urllib.request
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from io import BytesIO
from pathlib import Path

import psycopg
import pytest
from alembic.script import ScriptDirectory

from engine.config import environment_of, migrations_folder
from engine.errors import Unavailable
from engine.store import session as store
from tests.conftest import REPOSITORY
from tests.faults.crew import Crew
from tests.faults.drill import wait_for
from tests.faults.page import Page, Saves, Site
from tests.faults.servers import a_free_port

PACKAGES = ("engine", "annotator_ui", "workers", "migrations", "configs")
LOOK_EVERY_S = 0.02


@dataclass(frozen=True)
class Previous:
    """The last code that did not know the newest revision."""

    code: Path
    revision: str
    newest: str


def code_before(folder: Path) -> Previous:
    """Unpacks it; skips where the history is not there: a source archive, a shallow clone."""
    newest = next(iter(ScriptDirectory(str(migrations_folder())).walk_revisions()))
    file = str(Path(newest.path).resolve().relative_to(REPOSITORY))
    added = _git("log", "--diff-filter=A", "--format=%H", "-1", "--", file).decode().strip()
    # A revision that is not committed yet came after everything that is.
    commit = _git("rev-parse", "--verify", f"{added}^" if added else "HEAD").decode().strip()
    with tarfile.open(fileobj=BytesIO(_git("archive", commit, *PACKAGES))) as archive:
        archive.extractall(folder, filter="data")
    return Previous(folder, str(newest.down_revision), newest.revision)


def _git(*arguments: str) -> bytes:
    try:
        return subprocess.run(["git", *arguments], cwd=REPOSITORY, capture_output=True, check=True).stdout
    except (OSError, subprocess.CalledProcessError) as error:
        said = getattr(error, "stderr", b"").decode() or str(error)
        pytest.skip(f"needs the git history, for the code before the newest revision: {said.strip()[:200]}")


@dataclass
class Rollout:
    """A home that both versions work on. Settings are those that both know, given as variables."""

    crew: Crew
    previous: Previous
    site: Site = field(default_factory=Site)
    ports: dict[str, int] = field(default_factory=dict)

    def start_web(self, version: str) -> None:
        """Returns once it answers."""
        self.ports[version] = a_free_port()
        options = ("--port", str(self.ports[version]))
        self.crew.start(f"{version} web", *options, module="annotator_ui", code=self._code(version))
        wait_for(lambda: self._answers(version), 60, f"no page: {self.crew.said()}")

    def start_worker(self, version: str) -> None:
        """It also ticks."""
        self.crew.start(f"{version} worker", module="workers", code=self._code(version))

    def serve_by(self, version: str) -> None:
        """The proxy in front sends everybody to that web process."""
        self.site.port = self.ports[version]

    def stop(self, name: str) -> None:
        """SIGTERM, as an operator's supervisor sends it."""
        process = self.crew.members.pop(name)
        process.terminate()
        process.wait(timeout=40)

    def refuses(self, version: str, module: str) -> bool:
        """Whether a process begun now says in a sentence that the database is not its own, and ends."""
        asked = self._run(module, version=version)
        return asked.returncode == 1 and " than the code" in asked.stderr and "Traceback" not in asked.stderr

    def upgrade(self) -> str:
        """`maskloop db upgrade`, as the operator calls it; what it said if it did not end well."""
        asked = self._run("engine", "db", "upgrade")
        return "" if asked.returncode == 0 else asked.stderr.strip()[-500:]

    def go_back(self) -> None:
        """To the revision before, with all rows. Nobody saves meanwhile, but workers look for work."""
        for _ in range(10):
            try:
                return store.downgrade(self.crew.workspace.settings, self.previous.revision)
            except Unavailable:
                time.sleep(0.5)
        raise AssertionError("the database could not be taken back")

    @contextmanager
    def people(self, user_ids: Sequence[int], dataset: str, every_s: float, saves: Saves) -> Iterator[None]:
        """Everybody signs in, opens an image and saves on the beat, until the end."""
        pages = [Page(self.crew.workspace, self.site, user_id, saves, every_s) for user_id in user_ids]
        for page in pages:
            page.open_image(dataset)
        began = time.monotonic()
        for page in pages:
            page.start()
        try:
            yield
        finally:
            for page in pages:
                page.leave()
            saves.lasted_s += time.monotonic() - began

    def _code(self, version: str) -> Path:
        return self.previous.code if version == "N-1" else REPOSITORY

    def _run(self, module: str, *options: str, version: str = "N") -> "subprocess.CompletedProcess[str]":
        ours = os.environ | environment_of(self.crew.workspace.settings.home, self.crew.overrides)
        called, code = [sys.executable, "-m", module, *options], self._code(version)
        return subprocess.run(called, cwd=code, env=ours, capture_output=True, text=True, timeout=120)

    def _answers(self, version: str) -> bool:
        try:
            with urllib.request.urlopen(f"http://127.0.0.1:{self.ports[version]}/healthz", timeout=5) as page:
                return bool(page.status == 200)
        except OSError:
            return False


class Locks(threading.Thread):
    """Looks at the database from outside, 50 times a second, for the longest that a lock kept anybody."""

    def __init__(self, url: str) -> None:
        super().__init__(daemon=True)
        self.url, self.longest_s, self._ended = url, 0.0, threading.Event()

    def __enter__(self) -> "Locks":
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._ended.set()
        self.join()

    def run(self) -> None:
        (self._look_at_sqlite if self.url.startswith("sqlite") else self._look_at_postgres)()

    def _look_at_postgres(self) -> None:
        """The longest wait of any session for any lock, by the server's own clock."""
        waits = (
            "SELECT extract(epoch FROM max(clock_timestamp() - waitstart)) FROM pg_locks WHERE NOT granted"
        )
        with psycopg.connect(self.url, autocommit=True) as connection:
            while not self._ended.wait(LOOK_EVERY_S):
                row = connection.execute(waits).fetchone()
                self.longest_s = max(self.longest_s, float((row and row[0]) or 0))

    def _look_at_sqlite(self) -> None:
        """There is one lock for writers: the longest in which it was never seen free."""
        connection = sqlite3.connect(self.url.removeprefix("sqlite:///"), timeout=0, isolation_level=None)
        free_at = time.monotonic()
        while not self._ended.wait(LOOK_EVERY_S):
            try:
                connection.execute("BEGIN IMMEDIATE")
                connection.execute("ROLLBACK")
                free_at = time.monotonic()
            except sqlite3.OperationalError:
                self.longest_s = max(self.longest_s, time.monotonic() - free_at)
        connection.close()
