"""A backup: every row and every file of an installation in one folder, and the way back.

    manifest.json          revision, version, count and digest of each table; its own digest
    tables/NAME.jsonl.gz   see dump.py; the same text for SQLite and Postgres, so either restores the other's
    blobs.txt.gz           digest of each file the rows name
    blobs/ab/cd/abcd...    the files, laid out as in files.url

Rows are read first, in one frozen view, then the files: files are never changed, so each row's is there.
"""

import hashlib
import json
import os
import shutil
import sqlite3
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from dataclasses import asdict, dataclass
from importlib.metadata import PackageNotFoundError, version
from itertools import islice
from pathlib import Path
from typing import Any

from sqlalchemy import Table, func, insert, select, text, union
from sqlalchemy.exc import DBAPIError, OperationalError
from sqlalchemy.orm import Session

from engine.config import Settings
from engine.errors import BadInput, Conflict, NotFound, Refused, Unavailable
from engine.store.base import utc_now
from engine.store.blobs import BlobStore
from engine.store.dump import Listing, line_as_row, read_lines, rows_as_lines, write_lines
from engine.store.integrity import blob_columns
from engine.store.session import Workspace, head_revision, open_workspace, revision, upgrade
from engine.store.tables import metadata

MANIFEST = "manifest.json"
BLOBS = "blobs"
_FORMAT = "maskloop-backup"
_VERSION = 1
_CHUNK = 1000
Progress = Callable[[int, int], None]


@dataclass(frozen=True)
class Manifest:
    """What a backup says of itself; `blobs_included` is False where files were listed and not copied."""

    revision: str
    app_version: str
    database: str
    created_at: str
    tables: dict[str, Listing]
    columns: dict[str, list[str]]
    blobs: Listing
    blobs_included: bool

    @property
    def n_rows(self) -> int:
        """Rows of all tables together."""
        return sum(listing.n_rows for listing in self.tables.values())


class _Steps:
    """Counts what passes through it towards one total."""

    def __init__(self, told: Progress, total: int) -> None:
        self._told, self._total, self._done = told, total, 0

    def __call__(self, lines: Iterator[bytes]) -> Iterator[bytes]:
        for line in lines:
            yield line
            self._done += 1
            if self._done % 100 == 1 or self._done == self._total:
                self._told(self._done, self._total)


def back_up(
    workspace: Workspace, folder: Path, *, blobs: bool = True, on_progress: Progress | None = None
) -> Manifest:
    """Writes a backup to `folder`, which must be new or empty, while the installation keeps running.

    What was committed before the call is in it. Without `blobs` the files are listed, not copied. Raises
    Conflict for a folder with something in it, Unavailable for a damaged or missing file; then nothing stays.
    """
    folder = folder.resolve()
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise Conflict(f"{folder} is not an empty folder: choose a new one for the backup")
    folder.parent.mkdir(parents=True, exist_ok=True)
    draft = folder.with_name(f".{folder.name}.draft-{os.getpid()}")
    # Rows hold password digests and images may be private.
    draft.mkdir(mode=0o700)
    try:
        manifest = _write(workspace, draft, blobs, on_progress or _unseen)
        if folder.exists():
            folder.rmdir()
        draft.rename(folder)
    finally:
        shutil.rmtree(draft, ignore_errors=True)
    return manifest


def restore(settings: Settings, folder: Path, *, on_progress: Progress | None = None) -> Manifest:
    """Brings a backup into the empty installation of `settings`, making its database if there is none.

    The whole backup is verified before anything is written; rows go in by one transaction and are compared
    with the backup before it is committed. Raises BadInput for a folder that is no whole backup of this
    revision, Conflict for a database that has rows, Refused when the database does not take them.
    """
    told = on_progress or _unseen
    manifest = read_manifest(folder)
    _refuse_revision(manifest)
    if revision(settings) is not None:
        with _opened(settings) as workspace, workspace.read() as session:
            _refuse_rows(session)
    total = 2 * (manifest.n_rows + manifest.blobs.n_rows)
    step = _Steps(told, total)
    _verify_rows(folder, manifest, step)
    _verify_blobs(folder, manifest, BlobStore(settings.files.url), step)
    upgrade(settings)
    with _opened(settings) as workspace:
        _put_back(workspace, folder, manifest, step)
    return manifest


def read_manifest(folder: Path) -> Manifest:
    """The manifest of a backup; BadInput when it is missing, altered or of another format."""
    path = folder / MANIFEST
    if not path.is_file():
        raise BadInput(f"{folder} is no whole backup: it has no {MANIFEST}")
    try:
        fields = json.loads(path.read_bytes())
        if fields["format"] != _FORMAT or fields["version"] != _VERSION:
            raise BadInput(f"{path} is no {_FORMAT} of version {_VERSION}: use the Maskloop that wrote it")
        body = fields["backup"]
        if fields["sha256"] != _digest_of(body):
            raise BadInput(f"{MANIFEST} of the backup was altered: use another one")
        tables = {name: Listing(**listing) for name, listing in body.pop("tables").items()}
        return Manifest(**body | {"tables": tables, "blobs": Listing(**body["blobs"])})
    except (ValueError, KeyError, TypeError, AttributeError):
        raise BadInput(f"{MANIFEST} of the backup is cut short or damaged: use another one") from None


def _write(workspace: Workspace, draft: Path, blobs: bool, told: Progress) -> Manifest:
    tables = metadata.sorted_tables
    with _frozen(workspace, draft) as session:
        n_rows = sum(session.scalar(select(func.count()).select_from(table)) or 0 for table in tables)
        n_blobs = session.scalar(select(func.count()).select_from(_named_blobs().subquery())) or 0
        step = _Steps(told, n_rows + n_blobs)
        listings = {
            table.name: write_lines(
                draft, f"tables/{table.name}.jsonl.gz", step(rows_as_lines(session, table))
            )
            for table in tables
        }
        digests = session.scalars(_named_blobs().order_by("sha256").execution_options(yield_per=_CHUNK))
        listed = write_lines(draft, "blobs.txt.gz", (digest.encode() for digest in digests))
    if blobs:
        _copy_blobs(workspace.blobs, draft, listed, step)
    manifest = Manifest(
        revision=head_revision(),
        app_version=_app_version(),
        database=workspace.engine.dialect.name,
        created_at=utc_now().isoformat(timespec="seconds"),
        tables=listings,
        columns={table.name: table.columns.keys() for table in tables},
        blobs=listed,
        blobs_included=blobs,
    )
    _write_manifest(draft, manifest)
    return manifest


@contextmanager
def _frozen(workspace: Workspace, draft: Path) -> Iterator[Session]:
    """A session that sees one moment of the database for as long as it takes."""
    if workspace.engine.dialect.name == "postgresql":
        with workspace.read() as session:
            session.execute(text("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ"))
            session.execute(text("SET LOCAL idle_in_transaction_session_timeout = 0"))
            yield session
        return
    # SQLite's own online backup: a reader of minutes would keep the write-ahead log from being cut back.
    copy = draft / "copy" / "maskloop.db"
    copy.parent.mkdir()
    with workspace.read() as session, closing(sqlite3.connect(copy)) as target:
        session.connection().connection.driver_connection.backup(target)  # type: ignore[union-attr]
    database = workspace.settings.database.model_copy(update={"url": f"sqlite:///{copy}"})
    with _opened(workspace.settings.model_copy(update={"database": database})) as frozen:
        with frozen.read() as session:
            yield session
    shutil.rmtree(copy.parent)


def _copy_blobs(source: BlobStore, draft: Path, listed: Listing, step: _Steps) -> None:
    target = _files_of(draft)
    for digest in step(read_lines(draft, listed)):
        try:
            target.put(source.read(digest.decode()))
        except NotFound as error:
            again = "if `maskloop gc` or a takedown ran meanwhile, run the backup again"
            raise Unavailable(f"{error}; {again}") from None


def _files_of(folder: Path) -> BlobStore:
    return BlobStore(f"file://{(folder / BLOBS).absolute()}")


def _write_manifest(draft: Path, manifest: Manifest) -> None:
    body = asdict(manifest)
    fields = {"format": _FORMAT, "version": _VERSION, "sha256": _digest_of(body), "backup": body}
    with (draft / MANIFEST).open("w") as file:
        json.dump(fields, file, indent=1)
        file.flush()
        os.fsync(file.fileno())


def _digest_of(body: dict[str, Any]) -> str:
    return hashlib.sha256(json.dumps(body, sort_keys=True).encode()).hexdigest()


def _named_blobs() -> Any:
    return union(*(select(column.label("sha256")) for column in blob_columns()))


def _app_version() -> str:
    try:
        return version("maskloop")
    except PackageNotFoundError:
        return "unknown"


def _refuse_revision(manifest: Manifest) -> None:
    wanted = head_revision()
    if manifest.revision != wanted:
        raise BadInput(
            f"the backup is of revision {manifest.revision}, this Maskloop is at {wanted}: restore it with "
            f"Maskloop {manifest.app_version}, then update and run `maskloop db upgrade`"
        )
    if manifest.columns != {table.name: table.columns.keys() for table in metadata.sorted_tables}:
        raise BadInput(
            f"the backup has other tables than revision {wanted}: restore it with its own Maskloop"
        )


def _refuse_rows(session: Session) -> None:
    for table in metadata.sorted_tables:
        if session.execute(select(table).limit(1)).first() is not None:
            raise Conflict(
                f"the database has rows already ({table.name}): restore into a new home or database"
            )


def _verify_rows(folder: Path, manifest: Manifest, step: _Steps) -> None:
    for listing in manifest.tables.values():
        for _ in step(read_lines(folder, listing)):
            continue


def _verify_blobs(folder: Path, manifest: Manifest, target: BlobStore, step: _Steps) -> None:
    """Every file whole in the backup; of one without files, every file present where it is to be used."""
    copies = _files_of(folder)
    for digest in step(read_lines(folder, manifest.blobs)):
        sha256 = digest.decode()
        try:
            if manifest.blobs_included:
                copies.read(sha256)
            else:
                target.size(sha256)
        except (NotFound, Unavailable):
            where = f"the backup's {BLOBS}/" if manifest.blobs_included else target.url
            raise BadInput(
                f"the file {sha256} is missing from {where} or damaged: use another backup"
            ) from None


def _put_back(workspace: Workspace, folder: Path, manifest: Manifest, step: _Steps) -> None:
    """Files first, then the rows that name them; when the rows are not taken, the new files go again."""
    new: list[str] = []
    try:
        if manifest.blobs_included:
            copies = _files_of(folder)
            for digest in step(read_lines(folder, manifest.blobs)):
                sha256 = digest.decode()
                if not workspace.blobs.exists(sha256):
                    new.append(sha256)
                    workspace.blobs.put(copies.read(sha256))
        with workspace.write() as session:
            _insert_all(session, folder, manifest, step)
    except BaseException:
        for sha256 in new:
            workspace.blobs.delete(sha256)
        raise


def _insert_all(session: Session, folder: Path, manifest: Manifest, step: _Steps) -> None:
    tables = metadata.sorted_tables
    table = tables[0]
    try:
        _make_ready(session, tables)
        _refuse_rows(session)
        for table in tables:
            lines = step(read_lines(folder, manifest.tables[table.name]))
            while chunk := [line_as_row(table, line) for line in islice(lines, _CHUNK)]:
                session.execute(insert(table), chunk)
        _make_good(session, tables)
    except OperationalError:
        raise
    except DBAPIError as error:
        reason = str(error.orig).strip().splitlines()[0]
        raise Refused(f"the database does not take {table.name} ({reason}): nothing was restored") from error
    for table in tables:
        _compare(session, table, manifest.tables[table.name])


def _compare(session: Session, table: Table, listing: Listing) -> None:
    """Raises Refused unless the database gives back what the backup holds."""
    digest = hashlib.sha256()
    for line in rows_as_lines(session, table):
        digest.update(line + b"\n")
    if digest.hexdigest() != listing.content_sha256:
        raise Refused(f"the database gives {table.name} back differently: nothing was restored")


def _make_ready(session: Session, tables: list[Table]) -> None:
    """Keys that point at rows yet to come are held at the end; nobody else writes until then."""
    if session.get_bind().dialect.name == "sqlite":
        session.execute(text("PRAGMA defer_foreign_keys = ON"))
        return
    session.execute(text("SET LOCAL idle_in_transaction_session_timeout = 0"))
    session.execute(text(f"LOCK TABLE {', '.join(table.name for table in tables)} IN EXCLUSIVE MODE"))
    for table, constraint in _forward_keys(tables):
        session.execute(
            text(f"ALTER TABLE {table} ALTER CONSTRAINT {constraint} DEFERRABLE INITIALLY DEFERRED")
        )


def _make_good(session: Session, tables: list[Table]) -> None:
    """Holds the keys as before, and lets Postgres number new rows after the restored ones."""
    if session.get_bind().dialect.name == "sqlite":
        return
    session.execute(text("SET CONSTRAINTS ALL IMMEDIATE"))
    for table, key in _forward_keys(tables):
        session.execute(text(f"ALTER TABLE {table} ALTER CONSTRAINT {key} NOT DEFERRABLE"))
    for one in tables:
        if "id" in one.columns:
            sequence = f"pg_get_serial_sequence('{one.name}', 'id')"
            session.execute(text(f"SELECT setval({sequence}, max(id)) FROM {one.name} HAVING max(id) > 0"))


def _forward_keys(tables: list[Table]) -> list[tuple[str, str]]:
    """(table, constraint) of the foreign keys whose parent is inserted with or after the child."""
    place = {table.name: number for number, table in enumerate(tables)}
    return [
        (table.name, str(key.constraint.name))
        for table in tables
        for key in table.foreign_keys
        if key.constraint is not None and place[key.column.table.name] >= place[table.name]
    ]


@contextmanager
def _opened(settings: Settings) -> Iterator[Workspace]:
    workspace = open_workspace(settings)
    try:
        yield workspace
    finally:
        workspace.close()


def _unseen(_done: int, _total: int) -> None:
    """For a caller that shows no progress."""
