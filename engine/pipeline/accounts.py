"""Accounts: people, their passwords, sign-in sessions and one-time links. There is no default account.

argon2 is imported here and not in the web app, because the command line adds people too.
"""

import hashlib
import hmac
import re
import secrets
import threading
import unicodedata
from datetime import timedelta

import argon2
from sqlalchemy import delete, select, update
from sqlalchemy.exc import IntegrityError
from sqlalchemy.orm import Session

from engine.config import Settings
from engine.errors import BadInput, Conflict, NotFound, Refused
from engine.store.base import utc_now
from engine.store.events import record_event
from engine.store.users import ROLES, SignInLink, SignInSession, User

MIN_PASSWORD = 12
MAX_PASSWORD = 1024
NAME = re.compile(r"[^\W_][\w.@+-]{0,63}")
# Verified against when the name is unknown, so that both answers take the same time; of a forgotten password.
ABSENT = "$argon2id$v=19$m=65536,t=3,p=4$qdxKJhOArA9D+iP77052DQ$Nt2aDh0fJaocPmS/mScLN8KxveRiLOyASL6zPivKpK8"
# One hash needs 64 MiB and 4 lanes: more at once would be a way to take the machine down.
_hashing = threading.BoundedSemaphore(2)
_hasher = argon2.PasswordHasher()


def add_user(session: Session, name: str, role: str, password: str | None = None) -> User:
    """A new person; without a password they sign in by a link, or (role `simulated`) not at all.

    Raises BadInput for a malformed name, role or password and Conflict when the name is taken.
    """
    plain = _plain_name(name)
    _check_role(role, with_simulated=True)
    if role == "simulated" and password is not None:
        raise BadInput("a simulated annotator has no password: leave it out")
    user = User(name=plain, role=role, password_hash=None if password is None else _hash(password))
    try:
        with session.begin_nested():
            session.add(user)
    except IntegrityError:
        raise Conflict(f"there is already a user named {plain!r}: choose another name") from None
    record_event(session, "user.added", subject_id=user.id, role=role)
    return user


def user_named(session: Session, name: str) -> User:
    """The person of that name; NotFound otherwise."""
    found = session.scalar(select(User).where(User.name == _normal(name)))
    if found is None:
        raise NotFound(f"no user named {name!r}: `maskloop users list` shows them")
    return found


def list_users(session: Session) -> list[User]:
    """Everybody, by name."""
    return list(session.scalars(select(User).order_by(User.name)))


def check_password(session: Session, name: str, password: str) -> User | None:
    """The active person whose name and password these are, or None; takes equal time for unknown names.

    Reads only, so that no write lock is held while hashing; `open_session` renews an old hash afterwards.
    """
    user = session.scalar(select(User).where(User.name == _normal(name)))
    password_hash = None if user is None else user.password_hash
    right = _verify(password_hash or ABSENT, password)
    if user is None or password_hash is None or not right:
        return None
    return user if _may_sign_in(user) else None


def open_session(
    session: Session, settings: Settings, user_id: int, *, password: str | None = None
) -> tuple[str, SignInSession]:
    """A fresh sign-in session: (cookie value, row). The table keeps only the cookie's digest.

    With the `password` just verified, a hash of older parameters is renewed. Raises Refused for somebody
    who may not sign in.
    """
    user = _user(session, user_id)
    if not _may_sign_in(user):
        raise Refused("this account cannot sign in: ask an administrator")
    if password is not None and user.password_hash and _hasher.check_needs_rehash(user.password_hash):
        user.password_hash = _hash(password)
    now = utc_now()
    cookie, row = _new_session(settings, user_id)
    # Whoever signs in also sweeps what has run out, so the table needs no janitor.
    session.execute(delete(SignInSession).where(SignInSession.expires_at < now))
    session.add(row)
    record_event(session, "user.signed_in", actor_id=user_id, subject_id=user_id)
    session.flush()
    return cookie, row


def session_user(session: Session, settings: Settings, cookie: str) -> tuple[User, SignInSession] | None:
    """Who holds this cookie; None when it is unknown, idle too long, past its end, or its owner inactive."""
    row = session.get(SignInSession, _digest(cookie))
    now = utc_now()
    if row is None or row.expires_at <= now:
        return None
    if row.last_seen_at + timedelta(seconds=settings.web.session_idle_s) <= now:
        return None
    user = session.get(User, row.user_id)
    return (user, row) if user is not None and _may_sign_in(user) else None


def touch_due(settings: Settings, row: SignInSession) -> bool:
    """Whether `last_seen_at` is old enough to be worth a write; not every request is."""
    step_s = min(60.0, settings.web.session_idle_s / 10)
    return utc_now() - row.last_seen_at >= timedelta(seconds=step_s)


def touch_session(session: Session, id_sha256: str) -> None:
    """Notes that the session was used now."""
    used = update(SignInSession).where(SignInSession.id_sha256 == id_sha256)
    session.execute(used.values(last_seen_at=utc_now()))


def close_session(session: Session, cookie: str) -> None:
    """Signs out; closing an unknown session is no error."""
    session.execute(delete(SignInSession).where(SignInSession.id_sha256 == _digest(cookie)))


def make_link(session: Session, user_id: int, ttl_s: float = 600) -> str:
    """A one-time token that signs this person in within `ttl_s` seconds; the table keeps its digest."""
    if not _may_sign_in(_user(session, user_id)):
        raise Refused("a simulated or deactivated account cannot sign in: choose a person's account")
    token, until = secrets.token_urlsafe(32), utc_now() + timedelta(seconds=ttl_s)
    session.add(SignInLink(token_sha256=_digest(token), user_id=user_id, expires_at=until))
    session.flush()
    return token


def redeem_link(session: Session, token: str) -> User | None:
    """Uses the link up and names its person; None when it is unknown, used, late, or the person inactive."""
    now = utc_now()
    # One conditional write: of two browsers that redeem at once, one gets the row.
    unused = (SignInLink.token_sha256 == _digest(token)) & SignInLink.used_at.is_(None)
    still_good = unused & (SignInLink.expires_at > now)
    spent = update(SignInLink).where(still_good).values(used_at=now).returning(SignInLink.user_id)
    user_id = session.scalar(spent)
    user = None if user_id is None else session.get(User, user_id)
    return user if user is not None and _may_sign_in(user) else None


def set_password(session: Session, user_id: int, password: str, *, keep: str | None = None) -> None:
    """Replaces the password; every sign-in session of that person ends but the one of cookie `keep`."""
    user = _user(session, user_id)
    if user.role == "simulated":
        raise Refused(f"{user.name!r} is a simulated annotator, which has no password")
    user.password_hash = _hash(password)
    record_event(session, "user.password", subject_id=user_id)
    close_all_sessions(session, user_id, keep=keep)


def set_role(session: Session, user_id: int, role: str) -> None:
    """Changes what a person may do; their sign-in sessions end, so the next one has the new role."""
    user = _user(session, user_id)
    _check_role(role, with_simulated=False)
    if user.role == "simulated":
        raise Refused(f"{user.name!r} is a simulated annotator and stays one: its masks say so")
    record_event(session, "user.role", subject_id=user_id, before=user.role, after=role)
    user.role = role
    close_all_sessions(session, user_id)


def deactivate(session: Session, user_id: int) -> None:
    """Shuts the account; what the person made keeps their name."""
    _user(session, user_id).active = False
    record_event(session, "user.deactivated", subject_id=user_id)
    close_all_sessions(session, user_id)


def close_all_sessions(session: Session, user_id: int, *, keep: str | None = None) -> None:
    """Signs the person out everywhere (but where cookie `keep` is held) and voids their unused links."""
    ended = SignInSession.user_id == user_id
    if keep is not None:
        ended &= SignInSession.id_sha256 != _digest(keep)
    session.execute(delete(SignInSession).where(ended))
    session.execute(delete(SignInLink).where((SignInLink.user_id == user_id) & SignInLink.used_at.is_(None)))


def same_token(given: str, expected: str) -> bool:
    """Compares two secrets in constant time."""
    return hmac.compare_digest(given.encode(), expected.encode())


def _new_session(settings: Settings, user_id: int) -> tuple[str, SignInSession]:
    cookie, now = secrets.token_urlsafe(32), utc_now()
    row = SignInSession(
        id_sha256=_digest(cookie),
        user_id=user_id,
        csrf_token=secrets.token_urlsafe(32),
        created_at=now,
        last_seen_at=now,
        expires_at=now + timedelta(seconds=settings.web.session_absolute_s),
    )
    return cookie, row


def _user(session: Session, user_id: int) -> User:
    user = session.get(User, user_id)
    if user is None:
        raise NotFound(f"there is no user with id {user_id}")
    return user


def _may_sign_in(user: User) -> bool:
    return user.active and user.role in ROLES


def _normal(name: str) -> str:
    return unicodedata.normalize("NFC", name.strip())


def _plain_name(name: str) -> str:
    plain = _normal(name)
    if not NAME.fullmatch(plain):
        raise BadInput("a user name is 1 to 64 letters, digits or . _ @ + -, starting with a letter or digit")
    return plain


def _check_role(role: str, *, with_simulated: bool) -> None:
    allowed = (*ROLES, "simulated") if with_simulated else ROLES
    if role not in allowed:
        raise BadInput(f"no role {role!r}: choose one of {', '.join(allowed)}")


def _hash(password: str) -> str:
    if not MIN_PASSWORD <= len(password) <= MAX_PASSWORD:
        raise BadInput(f"a password has {MIN_PASSWORD} to {MAX_PASSWORD} characters: choose another")
    with _hashing:
        return _hasher.hash(password)


def _verify(password_hash: str, password: str) -> bool:
    try:
        with _hashing:
            return _hasher.verify(password_hash, password[: MAX_PASSWORD + 1])
    except (argon2.exceptions.VerificationError, argon2.exceptions.InvalidHashError):
        return False


def _digest(secret: str) -> str:
    return hashlib.sha256(secret.encode()).hexdigest()
