"""Accounts on a real database: who may sign in, how long, and what a copy of the tables would give away."""

import threading
from datetime import timedelta

import argon2
import pytest
from sqlalchemy import select, update
from sqlalchemy.orm import Session

from engine.errors import BadInput, Conflict, NotFound, Refused
from engine.pipeline import accounts
from engine.store.base import utc_now
from engine.store.events import Event
from engine.store.session import Workspace
from engine.store.users import SignInLink, SignInSession, User

PASSWORD = "correct horse battery"
CHEAP = argon2.PasswordHasher(time_cost=1, memory_cost=8, parallelism=1)


def add(session: Session, name: str = "ada", role: str = "annotator", password: str | None = None) -> int:
    return accounts.add_user(session, name, role, password).id


def test_a_password_signs_in_its_own_account_and_no_other(workspace: Workspace) -> None:
    with workspace.write() as session:
        ada = add(session, password=PASSWORD)
        add(session, "bob", password="another long password")
    with workspace.read() as session:
        found = accounts.check_password(session, " ada ", PASSWORD)
        assert found is not None and found.id == ada
        assert accounts.check_password(session, "bob", PASSWORD) is None
        assert accounts.check_password(session, "nobody", PASSWORD) is None


def test_the_tables_hold_neither_password_nor_cookie_nor_token(workspace: Workspace) -> None:
    with workspace.write() as session:
        ada = add(session, password=PASSWORD)
        cookie, _ = accounts.open_session(session, workspace.settings, ada)
        token = accounts.make_link(session, ada)
    with workspace.read() as session:
        stored = str(session.scalars(select(User.password_hash)).one())
        assert stored.startswith("$argon2id$") and PASSWORD not in stored
        assert cookie not in session.scalars(select(SignInSession.id_sha256)).one()
        assert token not in session.scalars(select(SignInLink.token_sha256)).one()


@pytest.mark.parametrize("name", ["", "a" * 65, "a b", "-a", "a\x00", "<b>", "a/../b"])
def test_a_name_that_is_no_name_is_refused(workspace: Workspace, name: str) -> None:
    with workspace.write() as session, pytest.raises(BadInput, match="user name"):
        add(session, name)


def test_a_taken_name_is_a_conflict_and_leaves_the_transaction_usable(workspace: Workspace) -> None:
    with workspace.write() as session:
        add(session)
        with pytest.raises(Conflict, match="already a user"):
            add(session)
        assert add(session, "bob") > 0


@pytest.mark.parametrize("password", ["short", "x" * 1025])
def test_a_password_of_wrong_length_is_refused(workspace: Workspace, password: str) -> None:
    with workspace.write() as session, pytest.raises(BadInput, match="12 to 1024"):
        add(session, password=password)


def test_an_unknown_role_is_refused(workspace: Workspace) -> None:
    with workspace.write() as session, pytest.raises(BadInput, match="choose one of"):
        add(session, role="root")


def test_a_simulated_annotator_never_signs_in(workspace: Workspace) -> None:
    with workspace.write() as session:
        robot = add(session, "robot", role="simulated")
        with pytest.raises(Refused):
            accounts.make_link(session, robot)
        with pytest.raises(Refused):
            accounts.open_session(session, workspace.settings, robot)
        with pytest.raises(Refused):
            accounts.set_password(session, robot, PASSWORD)
        with pytest.raises(Refused):
            accounts.set_role(session, robot, "admin")
        with pytest.raises(BadInput):
            add(session, "robot2", role="simulated", password=PASSWORD)


def test_a_session_ends_after_idling_and_in_any_case_at_its_end(sqlite_workspace: Workspace) -> None:
    settings = sqlite_workspace.settings
    idle = timedelta(seconds=settings.web.session_idle_s + 1)
    for column, at in (("last_seen_at", utc_now() - idle), ("expires_at", utc_now() - timedelta(seconds=1))):
        with sqlite_workspace.write() as session:
            cookie, _ = accounts.open_session(session, settings, add(session, f"user.{column}"))
            assert accounts.session_user(session, settings, cookie) is not None
            session.execute(update(SignInSession).values({column: at}))
            session.expire_all()
            assert accounts.session_user(session, settings, cookie) is None


def test_a_used_session_is_noted_once_a_minute_and_lives_on(sqlite_workspace: Workspace) -> None:
    settings = sqlite_workspace.settings
    with sqlite_workspace.write() as session:
        cookie, row = accounts.open_session(session, settings, add(session))
        assert not accounts.touch_due(settings, row)
        row.last_seen_at = utc_now() - timedelta(seconds=61)
        assert accounts.touch_due(settings, row)
        accounts.touch_session(session, row.id_sha256)
        session.expire_all()
        found = accounts.session_user(session, settings, cookie)
        assert found is not None and not accounts.touch_due(settings, found[1])


@pytest.mark.parametrize("act", ["close", "deactivate", "role", "password"])
def test_what_changes_an_account_ends_its_sessions(sqlite_workspace: Workspace, act: str) -> None:
    settings = sqlite_workspace.settings
    with sqlite_workspace.write() as session:
        ada = add(session)
        cookie, _ = accounts.open_session(session, settings, ada)
        token = accounts.make_link(session, ada)
        {
            "close": lambda: accounts.close_session(session, cookie),
            "deactivate": lambda: accounts.deactivate(session, ada),
            "role": lambda: accounts.set_role(session, ada, "researcher"),
            "password": lambda: accounts.set_password(session, ada, PASSWORD),
        }[act]()
    with sqlite_workspace.write() as session:
        assert accounts.session_user(session, settings, cookie) is None
        assert (accounts.redeem_link(session, token) is None) == (act != "close")


def test_changing_ones_own_password_keeps_this_session_and_ends_the_others(workspace: Workspace) -> None:
    settings = workspace.settings
    with workspace.write() as session:
        ada = add(session, password=PASSWORD)
        here, _ = accounts.open_session(session, settings, ada)
        there, _ = accounts.open_session(session, settings, ada)
        accounts.set_password(session, ada, "a quite different one", keep=here)
    with workspace.read() as session:
        assert accounts.session_user(session, settings, here) is not None
        assert accounts.session_user(session, settings, there) is None
        assert accounts.check_password(session, "ada", PASSWORD) is None


def test_a_deactivated_account_cannot_sign_in_with_its_right_password(workspace: Workspace) -> None:
    with workspace.write() as session:
        accounts.deactivate(session, add(session, password=PASSWORD))
    with workspace.read() as session:
        assert accounts.check_password(session, "ada", PASSWORD) is None


def test_a_link_signs_in_once_and_not_after_its_time(workspace: Workspace) -> None:
    with workspace.write() as session:
        ada = add(session)
        token, late = accounts.make_link(session, ada), accounts.make_link(session, ada, ttl_s=-1)
    with workspace.write() as session:
        assert accounts.redeem_link(session, late) is None
        found = accounts.redeem_link(session, token)
        assert found is not None and found.id == ada
    with workspace.write() as session:
        assert accounts.redeem_link(session, token) is None


def test_of_two_browsers_that_redeem_a_link_at_once_one_gets_in(workspace: Workspace) -> None:
    with workspace.write() as session:
        token = accounts.make_link(session, add(session))
    start, winners = threading.Barrier(2), []

    def redeem() -> None:
        start.wait()
        with workspace.write() as session:
            winners.append(accounts.redeem_link(session, token))

    threads = [threading.Thread(target=redeem) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(winners) == 2 and sum(user is not None for user in winners) == 1


def test_a_hash_of_older_parameters_is_renewed_at_sign_in(sqlite_workspace: Workspace) -> None:
    with sqlite_workspace.write() as session:
        ada = accounts.add_user(session, "ada", "annotator")
        ada.password_hash = CHEAP.hash(PASSWORD)
    with sqlite_workspace.write() as session:
        found = accounts.check_password(session, "ada", PASSWORD)
        assert found is not None
        accounts.open_session(session, sqlite_workspace.settings, found.id, password=PASSWORD)
        assert not accounts._hasher.check_needs_rehash(found.password_hash or "")
        assert accounts.check_password(session, "ada", PASSWORD) is not None


def test_an_unknown_name_costs_a_hash_of_todays_parameters() -> None:
    assert not accounts._hasher.check_needs_rehash(accounts.ABSENT)


def test_an_expired_session_is_swept_when_somebody_signs_in(sqlite_workspace: Workspace) -> None:
    with sqlite_workspace.write() as session:
        ada = add(session)
        accounts.open_session(session, sqlite_workspace.settings, ada)
        session.execute(update(SignInSession).values(expires_at=utc_now() - timedelta(seconds=1)))
        accounts.open_session(session, sqlite_workspace.settings, ada)
        assert len(session.scalars(select(SignInSession.id_sha256)).all()) == 1


def test_sign_ins_and_changes_of_role_are_in_the_log(sqlite_workspace: Workspace) -> None:
    with sqlite_workspace.write() as session:
        ada = add(session)
        accounts.set_role(session, ada, "admin")
        accounts.open_session(session, sqlite_workspace.settings, ada)
    with sqlite_workspace.read() as session:
        kinds = session.scalars(select(Event.kind).where(Event.subject_id == ada).order_by(Event.id)).all()
    assert kinds == ["user.added", "user.role", "user.signed_in"]


def test_unknown_people_are_named_in_the_sentence(sqlite_workspace: Workspace) -> None:
    with sqlite_workspace.write() as session:
        add(session)
        assert accounts.user_named(session, "ada").name == "ada"
        assert [user.name for user in accounts.list_users(session)] == ["ada"]
        with pytest.raises(NotFound, match="'eve'"):
            accounts.user_named(session, "eve")
        with pytest.raises(NotFound, match="id 99"):
            accounts.set_role(session, 99, "admin")
