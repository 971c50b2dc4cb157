"""A table's rows as text that either database reads: gzip, one JSON list per row, by ascending key.

Equal rows give equal text on SQLite and Postgres, so one digest is the content's on both.
"""

import gzip
import hashlib
import json
import os
import zlib
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

from sqlalchemy import Table, func, select
from sqlalchemy.orm import Session

from engine.errors import BadInput
from engine.store.base import Base, UtcDateTime

# Rows are short and alike: level 4 is twice as fast as 9 and a twentieth larger.
_LEVEL = 4
_FETCHED_AT_ONCE = 1000
# From here on Postgres gives a float inside JSON back as a whole number.
_WHOLE_FROM = 1e16


@dataclass(frozen=True)
class Listing:
    """A gzipped file of lines beside the manifest: how many lines and the SHA-256 of its plain text."""

    file: str
    n_rows: int
    content_sha256: str


def write_lines(folder: Path, file: str, lines: Iterable[bytes]) -> Listing:
    """Writes lines (without their ends) to `folder`/`file`, synced to the disk; equal lines, equal bytes."""
    digest, n_rows, path = hashlib.sha256(), 0, folder / file
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("wb") as raw:
        with gzip.GzipFile("", "wb", _LEVEL, raw, mtime=0) as packed:
            for line in lines:
                digest.update(line + b"\n")
                packed.write(line + b"\n")
                n_rows += 1
        raw.flush()
        os.fsync(raw.fileno())
    return Listing(file, n_rows, digest.hexdigest())


def read_lines(folder: Path, listing: Listing) -> Iterator[bytes]:
    """The lines of a listing, each without its end; BadInput names a missing, cut or altered file.

    The digest is compared after the last line: take nothing for true before the end.
    """
    digest, n_rows = hashlib.sha256(), 0
    try:
        with gzip.open(folder / listing.file, "rb") as packed:
            for line in packed:
                digest.update(line)
                n_rows += 1
                yield line.removesuffix(b"\n")
    except FileNotFoundError:
        raise BadInput(f"{listing.file} is missing from the backup: use another one") from None
    except (EOFError, gzip.BadGzipFile, zlib.error):
        raise BadInput(f"{listing.file} of the backup is cut short or damaged: use another one") from None
    if (n_rows, digest.hexdigest()) != (listing.n_rows, listing.content_sha256):
        raise BadInput(f"{listing.file} of the backup was altered: use another one")


def row_counts(session: Session) -> dict[str, int]:
    """How many rows each table holds, by its name."""
    tables = Base.metadata.sorted_tables
    return {table.name: session.scalar(select(func.count()).select_from(table)) or 0 for table in tables}


def rows_as_lines(session: Session, table: Table) -> Iterator[bytes]:
    """Every row as a JSON list in the order of the table's columns; read in pieces, so memory stays flat."""
    ordered = select(table).order_by(*table.primary_key.columns)
    for row in session.execute(ordered.execution_options(yield_per=_FETCHED_AT_ONCE)):
        yield json.dumps([_portable(value) for value in row], default=_as_text, **_COMPACT).encode()


def line_as_row(table: Table, line: bytes) -> dict[str, Any]:
    """The values of one line by column, ready to insert."""
    values = json.loads(line)
    row = dict(zip(table.columns.keys(), values, strict=True))
    for column in table.columns:
        if isinstance(column.type, UtcDateTime) and row[column.key] is not None:
            row[column.key] = datetime.fromisoformat(row[column.key])
    return row


_COMPACT: dict[str, Any] = {"separators": (",", ":"), "sort_keys": True}


def _as_text(value: datetime) -> str:
    return value.isoformat()


def _portable(value: Any) -> Any:
    """The value as both databases give it back: JSON on Postgres knows no -0.0 and no float beyond 1e16."""
    if isinstance(value, float):
        return int(value) if abs(value) >= _WHOLE_FROM and value.is_integer() else value + 0.0
    if isinstance(value, list):
        return [_portable(inner) for inner in value]
    if isinstance(value, dict):
        return {key: _portable(inner) for key, inner in value.items()}
    return value
