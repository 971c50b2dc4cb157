"""Upgrading a database that others use: what holds a table is waited for, and a newer database is refused."""

import threading
from pathlib import Path

import psycopg
import pytest
from sqlalchemy import text

from engine.errors import Unavailable
from engine.store import session as store
from engine.store.session import Workspace
from tests.conftest import a_home

BEFORE = "0003"


def test_an_upgrade_waits_for_a_save_that_holds_one_table_and_comes_to_another(
    tmp_path: Path, empty_postgres: str
) -> None:
    """Each would wait for the other; the server would end one of them as a deadlock."""
    settings = a_home(tmp_path / "home", empty_postgres)
    store.upgrade(settings, BEFORE)
    upgrading = threading.Thread(target=store.upgrade, args=(settings,))
    with psycopg.connect(empty_postgres) as save:
        save.execute("SELECT * FROM images")
        upgrading.start()
        # Long enough for the upgrade to have met the lock on images, twice.
        upgrading.join(1.5)
        save.execute("UPDATE datasets SET open_stage = NULL")
        save.commit()
    upgrading.join(30)
    assert store.revision(settings) == store.head_revision()


def test_tables_never_free_end_the_upgrade_in_a_sentence_and_change_nothing(
    tmp_path: Path, empty_postgres: str
) -> None:
    """As during a backup by pg_dump, which reads every table in one transaction."""
    settings = a_home(tmp_path / "home", empty_postgres)
    store.upgrade(settings, BEFORE)
    with psycopg.connect(empty_postgres) as backup:
        backup.execute("SELECT * FROM images")
        with pytest.raises(Unavailable, match="in use without a pause"):
            store.upgrade(settings, patience_s=0.1)
    assert store.revision(settings) == BEFORE


def test_an_upgrade_with_nothing_to_do_waits_for_nobody(tmp_path: Path, empty_postgres: str) -> None:
    """docker-compose runs `db upgrade` at every start."""
    settings = a_home(tmp_path / "home", empty_postgres)
    store.upgrade(settings)
    with psycopg.connect(empty_postgres) as reader:
        reader.execute("SELECT * FROM images")
        store.upgrade(settings)


def test_an_upgrade_by_older_code_refuses_the_database(workspace: Workspace) -> None:
    with workspace.write() as session:
        session.execute(text("UPDATE alembic_version SET version_num = 'later'"))
    try:
        with pytest.raises(Unavailable, match=r"newer \(later\) than the code .*: update Maskloop"):
            store.upgrade(workspace.settings)
    finally:
        # The Postgres database is shared with the tests that follow.
        with workspace.write() as session:
            session.execute(text(f"UPDATE alembic_version SET version_num = '{store.head_revision()}'"))
