"""Accounts for people: `users add|list|password|role|link`. A password never stands on a command line."""

import getpass
import sys
from typing import Annotated, Any

import typer

from engine.cli.opening import opened
from engine.cli.options import AsJson, Home
from engine.cli.showing import print_json, print_rows
from engine.errors import BadInput

users = typer.Typer(no_args_is_help=True, help="Who may sign in, and what they may do.")

UserName = Annotated[str, typer.Argument(metavar="NAME")]
Role = Annotated[str, typer.Argument(metavar="ROLE", help="annotator, reviewer, researcher or admin")]
COLUMNS = {"name": "name", "role": "role", "active": "active", "password": "password", "created_at": "since"}


def add_to(app: typer.Typer) -> None:
    """Hangs the verbs into the command."""
    app.add_typer(users, name="users")


@users.command("add")
def add_user(
    name: UserName,
    role: Annotated[str, typer.Option(metavar="ROLE", help="annotator, reviewer, researcher or admin")] = (
        "annotator"
    ),
    password: Annotated[
        bool, typer.Option("--password", help="Ask for one (or read a line of stdin); else use links.")
    ] = False,
    home: Home = None,
    as_json: AsJson = False,
) -> None:
    """Add a person; without a password they sign in by `maskloop users link`."""
    from engine.pipeline import accounts

    secret = _ask_password() if password else None
    with opened(home, begin=True) as workspace, workspace.write() as session:
        user = accounts.add_user(session, name, role, secret)
        view = _view(user)
    link = "" if password else f": `maskloop users link {user.name}` lets them sign in"
    print_json(view) if as_json else print(f"{user.name} was added as {user.role}{link}")


@users.command("list")
def list_users(home: Home = None, as_json: AsJson = False) -> None:
    """Everybody, by name."""
    from engine.pipeline import accounts

    with opened(home) as workspace, workspace.read() as session:
        views = [_view(user) for user in accounts.list_users(session)]
    print_json(views) if as_json else print_rows(views, COLUMNS)


@users.command("password")
def set_password(name: UserName, home: Home = None) -> None:
    """Set a password (asked for, or one line of stdin); the person is signed out everywhere."""
    from engine.pipeline import accounts

    secret = _ask_password()
    with opened(home) as workspace, workspace.write() as session:
        accounts.set_password(session, accounts.user_named(session, name).id, secret)
    print(f"{name} has a new password")


@users.command("role")
def set_role(name: UserName, role: Role, home: Home = None) -> None:
    """Change what a person may do; the person is signed out everywhere."""
    from engine.pipeline import accounts

    with opened(home) as workspace, workspace.write() as session:
        accounts.set_role(session, accounts.user_named(session, name).id, role)
    print(f"{name} is {role} now")


@users.command("link")
def make_link(
    name: UserName,
    minutes: Annotated[float, typer.Option(min=1, max=60 * 24 * 7, help="How long the link is good.")] = 10,
    home: Home = None,
    as_json: AsJson = False,
) -> None:
    """Print a link that signs this person in once."""
    from engine.pipeline import accounts

    with opened(home) as workspace:
        with workspace.write() as session:
            user = accounts.user_named(session, name)
            token = accounts.make_link(session, user.id, minutes * 60)
        web = workspace.settings.web
    host = web.trusted_hosts[0] if web.trusted_hosts else f"{web.host}:{web.port}"
    address = sign_in_address(f"{'https' if web.tls else 'http'}://{host}", token)
    print_json({"name": user.name, "link": address, "minutes": minutes}) if as_json else print(address)


def sign_in_address(origin: str, token: str) -> str:
    """The page that redeems the token; behind a #, which browsers keep out of requests and logs."""
    return f"{origin}/sign-in#token={token}"


def _view(user: Any) -> dict[str, Any]:
    view = {name: getattr(user, name) for name in ("name", "role", "active", "created_at")}
    return view | {"password": user.password_hash is not None}


def _ask_password() -> str:
    if not sys.stdin.isatty():
        return sys.stdin.readline().rstrip("\r\n")
    first, second = getpass.getpass("Password: "), getpass.getpass("Once more: ")
    if first != second:
        raise BadInput("the two passwords differ: try again")
    return first
