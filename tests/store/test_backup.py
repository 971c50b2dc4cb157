"""A backup holds every row and file, comes back on either database, and is refused when it is not whole."""

import gzip
import json
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import Table, select, text

from engine.config import Settings
from engine.errors import BadInput, Conflict, Refused, Unavailable
from engine.pipeline.doctor import examine
from engine.store.backup import Manifest, back_up, read_manifest, restore
from engine.store.dump import rows_as_lines
from engine.store.images import Image
from engine.store.integrity import blob_columns
from engine.store.session import Workspace, open_workspace, revision
from engine.store.tables import metadata
from engine.store.users import User
from tests.conftest import a_home
from tests.factories import a_user
from tests.whole import a_whole_home, fill


@contextmanager
def opened(settings: Settings) -> Iterator[Workspace]:
    workspace = open_workspace(settings)
    try:
        yield workspace
    finally:
        workspace.close()


def rows(workspace: Workspace) -> dict[str, list[bytes]]:
    with workspace.read() as session:
        return {table.name: list(rows_as_lines(session, table)) for table in metadata.sorted_tables}


def plain_rows(workspace: Workspace, table: Table) -> list[tuple[Any, ...]]:
    with workspace.read() as session:
        return [tuple(row) for row in session.execute(select(table).order_by(*table.primary_key.columns))]


def files(workspace: Workspace) -> dict[str, bytes]:
    with workspace.read() as session:
        digests = {digest for column in blob_columns() for digest in session.scalars(select(column))}
    return {digest: workspace.blobs.read(digest) for digest in digests}


@pytest.fixture(params=["sqlite", "postgres"])
def target(request: pytest.FixtureRequest, tmp_path: Path) -> Settings:
    """A home without a table."""
    url = None if request.param == "sqlite" else request.getfixturevalue("empty_postgres")
    return a_home(tmp_path / "target", url)


@pytest.fixture(scope="module")
def whole_backup(tmp_path_factory: pytest.TempPathFactory, sqlite_template: Path) -> Path:
    """The backup of a filled home, to be copied."""
    folder = tmp_path_factory.mktemp("whole")
    with opened(a_whole_home(folder / "home", sqlite_template)) as workspace:
        back_up(workspace, folder / "backup")
    return folder / "backup"


@pytest.fixture
def backup(whole_backup: Path, tmp_path: Path) -> Path:
    return shutil.copytree(whole_backup, tmp_path / "backup")


@pytest.fixture
def elsewhere(tmp_path: Path) -> Settings:
    return a_home(tmp_path / "elsewhere")


def test_every_row_and_file_comes_back_on_either_database(
    workspace: Workspace, target: Settings, tmp_path: Path
) -> None:
    fill(workspace)
    written = back_up(workspace, tmp_path / "backup")
    assert read_manifest(tmp_path / "backup") == written
    assert restore(target, tmp_path / "backup") == written
    with opened(target) as restored:
        assert rows(restored) == rows(workspace)
        assert plain_rows(restored, Image.__table__) == plain_rows(workspace, Image.__table__)
        assert files(restored) == files(workspace)
        again = back_up(restored, tmp_path / "again")
        assert (again.tables, again.blobs) == (written.tables, written.blobs)
        assert examine(restored).findings == []
        with restored.write() as session:
            assert a_user(session, 3).id == 3, "new rows are numbered after the restored ones"
        for table in ("masks", "annotations"):
            with pytest.raises(Exception, match="facts"), restored.write() as session:
                session.execute(text(f"DELETE FROM {table}"))
        with pytest.raises(Exception, match=r"(?i)foreign key"), restored.write() as session:
            session.execute(text("UPDATE assignments SET user_id = 99"))


def test_a_backup_is_one_moment_though_people_go_on(workspace: Workspace, tmp_path: Path) -> None:
    fill(workspace)
    before = rows(workspace)
    late: list[int] = []

    def somebody_joins(_done: int, _total: int) -> None:
        if not late:
            with workspace.write() as session:
                late.append(a_user(session, 9).id)

    written = back_up(workspace, tmp_path / "backup", on_progress=somebody_joins)
    assert late and rows(workspace)["users"] != before["users"]
    assert written.tables["users"].n_rows == len(before["users"])


def test_a_backup_needs_a_folder_of_its_own(sqlite_workspace: Workspace, tmp_path: Path) -> None:
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "letter.txt").touch()
    with pytest.raises(Conflict, match="choose a new one"):
        back_up(sqlite_workspace, tmp_path / "out")
    assert [path.name for path in (tmp_path / "out").iterdir()] == ["letter.txt"]


def test_a_backup_that_misses_a_file_is_not_made(sqlite_workspace: Workspace, tmp_path: Path) -> None:
    fill(sqlite_workspace)
    sqlite_workspace.blobs.delete(next(iter(files(sqlite_workspace))))
    with pytest.raises(Unavailable, match="run the backup again"):
        back_up(sqlite_workspace, tmp_path / "new" / "backup")
    assert list((tmp_path / "new").iterdir()) == []
    assert back_up(sqlite_workspace, tmp_path / "rows", blobs=False).blobs.n_rows == 8


def test_a_database_with_rows_is_left_as_it_is(backup: Path, sqlite_workspace: Workspace) -> None:
    with sqlite_workspace.write() as session:
        a_user(session)
    before = rows(sqlite_workspace)
    with pytest.raises(Conflict, match=r"has rows already \(users\): restore into a new home"):
        restore(sqlite_workspace.settings, backup)
    assert rows(sqlite_workspace) == before


def cut(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-9])


def alter(path: Path) -> None:
    with gzip.open(path) as packed:
        content = packed.read()
    with gzip.open(path, "wb") as packed:
        packed.write(content.replace(b"1", b"2", 1))


def flip(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)


def edit(path: Path) -> None:
    path.write_text(path.read_text().replace('"n_rows": 1', '"n_rows": 2', 1))


def add_line(path: Path) -> None:
    with gzip.open(path, "ab") as packed:
        packed.write(b"[]\n")


def forget(path: Path) -> None:
    path.unlink()


HARM: list[tuple[str, Callable[[Path], None], str]] = [
    ("tables/masks.jsonl.gz", cut, "tables/masks.jsonl.gz of the backup is cut short"),
    ("tables/masks.jsonl.gz", alter, "tables/masks.jsonl.gz of the backup was altered"),
    ("tables/masks.jsonl.gz", flip, "tables/masks.jsonl.gz of the backup"),
    ("tables/events.jsonl.gz", add_line, "tables/events.jsonl.gz of the backup was altered"),
    ("tables/users.jsonl.gz", forget, "tables/users.jsonl.gz is missing"),
    ("blobs.txt.gz", cut, "blobs.txt.gz of the backup is cut short"),
    ("blobs.txt.gz", forget, "blobs.txt.gz is missing"),
    ("manifest.json", edit, "manifest.json of the backup was altered"),
    ("manifest.json", cut, "manifest.json of the backup is cut short"),
    ("manifest.json", forget, "it has no manifest.json"),
    ("blobs/*/*/*", flip, "is missing from the backup's blobs/ or damaged"),
    ("blobs/*/*/*", cut, "is missing from the backup's blobs/ or damaged"),
    ("blobs/*/*/*", forget, "is missing from the backup's blobs/ or damaged"),
]


@pytest.mark.parametrize(
    ("pattern", "harm", "sentence"), HARM, ids=lambda part: getattr(part, "__name__", part)
)
def test_a_backup_that_is_not_whole_is_refused_and_nothing_written(
    backup: Path, elsewhere: Settings, pattern: str, harm: Callable[[Path], None], sentence: str
) -> None:
    harm(sorted(backup.glob(pattern))[0])
    before = set(elsewhere.home.iterdir())
    with pytest.raises(BadInput, match=sentence):
        restore(elsewhere, backup)
    assert set(elsewhere.home.iterdir()) == before


def forge(backup: Path, **changes: Any) -> None:
    """Writes another manifest, as another version of Maskloop would have written it."""
    from engine.store.backup import _write_manifest

    fields = vars(read_manifest(backup)) | changes
    _write_manifest(backup, Manifest(**fields))


def test_a_backup_of_another_revision_names_the_version_to_use(backup: Path, elsewhere: Settings) -> None:
    forge(backup, revision="0002", app_version="0.0.7")
    with pytest.raises(BadInput, match=r"of revision 0002.*restore it with Maskloop 0\.0\.7.*db upgrade"):
        restore(elsewhere, backup)
    assert revision(elsewhere) is None


def test_a_backup_with_other_columns_is_refused(backup: Path, elsewhere: Settings) -> None:
    forge(backup, columns={"masks": ["id"]})
    with pytest.raises(BadInput, match="other tables"):
        restore(elsewhere, backup)
    assert revision(elsewhere) is None


def test_a_manifest_of_another_format_is_refused(backup: Path, elsewhere: Settings) -> None:
    (backup / "manifest.json").write_text(json.dumps({"format": "maskloop-manifest", "version": 1}))
    with pytest.raises(BadInput, match="is no maskloop-backup"):
        restore(elsewhere, backup)


def test_rows_that_the_database_does_not_take_leave_nothing_behind(
    sqlite_workspace: Workspace, tmp_path: Path, empty_postgres: str
) -> None:
    """SQLite keeps a NUL in a text, Postgres does not."""
    fill(sqlite_workspace)
    with sqlite_workspace.write() as session:
        session.add(User(name="nul\0", role="annotator"))
    back_up(sqlite_workspace, tmp_path / "backup")
    there = a_home(tmp_path / "there", empty_postgres)
    with pytest.raises(Refused, match="does not take users .*nothing was restored"):
        restore(there, tmp_path / "backup")
    with opened(there) as workspace:
        assert not any(rows(workspace).values())
    assert not [path for path in (there.home / "blobs").rglob("*") if path.is_file()]


def test_without_files_a_backup_serves_where_they_still_are(
    sqlite_workspace: Workspace, tmp_path: Path, elsewhere: Settings
) -> None:
    fill(sqlite_workspace)
    back_up(sqlite_workspace, tmp_path / "rows", blobs=False)
    assert not (tmp_path / "rows" / "blobs").exists()
    with pytest.raises(BadInput, match=r"is missing from file://.*elsewhere/blobs"):
        restore(elsewhere, tmp_path / "rows")
    assert revision(elsewhere) is None
    there = elsewhere.files.model_copy(update={"url": sqlite_workspace.settings.files.url})
    shared = elsewhere.model_copy(update={"files": there})
    restore(shared, tmp_path / "rows")
    with opened(shared) as restored:
        assert rows(restored) == rows(sqlite_workspace) and examine(restored).findings == []
