"""Fixtures that every package's tests share: a home, and a workspace on each of the two databases."""

import os
import secrets
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import psycopg
import pytest
import redis

from engine.config import Settings, configs_folder, load_settings
from engine.store.session import Workspace, open_workspace, upgrade
from engine.store.tables import metadata

REPOSITORY = Path(__file__).resolve().parents[1]
# Rounds come sooner in tests than people would want them.
RETRAIN_AFTER = 4
POSTGRES = "postgresql://postgres@127.0.0.1:5432"
REDIS = "redis://127.0.0.1:6379/0"


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
    (folder / "stages").mkdir()
    for stage in (configs_folder() / "stages").iterdir():
        often = stage.read_text().replace("_masks = 40", f"_masks = {RETRAIN_AFTER}")
        (folder / "stages" / stage.name).write_text(often)
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


@contextmanager
def a_postgres_database() -> Iterator[str]:
    """The URL of a new, empty Postgres database, dropped afterwards."""
    name = f"maskloop_test_{os.getpid()}_{secrets.token_hex(4)}"
    on_postgres(f"CREATE DATABASE {name}")
    # No test pulls the plug on the server, so none has to wait for its disk.
    on_postgres(f"ALTER DATABASE {name} SET synchronous_commit = off")
    try:
        yield f"{POSTGRES}/{name}"
    finally:
        on_postgres(f"DROP DATABASE {name} WITH (FORCE)")


@pytest.fixture
def empty_postgres() -> Iterator[str]:
    """A database of the test's own, without tables."""
    with a_postgres_database() as url:
        yield url


@pytest.fixture(scope="session")
def migrated_postgres(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """This process's database with its tables: making and dropping one per test would take a second each."""
    with a_postgres_database() as url:
        upgrade(a_home(tmp_path_factory.mktemp("template") / "home", url))
        yield url


def empty(url: str) -> None:
    """Removes every row, whatever the triggers say, after ending whoever is still connected."""
    with psycopg.connect(url, autocommit=True) as connection:
        others = "WHERE datname = current_database() AND pid <> pg_backend_pid()"
        connection.execute(f"SELECT pg_terminate_backend(pid) FROM pg_stat_activity {others}".encode())
        with connection.transaction():
            connection.execute("SET LOCAL session_replication_role = replica")
            for table in metadata.tables:
                connection.execute(f"DELETE FROM {table}".encode())
            for (sequence,) in connection.execute("SELECT sequencename FROM pg_sequences").fetchall():
                connection.execute(f"ALTER SEQUENCE {sequence} RESTART".encode())


@pytest.fixture
def sqlite_workspace(settings: Settings, sqlite_template: Path) -> Iterator[Workspace]:
    """An open, migrated workspace on SQLite."""
    shutil.copy(sqlite_template, settings.home / "maskloop.db")
    workspace = open_workspace(settings)
    yield workspace
    workspace.close()


@pytest.fixture
def postgres_workspace(tmp_path: Path, migrated_postgres: str) -> Iterator[Workspace]:
    """An open, migrated workspace on Postgres, without a row."""
    empty(migrated_postgres)
    workspace = open_workspace(a_home(tmp_path / "postgres_home", migrated_postgres))
    yield workspace
    workspace.close()


@pytest.fixture(params=["sqlite", "postgres"])
def workspace(request: pytest.FixtureRequest) -> Workspace:
    """The test runs once on each database."""
    opened = request.getfixturevalue(f"{request.param}_workspace")
    assert isinstance(opened, Workspace)
    return opened


@pytest.fixture
def redis_prefix() -> Iterator[str]:
    """A key prefix of the test's own; every key under it is removed afterwards."""
    server = redis.Redis.from_url(REDIS, socket_connect_timeout=2)
    try:
        server.ping()
    except redis.RedisError:
        missing("no Redis on 127.0.0.1:6379")
    prefix = f"maskloop-test-{secrets.token_hex(4)}:"
    yield prefix
    for key in server.scan_iter(f"{prefix}*"):
        server.delete(key)


@pytest.fixture(scope="session")
def small_model(tmp_path_factory: pytest.TempPathFactory) -> tuple[bytes, bytes]:
    """(safetensors, ONNX decoder) of a very small untrained Sam: the real thing, worth nothing."""
    import torch

    from engine.modeling import SamConfig, build_sam
    from engine.modeling.checkpoint import save_checkpoint
    from engine.modeling.onnx import export_decoder
    from engine.modeling.sam_config import TinyVitConfig

    torch.set_num_threads(1)
    encoder = TinyVitConfig((8, 8, 16, 16), (1, 1, 1, 1), (1, 1, 2, 2), (4, 4, 8, 4))
    config = SamConfig("small", 128, encoder, prompt_dim=16, mlp_dim=32, iou_hidden=16)
    sam = build_sam(config, seed=0)
    path = tmp_path_factory.mktemp("model") / "small.safetensors"
    save_checkpoint(path, sam.state_dict(), config)
    return path.read_bytes(), export_decoder(sam)
