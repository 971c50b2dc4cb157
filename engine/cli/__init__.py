"""`maskloop <verb>`, one small file per group of verbs. A verb exists only when it works.

Verbs import what they need when they run, so that `--help` and a misspelt option are answered at once.
"""

import os
import sys
from typing import NoReturn

import typer

from engine.cli import (
    accounts,
    backup,
    dataset,
    demo,
    doctor,
    gc,
    generate,
    jobs,
    models,
    schedule,
    serve,
    simulate,
    snapshots,
    work,
)
from engine.errors import MaskloopError

app = typer.Typer(
    help="The open data engine of Segment Anything: images in, clicks, a COCO dataset out, a better model.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)
for verbs in (
    demo,
    serve,
    dataset,
    work,
    models,
    simulate,
    snapshots,
    jobs,
    schedule,
    generate,
    gc,
    accounts,
    doctor,
    backup,
):
    verbs.add_to(app)


def main(arguments: list[str] | None = None) -> None:
    """The console script. Exit 0: done; 1: a stated failure, one line on stderr; 2: wrong usage."""
    try:
        app(arguments)
    except MaskloopError as error:
        _fail(str(error))
    except BrokenPipeError:
        # Whoever read our lines has seen enough (`maskloop jobs list | head`); stdout is closed.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(1)
    except OSError as error:
        _fail(f"{error.filename}: {error.strerror}" if error.filename else str(error))


def _fail(sentence: str) -> NoReturn:
    print("maskloop: " + " ".join(sentence.split()), file=sys.stderr)
    sys.exit(1)
