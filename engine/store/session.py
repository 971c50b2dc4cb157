"""Opening the database and the files: the one object, `Workspace`, that every arrow is given.

The only place that makes an engine. Sessions are short on purpose: no arrow computes inside one.
"""

import sqlite3
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from sqlalchemy import Connection, Engine, create_engine, event, inspect, text
from sqlalchemy.engine import URL, make_url
from sqlalchemy.exc import ArgumentError, DBAPIError, InterfaceError, NoSuchModuleError, OperationalError
from sqlalchemy.exc import TimeoutError as PoolTimeout
from sqlalchemy.orm import Session, sessionmaker

import engine.store.tables  # noqa: F401 - a flush needs every table that a foreign key names
from engine.config import Settings, migrations_folder
from engine.errors import BadInput, Unavailable
from engine.store.blobs import BlobStore

# A transaction that nobody talks to holds locks and old rows; ours are short, so the server may end it.
IDLE_IN_TRANSACTION_MS = 10_000
# An upgrade asks for every table at once for so long, then lets everybody go on and asks again. Shorter than
# Postgres' deadlock_timeout of 1 s, after which the server would end the upgrade or somebody's save.
TAKE_TABLES_MS = 500
TAKE_TABLES_AGAIN_S = 0.5
TAKE_TABLES_PATIENCE_S = 60.0
OUR_TABLES = """
    SELECT quote_ident(relname) FROM pg_class
    WHERE relnamespace = current_schema()::regnamespace AND relkind IN ('r', 'p', 'v')
      AND NOT EXISTS (SELECT FROM pg_depend WHERE objid = pg_class.oid AND deptype = 'e')
    ORDER BY relname
"""
# query_canceled (statement_timeout), lock_not_available, deadlock_detected: somebody else has a table.
IN_USE = ("57014", "55P03", "40P01")


@dataclass(frozen=True)
class Workspace:
    """One home's settings, database and files. Threads share it; a forked child opens its own."""

    settings: Settings
    engine: Engine
    sessions: sessionmaker[Session]
    blobs: BlobStore

    @contextmanager
    def read(self) -> Iterator[Session]:
        """A session in a transaction that may change nothing; its rows stay readable afterwards."""
        with _sentences(), self.sessions(bind=self._reader) as session:
            yield session

    @contextmanager
    def write(self) -> Iterator[Session]:
        """One transaction: committed at the end, rolled back on any exception.

        SQLite takes its write lock before the first statement (BEGIN IMMEDIATE): what was read inside holds
        until the commit; on Postgres lock what you read. Unavailable: the database is away or too busy.
        """
        with _sentences(), self.sessions(bind=self._writer) as session:
            with session.begin():
                yield session

    # The same connections under other options; made once, since every making leaves a listener behind.
    @cached_property
    def _reader(self) -> Engine:
        return _reading(self.engine)

    @cached_property
    def _writer(self) -> Engine:
        return _writing(self.engine)

    def close(self) -> None:
        """Closes every pooled connection."""
        self.engine.dispose()


def open_workspace(
    settings: Settings, *, check_revision: bool = True, bound_statements: bool = False
) -> Workspace:
    """The workspace of `settings`; `bound_statements` (the page) holds each statement to statement_timeout_s.

    Raises Unavailable when the database does not answer, is not set up, or is of another revision than this
    code; BadInput when an address in the settings is none.
    """
    url = _url(settings)
    if check_revision:
        _refuse_missing_file(url)
    engine = _engine(settings, url, bound_statements)
    blobs = BlobStore(settings.files.url, cache=settings.home / "blob_cache")
    sessions = sessionmaker(engine, expire_on_commit=False)
    if check_revision:
        try:
            with _sentences():
                _refuse_other_revision(engine)
        except Unavailable:
            engine.dispose()
            raise
    return Workspace(settings, engine, sessions, blobs)


def upgrade(settings: Settings, to: str = "head", *, patience_s: float = TAKE_TABLES_PATIENCE_S) -> None:
    """Brings the database to revision `to`, making the SQLite file and its folder when they do not exist.

    Pages and workers may go on meanwhile: they wait until it has ended. Unavailable: the database is newer
    than this code, or its tables were not free for `patience_s` (Postgres); nothing was changed then.
    """
    from alembic import command

    _migrate(settings, command.upgrade, to, patience_s)


def downgrade(settings: Settings, to: str) -> None:
    """Takes the database back to revision `to` (`base` empties it of tables)."""
    from alembic import command

    _migrate(settings, command.downgrade, to)


def revision(settings: Settings) -> str | None:
    """The revision the database is at; None for a database without our tables."""
    url = _url(settings)
    file = _sqlite_file(url)
    if file is not None and not file.exists():
        return None
    engine = _engine(settings, url, bound_statements=False)
    try:
        with _sentences(), engine.connect() as connection:
            return _revision(connection)
    finally:
        engine.dispose()


def head_revision() -> str:
    """The revision this code wants."""
    from alembic.script import ScriptDirectory

    head = ScriptDirectory(str(migrations_folder())).get_current_head()
    if head is None:
        raise Unavailable(f"there are no migrations in {migrations_folder()}: reinstall maskloop")
    return head


def _migrate(settings: Settings, step: Any, to: str, patience_s: float = TAKE_TABLES_PATIENCE_S) -> None:
    from alembic.config import Config

    url = _url(settings)
    file = _sqlite_file(url)
    if file is not None:
        file.parent.mkdir(parents=True, exist_ok=True)
    config = Config()
    config.set_main_option("script_location", str(migrations_folder()).replace("%", "%%"))
    engine = _engine(settings, url, bound_statements=False)
    try:
        with _sentences():
            # In a transaction of its own, or it would hold a lock that another upgrade waits for.
            with _reading(engine).connect() as connection:
                found = _revision(connection)
            _refuse_newer(engine, found)
            with _writing(engine).begin() as connection:
                is_there = found == (head_revision() if to == "head" else to)
                if connection.dialect.name == "postgresql" and not is_there:
                    _take_tables(connection, patience_s)
                config.attributes["connection"] = connection
                step(config, to)
    finally:
        engine.dispose()


def _take_tables(connection: Connection, patience_s: float) -> None:
    """Locks all tables and views before the first is changed.

    Taken one by one as the revisions come to them, a save that holds one and waits for the next is a
    deadlock: at 20 saves per second it ended four upgrades of five.
    """
    end = time.monotonic() + patience_s
    while names := ", ".join(connection.scalars(text(OUR_TABLES))):
        try:
            with connection.begin_nested():
                connection.exec_driver_sql(f"SET LOCAL statement_timeout = {TAKE_TABLES_MS}")
                connection.exec_driver_sql(f"LOCK TABLE {names} IN ACCESS EXCLUSIVE MODE")
                connection.exec_driver_sql("SET LOCAL statement_timeout TO DEFAULT")
            return
        except OperationalError as error:
            if getattr(error.orig, "sqlstate", None) not in IN_USE:
                raise
        if time.monotonic() > end:
            raise Unavailable(
                "the tables are in use without a pause (a backup?): nothing was changed, try again"
            )
        time.sleep(TAKE_TABLES_AGAIN_S)


def _url(settings: Settings) -> URL:
    try:
        url = make_url(settings.database.url)
        dialect = url.get_backend_name()
    except (ArgumentError, NoSuchModuleError):
        raise BadInput("database.url is no database address: see configs/default.toml") from None
    if dialect not in ("sqlite", "postgresql"):
        raise BadInput(f"database.url names {dialect}; Maskloop runs on sqlite or postgresql+psycopg")
    return url


def _sqlite_file(url: URL) -> Path | None:
    if url.get_backend_name() != "sqlite":
        return None
    if not url.database or url.database == ":memory:":
        raise BadInput("database.url must name a SQLite file: several processes share it")
    return Path(url.database)


def _refuse_missing_file(url: URL) -> None:
    file = _sqlite_file(url)
    if file is not None and not file.exists():
        raise Unavailable(f"there is no database at {file} yet: run `maskloop db upgrade`")


def _engine(settings: Settings, url: URL, bound_statements: bool) -> Engine:
    database = settings.database
    if url.get_backend_name() == "sqlite":
        # SQLite's own lock is the limit there; waiting for a pool slot as well would only hide it.
        engine = create_engine(url, pool_size=database.pool_size, max_overflow=-1)
        event.listen(engine, "connect", _sqlite_connection(int(database.lock_timeout_s * 1000)))
        event.listen(engine, "begin", _sqlite_begin)
        return engine
    return create_engine(
        url.set(drivername="postgresql+psycopg"),
        pool_size=database.pool_size,
        max_overflow=database.max_overflow,
        pool_timeout=database.pool_timeout_s,
        pool_pre_ping=True,
        connect_args={"options": _postgres_options(settings, bound_statements), "connect_timeout": 5},
    )


def _postgres_options(settings: Settings, bound_statements: bool) -> str:
    database = settings.database
    options = {
        "timezone": "UTC",
        "lock_timeout": int(database.lock_timeout_s * 1000),
        "idle_in_transaction_session_timeout": IDLE_IN_TRANSACTION_MS,
    }
    if bound_statements:
        options["statement_timeout"] = int(database.statement_timeout_s * 1000)
    return " ".join(f"-c {name}={value}" for name, value in options.items())


def _sqlite_connection(busy_timeout_ms: int) -> Any:
    def prepare(connection: sqlite3.Connection, _record: object) -> None:
        # The driver's own BEGINs are switched off: `_sqlite_begin` says which kind is wanted.
        connection.isolation_level = None
        # busy_timeout first: switching to WAL takes a lock that another starting process may hold.
        for pragma in (f"busy_timeout = {busy_timeout_ms}", "journal_mode = WAL"):
            connection.execute(f"PRAGMA {pragma}")
        for pragma in ("synchronous = FULL", "foreign_keys = ON"):
            connection.execute(f"PRAGMA {pragma}")

    return prepare


def _sqlite_begin(connection: Connection) -> None:
    options = connection.get_execution_options()
    connection.exec_driver_sql(f"PRAGMA query_only = {int(bool(options.get('postgresql_readonly')))}")
    connection.exec_driver_sql("BEGIN IMMEDIATE" if options.get("writes") else "BEGIN")


def _reading(engine: Engine) -> Engine:
    return engine.execution_options(postgresql_readonly=True)


def _writing(engine: Engine) -> Engine:
    return engine.execution_options(writes=True)


def _revision(connection: Connection) -> str | None:
    if not inspect(connection).has_table("alembic_version"):
        return None
    version = connection.execute(text("SELECT version_num FROM alembic_version")).scalar()
    return None if version is None else str(version)


def _refuse_other_revision(engine: Engine) -> None:
    with _reading(engine).connect() as connection:
        found = _revision(connection)
    if found == head_revision():
        return
    where = engine.url.render_as_string(hide_password=True)
    if found is None:
        raise Unavailable(f"the database {where} has no tables yet: run `maskloop db upgrade`")
    _refuse_newer(engine, found)
    raise Unavailable(f"the database {where} is older ({found}) than the code: run `maskloop db upgrade`")


def _refuse_newer(engine: Engine, found: str | None) -> None:
    from alembic.script import ScriptDirectory

    known = {script.revision for script in ScriptDirectory(str(migrations_folder())).walk_revisions()}
    if found is not None and found not in known:
        where, wanted = engine.url.render_as_string(hide_password=True), head_revision()
        raise Unavailable(
            f"the database {where} is newer ({found}) than the code ({wanted}): update Maskloop"
        )


@contextmanager
def _sentences() -> Iterator[None]:
    """Turns the drivers' ways of saying "not now" into Unavailable; broken constraints pass as they are."""
    try:
        yield
    except PoolTimeout:
        raise Unavailable("the database is busy: every connection is taken, try again in a moment") from None
    except (OperationalError, InterfaceError) as error:
        raise Unavailable(f"the database could not do this now ({_first_line(error)}): try again") from error


def _first_line(error: DBAPIError) -> str:
    lines = str(error.orig).strip().splitlines()
    return lines[0] if lines else type(error.orig).__name__
