"""Fixtures of the drills: private servers, an installation on them, and the drill's line. See drill.py."""

import secrets
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psycopg
import pytest

from engine.config import load_settings
from engine.store.session import Workspace, open_workspace, upgrade
from tests.conftest import a_home
from tests.faults.crew import Crew
from tests.faults.drill import Drill, hard_limit
from tests.faults.servers import PrivatePostgres, PrivateRedis

# The longest that any drill may take: goals of RELIABILITY section 6 name 20 minutes at most.
LONGEST_S = 1500.0
LONGEST_SHORT_S = 180.0


@pytest.fixture(scope="session")
def cluster() -> Iterator[PrivatePostgres]:
    """One private Postgres for all drills of this process; made anew it costs seconds."""
    server = PrivatePostgres()
    try:
        server.start()
        yield server
    finally:
        server.close()


@pytest.fixture
def private_postgres(cluster: PrivatePostgres) -> PrivatePostgres:
    """Running, whatever the drill before did to it."""
    if not cluster.answers():
        cluster.crash()
        cluster.start()
    return cluster


@pytest.fixture
def private_redis() -> Iterator[PrivateRedis]:
    """An empty Redis of the drill's own."""
    server = PrivateRedis()
    try:
        server.start()
        yield server
    finally:
        server.close()


@pytest.fixture
def drill(
    request: pytest.FixtureRequest, scale: float, capsys: pytest.CaptureFixture[str]
) -> Iterator[Drill]:
    """Named as its test; its line goes past pytest's capture in `make faults`."""
    is_whole = request.node.get_closest_marker("faults") is not None

    def say(line: str) -> None:
        if not is_whole:
            print(line)
            return
        with capsys.disabled():
            print(f"\n{line}", flush=True)

    name = request.node.originalname.removeprefix("test_")
    with hard_limit(LONGEST_S if is_whole else LONGEST_SHORT_S):
        yield Drill(name, scale, say)


@pytest.fixture
def private_database(private_postgres: PrivatePostgres, tmp_path: Path) -> Iterator[str]:
    """The URL of a migrated, empty database on the private cluster."""
    name = f"drill_{secrets.token_hex(4)}"
    with psycopg.connect(private_postgres.url(), autocommit=True) as connection:
        connection.execute(f"CREATE DATABASE {name}".encode())
    url = private_postgres.url(name)
    upgrade(a_home(tmp_path / "migrating", url))
    yield url


@pytest.fixture
def crew(private_database: str, private_redis: PrivateRedis, tmp_path: Path) -> Iterator[Crew]:
    """An installation as in production, on servers that may be killed; nobody works yet."""
    overrides: dict[str, dict[str, Any]] = {
        "database": {"url": private_database},
        "worker": {"threads": 2, "broker": private_redis.url},
    }
    home = a_home(tmp_path / "home", private_database).home
    opened = Crew(open_workspace(load_settings(home, overrides)), overrides, tmp_path / "crew.log")
    try:
        yield opened
    finally:
        opened.close()


@pytest.fixture
def drill_workspace(private_database: str, tmp_path: Path) -> Iterator[Workspace]:
    """An installation without processes on the private cluster; many threads may use it at once."""
    home = a_home(tmp_path / "home", private_database).home
    settings = load_settings(home, {"database": {"url": private_database, "pool_size": 40}})
    opened = open_workspace(settings)
    try:
        yield opened
    finally:
        opened.close()


@pytest.fixture(params=["sqlite", "postgres"])
def either_workspace(request: pytest.FixtureRequest) -> Workspace:
    """The drill runs once on each database."""
    name = "sqlite_workspace" if request.param == "sqlite" else "drill_workspace"
    opened: Workspace = request.getfixturevalue(name)
    return opened
