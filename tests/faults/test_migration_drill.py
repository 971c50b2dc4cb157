"""Drill 31: every revision down and up again with 10,000 rows in place. No row and no byte of one changes."""

import hashlib

import pytest
from alembic.script import ScriptDirectory
from sqlalchemy import MetaData, select

from engine.config import migrations_folder
from engine.store import session as store
from engine.store.session import Workspace
from tests import factories, whole
from tests.faults.drill import Drill, full_only

# Per image: itself, and so many masks.
MASKS_EACH = 4
# A way down drops the tables of its revision with their rows: older jobs and decisions still name those.
NAMES_WHAT_WENT_DOWN = ("named_rows_exist", "done_jobs_left_their_rows", "the_loop_switches_only_to_promoted")


def fill(workspace: Workspace, n_rows: int) -> None:
    """Every table has rows, and those that grow have many."""
    whole.fill(workspace)
    with workspace.write() as session:
        dataset = factories.a_dataset(session, 2)
        for n in range(n_rows // (1 + MASKS_EACH)):
            image = factories.an_image(workspace, session, dataset.id, n)
            for _ in range(MASKS_EACH):
                factories.a_mask(session, image)


Contents = dict[tuple[str, str], tuple[int, str]]


def contents(workspace: Workspace) -> Contents:
    """(rows, SHA-256 of all values by ascending key) of each (table, column) that the database has now,
    whatever the code says."""
    found, tables = {}, MetaData()
    tables.reflect(workspace.engine)
    with workspace.read() as session:
        for _, table in sorted(tables.tables.items()):
            if table.name == "alembic_version":
                continue
            rows = session.execute(select(table).order_by(*table.primary_key.columns)).all()
            for n, column in enumerate(table.columns):
                values = hashlib.sha256(repr([row[n] for row in rows]).encode()).hexdigest()
                found[(table.name, column.name)] = (len(rows), values)
    return found


def n_rows(found: Contents) -> int:
    return sum(dict((table, n) for (table, _), (n, _) in found.items()).values())


def differing(before: Contents, after: Contents) -> list[str]:
    """Columns that both have, with other values."""
    return [
        ".".join(place) for place in sorted(before.keys() & after.keys()) if before[place] != after[place]
    ]


def there_and_back(workspace: Workspace, revision: str, older: str) -> tuple[int, list[str]]:
    """Goes down to `older`, up and down again; (rows compared, what is not as it was)."""
    settings, above = workspace.settings, contents(workspace)
    store.downgrade(settings, older)
    below = contents(workspace)
    store.upgrade(settings, revision)
    again = contents(workspace)
    store.downgrade(settings, older)
    last = contents(workspace)
    # What the revision itself brought is gone after its way down; everything older has to be as before.
    changed = [f"{revision} down: {place}" for place in differing(above, below)]
    changed += [f"{revision} up: {place}" for place in differing(below, again)]
    changed += [f"{revision} missing: {'.'.join(place)}" for place in below.keys() - again.keys()]
    return n_rows(below), changed + [f"{revision} down again: {place}" for place in differing(below, last)]


@full_only()
@pytest.mark.parametrize("either_workspace", ["postgres", "sqlite"], indirect=True)
def test_migrations(drill: Drill, either_workspace: Workspace) -> None:
    workspace, settings = either_workspace, either_workspace.settings
    fill(workspace, drill.n(10_000))
    drill.examined(workspace)
    drill.note("rows", n_rows(contents(workspace)))
    scripts = list(ScriptDirectory(str(migrations_folder())).walk_revisions())
    changed: list[str] = []
    n_compared = 0
    for script in scripts:
        if script.down_revision is not None:
            n, found = there_and_back(workspace, script.revision, str(script.down_revision))
            n_compared, changed = n_compared + n, changed + found
        if script is scripts[0]:
            store.upgrade(settings)
            drill.examined(workspace)
            store.downgrade(settings, str(script.down_revision))
    store.upgrade(settings)
    drill.note("revisions", len(scripts))
    drill.note("rows compared", n_compared)
    drill.claim("columns with a row lost or changed", len(changed), 0)
    drill.missed += changed[:20]
    drill.examined(workspace, but=NAMES_WHAT_WENT_DOWN)
    drill.end()
