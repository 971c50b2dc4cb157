"""All rows and files into one folder, and back: `db backup`, `db restore`."""

from pathlib import Path
from typing import Annotated

import typer

from engine.cli.dataset import database
from engine.cli.options import AsJson, Home
from engine.cli.showing import print_json, progress_of
from engine.errors import Unavailable


def add_to(_app: typer.Typer) -> None:
    """Hangs the verbs beside `db upgrade`."""
    database.command("backup")(back_up)
    database.command("restore")(restore)


def back_up(
    out: Annotated[Path, typer.Option("--out", metavar="DIR", help="A new or empty folder.")],
    blobs: Annotated[
        bool, typer.Option("--blobs/--no-blobs", help="Copy the files, or only list them.")
    ] = True,
    home: Home = None,
    as_json: AsJson = False,
) -> None:
    """Write every row and file to a folder, while all goes on; SQLite and Postgres restore each other's."""
    from engine.cli.opening import opened
    from engine.store import backup

    with opened(home) as workspace, progress_of("backing up") as told:
        manifest = backup.back_up(workspace, out, blobs=blobs, on_progress=told)
    _say(manifest.n_rows, manifest.blobs.n_rows, f"backed up to {out}", blobs, as_json)


def restore(
    folder: Annotated[Path, typer.Argument(metavar="DIR", help="A folder that `db backup` wrote.")],
    database_url: Annotated[
        str | None, typer.Option("--database-url", metavar="URL", help="Instead of database.url of the home.")
    ] = None,
    home: Home = None,
    as_json: AsJson = False,
) -> None:
    """Verify a backup, bring it into an empty home or database, and examine what came of it."""
    from engine.config import load_settings
    from engine.pipeline.doctor import examine
    from engine.store import backup
    from engine.store.session import open_workspace

    settings = load_settings(home, {"database": {"url": database_url}} if database_url else None)
    with progress_of("restoring") as told:
        manifest = backup.restore(settings, folder, on_progress=told)
    workspace = open_workspace(settings)
    try:
        findings = examine(workspace).findings
    finally:
        workspace.close()
    if findings:
        broken = ", ".join(finding.check for finding in findings)
        raise Unavailable(
            f"all is restored as it was backed up, faults included ({broken}): `maskloop doctor`"
        )
    _say(manifest.n_rows, manifest.blobs.n_rows, "restored and sound", manifest.blobs_included, as_json)


def _say(n_rows: int, n_blobs: int, done: str, blobs: bool, as_json: bool) -> None:
    if as_json:
        print_json({"rows": n_rows, "blobs": n_blobs, "blobs_included": blobs})
    else:
        print(f"{n_rows} rows and {n_blobs} files {'' if blobs else '(listed only) '}{done}")
