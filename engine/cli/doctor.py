"""Is everything as it should be: `doctor`."""

from typing import Annotated

import typer

from engine.cli.opening import opened
from engine.cli.options import AsJson, Home
from engine.cli.showing import print_json, progress_of
from engine.errors import Refused


def add_to(app: typer.Typer) -> None:
    """Hangs the verb into the command."""
    app.command("doctor")(doctor)


def doctor(
    deep: Annotated[bool, typer.Option("--deep", help="Also open and hash every file.")] = False,
    home: Home = None,
    as_json: AsJson = False,
) -> None:
    """Prove that rows resolve, files are there and every promise holds; say how to mend what does not."""
    from engine.pipeline.doctor import examine

    with opened(home) as workspace, progress_of("examining") as told:
        found = examine(workspace, deep=deep, on_progress=told)
    findings = [vars(finding) for finding in found.findings]
    if as_json:
        print_json({"ok": not findings, "checks": found.n_checks, "rows": found.n_rows, "findings": findings})
    for finding in found.findings if not as_json else ():
        more = f" and {finding.n - len(finding.first)} more" if finding.n > len(finding.first) else ""
        print(f"{finding.check}: {', '.join(finding.first)}{more}\n  {finding.mend}")
    if findings:
        raise Refused(f"{len(findings)} of {found.n_checks} rules are broken")
    if not as_json:
        print(f"{found.n_checks} rules hold, {found.n_rows} rows read one by one")
