"""Opening the workspace: its two kinds of session, and what it says when something is wrong."""

import os
import threading
from pathlib import Path

import pytest
from sqlalchemy import select, text

from engine.config import Settings, load_settings
from engine.errors import BadInput, Unavailable
from engine.store.datasets import Dataset, add_dataset
from engine.store.session import Workspace, head_revision, open_workspace, revision, upgrade
from tests.conftest import a_home


def test_opening_a_home_that_was_never_set_up_makes_no_file(settings: Settings) -> None:
    with pytest.raises(Unavailable, match="maskloop db upgrade"):
        open_workspace(settings)
    assert sorted(os.listdir(settings.home)) == ["config.toml", "stages"]
    assert revision(settings) is None


def test_upgrade_is_safe_to_repeat_and_to_race(settings: Settings) -> None:
    threads = [threading.Thread(target=upgrade, args=(settings,)) for _ in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    upgrade(settings)
    assert revision(settings) == head_revision()


def test_a_write_that_fails_leaves_nothing(workspace: Workspace) -> None:
    with pytest.raises(ZeroDivisionError), workspace.write() as session:
        add_dataset(session, "half")
        raise ZeroDivisionError
    with workspace.read() as session:
        assert session.scalars(select(Dataset)).all() == []


def test_rows_stay_readable_after_their_session(workspace: Workspace) -> None:
    with workspace.write() as session:
        made = add_dataset(session, "kept")
    with workspace.read() as session:
        found = session.scalars(select(Dataset)).one()
    assert (made.name, found.name, found.created_at) == ("kept", "kept", made.created_at)


def test_a_reading_session_may_change_nothing(workspace: Workspace) -> None:
    with pytest.raises(Exception, match="read-?only"), workspace.read() as session:
        add_dataset(session, "smuggled")
    with workspace.write() as session:
        add_dataset(session, "written on the same connection")


def test_two_writers_take_turns_and_lose_no_update(workspace: Workspace) -> None:
    with workspace.write() as session:
        add_dataset(session, "counted").settings = {"n": 0}

    def count() -> None:
        for _ in range(10):
            with workspace.write() as session:
                dataset = session.scalars(select(Dataset).with_for_update()).one()
                dataset.settings = {"n": dataset.settings["n"] + 1}

    threads = [threading.Thread(target=count) for _ in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    with workspace.read() as session:
        assert session.scalars(select(Dataset)).one().settings == {"n": 30}


def test_a_database_locked_for_too_long_is_unavailable(settings: Settings, sqlite_template: Path) -> None:
    (settings.home / "maskloop.db").write_bytes(sqlite_template.read_bytes())
    impatient = load_settings(settings.home, {"database": {"lock_timeout_s": 0.05}})
    workspace = open_workspace(impatient)
    with workspace.write() as first:
        add_dataset(first, "slow")
        with pytest.raises(Unavailable, match="locked"), workspace.write() as second:
            add_dataset(second, "late")
    workspace.close()


def test_sqlite_keeps_what_it_acknowledged_and_checks_keys(sqlite_workspace: Workspace) -> None:
    wanted = {"journal_mode": "wal", "synchronous": 2, "foreign_keys": 1}
    with sqlite_workspace.read() as session:
        found = {name: session.scalar(text(f"PRAGMA {name}")) for name in wanted}
    assert found == wanted


def test_the_page_may_not_run_a_long_statement(postgres_workspace: Workspace) -> None:
    home = postgres_workspace.settings.home
    url = postgres_workspace.settings.database.url
    hasty = load_settings(home, {"database": {"url": url, "statement_timeout_s": 0.05}})
    page = open_workspace(hasty, bound_statements=True)
    with pytest.raises(Unavailable, match="timeout"), page.read() as session:
        session.execute(text("SELECT pg_sleep(3)"))
    page.close()
    with postgres_workspace.read() as session:
        session.execute(text("SELECT pg_sleep(0.1)"))


@pytest.mark.parametrize(
    ("url", "sentence"),
    [
        ("no address", "no database address"),
        ("mysql://root@localhost/x", "sqlite or postgresql"),
        ("sqlite://", "must name a SQLite file"),
    ],
)
def test_an_unusable_address_is_refused(tmp_path: Path, url: str, sentence: str) -> None:
    with pytest.raises(BadInput, match=sentence):
        open_workspace(a_home(tmp_path / "home", url))


def test_a_server_that_is_away_is_unavailable_and_its_password_unsaid(tmp_path: Path) -> None:
    away = a_home(tmp_path / "home", "postgresql://someone:hidden-word@127.0.0.1:1/none")
    with pytest.raises(Unavailable) as refusal:
        open_workspace(away)
    assert "hidden-word" not in str(refusal.value)
