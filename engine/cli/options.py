"""The options that verbs share, each written once."""

from pathlib import Path
from typing import Annotated

import typer

Home = Annotated[
    Path | None,
    typer.Option("--home", metavar="DIR", help="Where all is kept (else MASKLOOP_HOME, ~/.maskloop)."),
]
DatasetName = Annotated[
    str | None,
    typer.Option("--dataset", metavar="NAME", help="May be left out if there is only one."),
]
AsJson = Annotated[bool, typer.Option("--json", help="Print JSON for programs instead of a table.")]
Port = Annotated[int | None, typer.Option("--port", help="Port of the page; 0 takes any free one.")]
Host = Annotated[str | None, typer.Option("--host", help="Address the page is served on.")]
