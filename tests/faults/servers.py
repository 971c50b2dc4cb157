"""Private servers that a drill may kill: loopback, a free port, a folder of their own, ended by their ids."""

import os
import shutil
import signal
import socket
import subprocess
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, Protocol

import psycopg
import redis

from tests.conftest import missing

START_S = 60.0


class Server(Protocol):
    """What a drill does to a server."""

    def start(self) -> None:
        """Returns once it answers."""
        ...

    def crash(self) -> None:
        """Stops it at once, as a power cut would; its folder stays."""
        ...


def a_free_port() -> int:
    """A port that nobody listens on now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


class PrivatePostgres:
    """A cluster that keeps what it promised: fsync and synchronous commits are on, as people run it."""

    def __init__(self) -> None:
        self._programs = _postgres_programs()
        # pytest's own folders are closed to others, and initdb refuses to run as root.
        self._user = "postgres" if os.geteuid() == 0 else None
        self.folder = Path(tempfile.mkdtemp(prefix="maskloop-faults-"))
        if self._user:
            shutil.chown(self.folder, self._user, self._user)
        self.port = a_free_port()
        self._process: subprocess.Popen[bytes] | None = None
        how = ("-U", "postgres", "-A", "trust", "-E", "UTF8", "--locale=C", "--no-sync")
        made = self._run("initdb", "-D", str(self.folder / "cluster"), *how)
        assert made.wait(timeout=START_S) == 0, self.log()

    def url(self, database: str = "postgres") -> str:
        """Where a database of this cluster is."""
        return f"postgresql://postgres@127.0.0.1:{self.port}/{database}"

    def start(self) -> None:
        """See Server; after a crash it replays its log first."""
        settings = {"shared_buffers": "32MB", "max_connections": "200", "unix_socket_directories": ""}
        settings |= {"fsync": "on", "synchronous_commit": "on", "listen_addresses": "127.0.0.1"}
        chosen = [word for name, value in settings.items() for word in ("-c", f"{name}={value}")]
        at = ("-D", str(self.folder / "cluster"), "-p", str(self.port))
        self._process = self._run("postgres", *at, *chosen)
        _wait_until(self.answers, self._process, self.log)

    def answers(self) -> bool:
        """Whether it takes connections."""
        try:
            psycopg.connect(self.url(), connect_timeout=2).close()
        except psycopg.OperationalError:
            return False
        return True

    def crash(self) -> None:
        """See Server; SIGQUIT is what `pg_ctl stop -m immediate` sends."""
        self._end(signal.SIGQUIT)

    def close(self) -> None:
        """Stops the cluster, at once since nobody will read it again, and removes its folder."""
        self._end(signal.SIGQUIT)
        shutil.rmtree(self.folder, ignore_errors=True)

    def log(self) -> str:
        """The end of what the programs said."""
        return (self.folder / "log").read_text()[-2000:]

    def _run(self, program: str, *arguments: str) -> subprocess.Popen[bytes]:
        as_user: dict[str, Any] = {"user": self._user, "group": self._user, "extra_groups": []}
        with open(self.folder / "log", "ab") as said:
            return subprocess.Popen(
                [str(self._programs / program), *arguments],
                cwd=self.folder,
                stdout=said,
                stderr=said,
                start_new_session=True,
                **(as_user if self._user else {}),
            )

    def _end(self, how: signal.Signals) -> None:
        if self._process is not None and self._process.poll() is None:
            self._process.send_signal(how)
            self._process.wait(timeout=START_S)


class PrivateRedis:
    """A Redis with the append-only file that RELIABILITY section 8 asks for."""

    def __init__(self) -> None:
        if shutil.which("redis-server") is None:
            missing("no redis-server: apt-get install redis-server")
        self.folder = Path(tempfile.mkdtemp(prefix="maskloop-faults-"))
        self.port = a_free_port()
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def url(self) -> str:
        """What worker.broker is set to."""
        return f"redis://127.0.0.1:{self.port}/0"

    def start(self) -> None:
        """See Server."""
        at = ("--bind", "127.0.0.1", "--port", str(self.port), "--dir", str(self.folder))
        keeps = ("--appendonly", "yes", "--save", "", "--maxmemory-policy", "noeviction")
        with open(self.folder / "log", "ab") as said:
            self._process = subprocess.Popen(
                ["redis-server", *at, *keeps], stdout=said, stderr=said, start_new_session=True
            )
        _wait_until(self.answers, self._process, self.log)

    def answers(self) -> bool:
        """Whether it takes commands; while it reads its file it does not."""
        try:
            return bool(self.client().ping())
        except redis.RedisError:
            return False

    def client(self) -> Any:
        """A connection for the drill itself."""
        return redis.Redis.from_url(self.url, socket_connect_timeout=2, socket_timeout=5)

    def crash(self) -> None:
        """See Server: kill -9."""
        if self._process is not None and self._process.poll() is None:
            self._process.kill()
            self._process.wait(timeout=START_S)

    def close(self) -> None:
        """Ends it and removes its folder."""
        self.crash()
        shutil.rmtree(self.folder, ignore_errors=True)

    def log(self) -> str:
        """The end of what it said."""
        return (self.folder / "log").read_text()[-2000:]


def _postgres_programs() -> Path:
    """The folder of initdb and postgres: Debian keeps both off the PATH."""
    on_path = shutil.which("initdb")
    # The newest first; versions compare as numbers.
    debian = sorted(Path("/usr/lib/postgresql").glob("*/bin/initdb"), key=lambda path: float(path.parts[-3]))
    if on_path is None and not debian:
        missing("no initdb: apt-get install postgresql")
    return Path(on_path).resolve().parent if on_path else debian[-1].parent


def _wait_until(
    answers: Callable[[], bool], process: subprocess.Popen[bytes], log: Callable[[], str]
) -> None:
    end = time.monotonic() + START_S
    while not answers():
        assert process.poll() is None, f"the private server ended: {log()}"
        assert time.monotonic() < end, f"the private server does not answer: {log()}"
        time.sleep(0.05)
