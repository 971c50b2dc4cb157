"""Rows and schema examined: how a check is made, that every reference resolves, that the guards stand.

The promises of the flow are in promises.py, those of files and masks in engine/pipeline/doctor.py.
"""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from sqlalchemy import (
    Column,
    ColumnElement,
    FromClause,
    Join,
    Select,
    Table,
    exists,
    func,
    inspect,
    select,
    text,
)
from sqlalchemy.orm import Session

from engine.store.masks import CURRENT_MASKS_SQL
from engine.store.session import Workspace, head_revision
from engine.store.tables import metadata
from engine.store.triggers import DELETABLE_FACTS, installed_triggers, wanted_triggers

# Rows read in one short session: no transaction stays open while files are read.
PAGE = 1000
# Columns of these names, in whatever table, name a file of the blob store.
BLOB_COLUMN_NAMES = frozenset({"pixels_sha256", "blob_sha256", "weights_sha256", "decoder_sha256"})


@dataclass(frozen=True)
class Look:
    """One examination: the workspace, and where to tell how many rows were read."""

    workspace: Workspace
    on_rows: Callable[[int], None]


Broken = Callable[[Look], Iterator[object]]
Rows = Select[*tuple[Any, ...]]


@dataclass(frozen=True)
class Check:
    """One rule: `broken` yields the ids of what breaks it, `mend` says what to do in a sentence.

    `counted` are the tables whose rows it reads one by one: the progress bar's share.
    """

    name: str
    mend: str
    broken: Broken
    counted: tuple[str, ...] = ()


def rows_of(*statements: Rows) -> Broken:
    """The check that none of the statements finds a row; the key's columns come first and are named."""

    def broken(look: Look) -> Iterator[object]:
        with look.workspace.read() as session:
            for statement in statements:
                table = statement.get_final_froms()[0]
                yield from _labelled(session, statement, _name_of(table))

    return broken


def _name_of(source: FromClause) -> str:
    """The table a statement begins with, also when it joins others to it."""
    while isinstance(source, Join):
        source = source.left
    return str(getattr(source, "name", "row"))


def _labelled(session: Session, statement: Rows, table: str, note: str = "") -> Iterator[str]:
    """`masks 7`, `snapshot_masks 3/12 (note)` for each row the statement finds."""
    for row in session.execute(statement.execution_options(yield_per=PAGE)):
        yield f"{table} {'/'.join(map(str, row))}" + (f" ({note})" if note else "")


def pages(look: Look, table: Table, *columns: Column[Any]) -> Iterator[list[Any]]:
    """The table's rows by ascending id, PAGE of them per session: (id, *columns)."""
    last_id = 0
    while True:
        page = select(table.c.id, *columns).where(table.c.id > last_id).order_by(table.c.id).limit(PAGE)
        with look.workspace.read() as session:
            found = list(session.execute(page))
        if not found:
            return
        yield found
        look.on_rows(len(found))
        last_id = found[-1].id


def blob_columns() -> list[Column[Any]]:
    """Every column that names a blob, by table."""
    tables = metadata.sorted_tables
    return [column for table in tables for column in table.columns if column.name in BLOB_COLUMN_NAMES]


def _other_revision(look: Look) -> Iterator[object]:
    with look.workspace.read() as session:
        found = list(session.scalars(text("SELECT version_num FROM alembic_version")))
    if found != [head_revision()]:
        yield ", ".join(map(str, found)) or "no revision"


def _missing_triggers(look: Look) -> Iterator[object]:
    with look.workspace.read() as session:
        connection = session.connection()
        yield from sorted(wanted_triggers(connection.dialect.name) - installed_triggers(connection))


def _missing_indexes(look: Look) -> Iterator[object]:
    """The unique ones guard promises (one open lease per image and stage); the others keep pages fast."""
    with look.workspace.read() as session:
        inspector = inspect(session.connection())
        for table in metadata.sorted_tables:
            there = {index["name"] for index in inspector.get_indexes(table.name)}
            there |= {rule["name"] for rule in inspector.get_unique_constraints(table.name)}
            yield from sorted(str(index.name) for index in table.indexes if index.name not in there)


def _damaged_pages(look: Look) -> Iterator[object]:
    """SQLite's own look at its file; Postgres keeps checksums by itself."""
    with look.workspace.read() as session:
        if session.connection().dialect.name == "sqlite":
            answers = session.connection().exec_driver_sql("PRAGMA quick_check")
            yield from (answer for (answer,) in answers if answer != "ok")


def _another_view(look: Look) -> Iterator[object]:
    """Ids on which the installed view and its definition in the code disagree."""
    wanted = CURRENT_MASKS_SQL.partition(" AS")[2]
    view, body = "SELECT mask_id FROM current_masks", f"SELECT mask_id FROM ({wanted}) wanted"
    sides = (f"SELECT mask_id FROM ({a} EXCEPT {b}) differing" for a, b in ((view, body), (body, view)))
    with look.workspace.read() as session:
        yield from session.scalars(text(" UNION ALL ".join(sides)))


def _dangling_keys(look: Look) -> Iterator[object]:
    """Foreign keys without their row, also where the database was told not to hold them."""
    with look.workspace.read() as session:
        for table in metadata.sorted_tables:
            for key in table.foreign_keys:
                parent, column = key.column.table.alias("parent"), key.parent
                there = exists().where(parent.c[key.column.name] == column)
                lost = select(*table.primary_key.columns).where(column.is_not(None), ~there)
                yield from _labelled(session, lost, table.name, column.name)


def _mixed(owner: str) -> Broken:
    """Rows whose parents are of different datasets (or images): `owner` is dataset_id (or image_id).

    Made from the foreign keys, so that a new table is held to it as well.
    """

    def broken(look: Look) -> Iterator[object]:
        with look.workspace.read() as session:
            for table in metadata.sorted_tables:
                owners = _owners(table, owner)
                for note, other in owners[1:]:
                    mixed = select(*table.primary_key.columns).where(owners[0][1] != other)
                    yield from _labelled(session, mixed, table.name, note)

    return broken


def _owners(table: Table, owner: str) -> list[tuple[str, ColumnElement[Any]]]:
    """(column, whose it is): the row's own word first, then its parents', those it always has first."""
    found: list[tuple[str, ColumnElement[Any]]] = []
    if owner in table.columns:
        found.append((owner, table.c[owner]))
    for key in sorted(table.foreign_keys, key=lambda key: (key.parent.nullable, key.parent.name)):
        parent = key.column.table.alias()
        if owner in parent.columns:
            whose = select(parent.c[owner]).where(parent.c[key.column.name] == key.parent)
            found.append((key.parent.name, whose.scalar_subquery()))
    return found


def _odd_digests(look: Look) -> Iterator[object]:
    with look.workspace.read() as session:
        for table in metadata.sorted_tables:
            for column in (one for one in table.columns if one.name.endswith("_sha256")):
                odd = select(*table.primary_key.columns).where(func.length(column) != 64)
                yield from _labelled(session, odd, table.name, column.name)


def _singular(table: str) -> str:
    return f"{table.removesuffix('ies')}y" if table.endswith("ies") else table.removesuffix("s")


def _named_tables() -> dict[str, Table]:
    """Key inside JSON -> table: image_id -> images. Rows that may be deleted may also be named in vain."""
    found = {
        f"{_singular(name)}_id": table
        for name, table in metadata.tables.items()
        if "id" in table.columns and name not in DELETABLE_FACTS
    }
    version = metadata.tables["model_versions"]
    return found | dict.fromkeys(("parent_id", "expected_id", "active_id"), version)


# An event's kind begins with the noun its subject is a row of, where that is not the table's own name.
_SUBJECTS = {"model": "model_versions", "detector": "detector_versions"}

Named = Iterator[tuple[Table, int]]


def _names_in(value: Any, tables: Mapping[str, Table]) -> Named:
    """Every row named anywhere in a JSON object: {"image_id": 5, "candidate": {"evaluation_id": 2}}."""
    for key, inner in value.items() if isinstance(value, dict) else ():
        if isinstance(inner, dict):
            yield from _names_in(inner, tables)
        elif type(inner) is int and key in tables:
            yield tables[key], inner


def _names_in_job(row: Any, tables: Mapping[str, Table]) -> Named:
    yield from _names_in(row.arguments, tables)
    outcomes = {key.removesuffix("_id"): table for key, table in tables.items()} | {
        "training": metadata.tables["snapshots"],
        "held_out": metadata.tables["snapshots"],
    }
    yield from _names_in(row.outcome, outcomes)


def _names_in_event(row: Any, tables: Mapping[str, Table]) -> Named:
    yield from _names_in(row.payload, tables)
    noun = row.kind.partition(".")[0]
    subject = metadata.tables.get(_SUBJECTS.get(noun, f"{noun}s"))
    if subject is not None and subject.name not in DELETABLE_FACTS and row.subject_id is not None:
        yield subject, row.subject_id


def _names_in_decision(row: Any, tables: Mapping[str, Table]) -> Named:
    yield from _names_in(row.figures, tables)


_NAMING = {
    "jobs": (("arguments", "outcome"), _names_in_job),
    "events": (("kind", "subject_id", "payload"), _names_in_event),
    "decisions": (("figures",), _names_in_decision),
}


def _dangling_names(look: Look) -> Iterator[object]:
    """Rows named where no foreign key can stand: in JSON, or by a bare number."""
    tables = _named_tables()
    for name, (columns, names_in) in _NAMING.items():
        table = metadata.tables[name]
        for page in pages(look, table, *(table.c[column] for column in columns)):
            named = [(row.id, *one) for row in page for one in names_in(row, tables)]
            there = _existing(look, named)
            for row_id, target, target_id in named:
                if (target.name, target_id) not in there:
                    yield f"{name} {row_id} ({_singular(target.name)} {target_id})"


def _existing(look: Look, named: list[tuple[int, Table, int]]) -> set[tuple[str, int]]:
    wanted: dict[Table, set[int]] = {}
    for _, table, row_id in named:
        wanted.setdefault(table, set()).add(row_id)
    with look.workspace.read() as session:
        return {(table.name, id) for table, ids in wanted.items() for id in _ids_of(session, table, ids)}


def _ids_of(session: Session, table: Table, ids: set[int]) -> Iterator[int]:
    ordered = sorted(ids)
    # SQLite takes 32,766 parameters, older ones 999.
    for start in range(0, len(ordered), 500):
        yield from session.scalars(select(table.c.id).where(table.c.id.in_(ordered[start : start + 500])))


_RESTORE = "restore a backup into an empty home: `maskloop db restore DIR --home NEW`"
INTEGRITY = (
    Check("revision_is_head", "run `maskloop db upgrade`", _other_revision),
    Check("triggers_installed", f"somebody dropped what guards the facts; {_RESTORE}", _missing_triggers),
    Check("indexes_installed", f"somebody dropped an index; {_RESTORE}", _missing_indexes),
    Check("file_is_sound", f"the SQLite file is damaged; {_RESTORE}", _damaged_pages),
    Check("current_masks_is_the_view", f"somebody replaced the view; {_RESTORE}", _another_view),
    Check(
        "foreign_keys_resolve", f"rows were removed behind the database's back; {_RESTORE}", _dangling_keys
    ),
    Check(
        "one_dataset_throughout",
        f"a row and its parents are of two datasets; {_RESTORE}",
        _mixed("dataset_id"),
    ),
    Check("one_image_throughout", f"a row has parents of two images; {_RESTORE}", _mixed("image_id")),
    Check("digests_are_digests", f"a digest has 64 hex digits; {_RESTORE}", _odd_digests),
    Check(
        "named_rows_exist",
        f"a job, event or decision names a row that is gone; {_RESTORE}",
        _dangling_names,
        tuple(_NAMING),
    ),
)
