"""How verbs speak: tables for people, JSON for programs, a bar on a terminal, plain lines elsewhere."""

import json
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

# A pipe or a log has no width of its own; rich would cut tables at 80.
PLAIN_WIDTH = 160
PLAIN_EVERY_S = 10.0


def say(line: str) -> None:
    """One line for people, on stderr, so that stdout stays clean for what was asked for."""
    # On a terminal a progress line may stand there: it is wiped first.
    print(f"\r\x1b[K{line}" if sys.stderr.isatty() else line, file=sys.stderr, flush=True)


def print_json(answer: object) -> None:
    """One JSON document on one line; times in ISO 8601."""
    print(json.dumps(answer, default=_as_text), flush=True)


def print_rows(rows: Sequence[Mapping[str, Any]], columns: Mapping[str, str], *, title: str = "") -> None:
    """A table: `columns` maps a key of the rows to its heading; numbers to the right, None as a dash."""
    from rich.console import Console
    from rich.table import Table

    console = Console(highlight=False, width=None if sys.stdout.isatty() else PLAIN_WIDTH)
    table = Table(title=title or None, title_justify="left", header_style="bold")
    for key, heading in columns.items():
        numeric = any(isinstance(row.get(key), int | float) for row in rows)
        table.add_column(heading, justify="right" if numeric else "left", overflow="fold")
    for row in rows:
        table.add_row(*(_cell(row.get(key)) for key in columns))
    console.print(table)


def print_facts(facts: Mapping[str, Any]) -> None:
    """Name and value, a line each."""
    widest = max(map(len, facts), default=0)
    for name, fact in facts.items():
        print(f"{name:<{widest}}  {_cell(fact)}")


@contextmanager
def progress_of(what: str) -> Iterator[Callable[[int, int], None]]:
    """A function to be told (done, total): draws a bar on a terminal, says a line now and then elsewhere."""
    if not sys.stderr.isatty():
        yield _plain(what)
        return
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(*columns, console=Console(stderr=True), transient=True) as bar:
        task = bar.add_task(what, total=None)
        yield lambda done, total: bar.update(task, completed=done, total=total)


def _plain(what: str) -> Callable[[int, int], None]:
    spoken_at = time.monotonic()

    def tell(done: int, total: int) -> None:
        nonlocal spoken_at
        if time.monotonic() - spoken_at >= PLAIN_EVERY_S:
            say(f"{what}: {done} of {total}")
            spoken_at = time.monotonic()

    return tell


def _cell(fact: Any) -> str:
    if fact is None:
        return "-"
    if isinstance(fact, bool):
        return "yes" if fact else "no"
    if isinstance(fact, float):
        return f"{fact:.3f}" if abs(fact) < 1 else f"{fact:.2f}"
    return _as_text(fact)


def _as_text(fact: object) -> str:
    """ISO 8601 to the second for times; everything else as Python writes it."""
    isoformat = getattr(fact, "isoformat", None)
    return isoformat(timespec="seconds") if isoformat else str(fact)
