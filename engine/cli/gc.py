"""Making room: `gc`."""

from dataclasses import asdict
from typing import Annotated

import typer

from engine.cli.opening import opened
from engine.cli.options import AsJson, Home
from engine.cli.showing import print_json

MB = 1_000_000


def add_to(app: typer.Typer) -> None:
    """Hangs the verb into the command."""
    app.command("gc")(gc)


def gc(
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only say what would go.")] = False,
    home: Home = None,
    as_json: AsJson = False,
) -> None:
    """Remove embeddings of versions that serve no more, and old files that no row names."""
    from engine.pipeline import collect

    with opened(home) as workspace:
        found = collect.plan(workspace) if dry_run else collect.carry_out(workspace)
    if as_json:
        print_json(asdict(found) | {"dry_run": dry_run})
        return
    gone = f"{found.n_embeddings} embeddings ({found.n_bytes / MB:.1f} MB) of versions that serve no more"
    orphans = f"{found.n_orphans} files that nothing names ({found.n_orphan_bytes / MB:.1f} MB)"
    print(f"{'would remove' if dry_run else 'removed'} {gone}, {orphans}")
