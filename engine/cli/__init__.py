"""`maskloop <verb>`, one small file per group of verbs. A verb exists only when it works.

Verbs import what they need when they run, so that `--help` and a misspelt option are answered at once.
"""

import sys

import typer

from engine.cli import accounts, dataset, demo, jobs, models, serve, simulate, snapshots, work
from engine.errors import MaskloopError

app = typer.Typer(
    help="The open data engine of Segment Anything: images in, clicks, a COCO dataset out, a better model.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)
for verbs in (demo, serve, dataset, work, models, simulate, snapshots, jobs, accounts):
    verbs.add_to(app)


def main() -> None:
    """The console script. Exit 0: done; 1: a stated failure, one line on stderr; 2: wrong usage."""
    try:
        app()
    except MaskloopError as error:
        sys.exit(_one_line(str(error)))
    except BrokenPipeError:
        # Whoever read our lines has seen enough (`maskloop jobs list | head`).
        sys.stderr.close()
        sys.exit(1)
    except OSError as error:
        sys.exit(_one_line(f"{error.strerror or error}: {error.filename}" if error.filename else str(error)))


def _one_line(sentence: str) -> str:
    return "maskloop: " + " ".join(sentence.split())
