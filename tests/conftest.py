"""Fixtures that every package's tests share: a home, and a workspace on each of the two databases."""

import os
import secrets
import shutil
from collections.abc import Iterator
from pathlib import Path

import psycopg
import pytest

from engine.config import Settings, configs_folder, load_settings
from engine.store.session import Workspace, open_workspace, upgrade

REPOSITORY = Path(__file__).resolve().parents[1]
POSTGRES = "postgresql://postgres@127.0.0.1:5432"


def missing(what: str) -> None:
    """Skips with the reason given; in CI nothing may be missing, so there it fails."""
    if os.environ.get("CI") == "true":
        pytest.fail(f"{what} (required when CI=true)")
    pytest.skip(what)


@pytest.fixture(scope="session")
def shared() -> Path:
    """The folder of real images and reference values; see its README. Never committed."""
    folder = Path(os.environ.get("MASKLOOP_SHARED", REPOSITORY.parent / "shared"))
    if not (folder / "parity").is_dir():
        missing(f"no shared folder at {folder}: set MASKLOOP_SHARED")
    return folder


def a_home(folder: Path, database_url: str | None = None) -> Settings:
    """Settings of a new home with the short clocks of configs/test.toml; on SQLite unless told otherwise."""
    folder.mkdir(parents=True)
    shutil.copy(configs_folder() / "test.toml", folder / "config.toml")
    return load_settings(folder, {"database": {"url": database_url}} if database_url else None)


def on_postgres(statement: str) -> None:
    """Runs one statement on the test server, outside of a transaction."""
    try:
        connection = psycopg.connect(f"{POSTGRES}/postgres", autocommit=True, connect_timeout=5)
    except psycopg.OperationalError:
        missing("no Postgres on 127.0.0.1:5432 that trusts user postgres")
    with connection:
        connection.execute(statement.encode())


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    """A new home on SQLite; nothing is opened and no table made."""
    return a_home(tmp_path / "home")


@pytest.fixture(scope="session")
def sqlite_template(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A migrated, empty database file: copying it is cheaper than migrating for every test."""
    settings = a_home(tmp_path_factory.mktemp("template") / "home")
    upgrade(settings)
    return settings.home / "maskloop.db"


@pytest.fixture(scope="session")
def postgres_template(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The name of a migrated, empty database that CREATE DATABASE copies."""
    name = f"maskloop_test_{os.getpid()}_{secrets.token_hex(4)}"
    on_postgres(f"CREATE DATABASE {name}")
    try:
        upgrade(a_home(tmp_path_factory.mktemp("template") / "home", f"{POSTGRES}/{name}"))
        yield name
    finally:
        on_postgres(f"DROP DATABASE {name} WITH (FORCE)")


@pytest.fixture
def empty_postgres() -> Iterator[str]:
    """The URL of a new Postgres database without tables, dropped afterwards."""
    name = f"maskloop_test_{os.getpid()}_{secrets.token_hex(4)}"
    on_postgres(f"CREATE DATABASE {name}")
    yield f"{POSTGRES}/{name}"
    on_postgres(f"DROP DATABASE {name} WITH (FORCE)")


@pytest.fixture
def sqlite_workspace(settings: Settings, sqlite_template: Path) -> Iterator[Workspace]:
    """An open, migrated workspace on SQLite."""
    shutil.copy(sqlite_template, settings.home / "maskloop.db")
    workspace = open_workspace(settings)
    yield workspace
    workspace.close()


@pytest.fixture
def postgres_workspace(tmp_path: Path, postgres_template: str) -> Iterator[Workspace]:
    """An open, migrated workspace on its own Postgres database, dropped afterwards."""
    name = f"{postgres_template}_{secrets.token_hex(4)}"
    on_postgres(f"CREATE DATABASE {name} TEMPLATE {postgres_template}")
    workspace = open_workspace(a_home(tmp_path / "home", f"{POSTGRES}/{name}"))
    yield workspace
    workspace.close()
    on_postgres(f"DROP DATABASE {name} WITH (FORCE)")


@pytest.fixture(params=["sqlite", "postgres"])
def workspace(request: pytest.FixtureRequest) -> Workspace:
    """The test runs once on each database."""
    opened = request.getfixturevalue(f"{request.param}_workspace")
    assert isinstance(opened, Workspace)
    return opened
