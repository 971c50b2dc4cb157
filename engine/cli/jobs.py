"""The jobs ledger for people: `jobs list|show|retry|cancel`."""

from collections.abc import Iterable
from typing import Annotated

import typer

from engine.cli.opening import dataset_meant, opened
from engine.cli.options import AsJson, DatasetName, Home
from engine.cli.showing import print_facts, print_json, print_rows
from engine.errors import BadInput

jobs = typer.Typer(no_args_is_help=True, help="See, retry and cancel jobs.")

JobId = Annotated[int, typer.Argument(metavar="ID")]
COLUMNS = {"id": "job", "kind": "kind", "state": "state", "attempt": "attempt", "progress": "progress"}
COLUMNS |= {"created_at": "asked at", "ended_at": "ended at", "reason": "reason"}


def add_to(app: typer.Typer) -> None:
    """Hangs the verbs into the command."""
    app.add_typer(jobs, name="jobs")


@jobs.command("list")
def list_jobs(
    state: Annotated[
        str | None, typer.Option(help="queued, running, done, failed or cancelled.", metavar="STATE")
    ] = None,
    kind: Annotated[str | None, typer.Option(help="Such as embed or train.", metavar="KIND")] = None,
    limit: Annotated[int, typer.Option(min=1, help="How many, newest first.")] = 50,
    dataset: DatasetName = None,
    home: Home = None,
    as_json: AsJson = False,
) -> None:
    """The newest jobs, with the reason of those that failed."""
    from engine.pipeline import loop, report
    from engine.store.jobs import STATES

    _refuse_unknown("state", state, STATES)
    _refuse_unknown("kind", kind, loop.ARROWS)
    with opened(home) as workspace, workspace.read() as session:
        dataset_id = None if dataset is None else dataset_meant(session, dataset).id
        found = report.job_list(session, dataset_id=dataset_id, state=state, kind=kind, limit=limit)
    if as_json:
        print_json(found)
    elif found:
        print_rows(found, COLUMNS)
    else:
        print("no jobs")


def _refuse_unknown(what: str, wanted: str | None, known: Iterable[str]) -> None:
    # A word that matches nothing would read as "no jobs".
    if wanted is not None and wanted not in known:
        raise BadInput(f"no job has the {what} {wanted!r}: choose one of {', '.join(known)}")


@jobs.command("show")
def show_job(job_id: JobId, home: Home = None, as_json: AsJson = False) -> None:
    """All that is known of one job."""
    from engine.pipeline import report
    from engine.store import jobs as ledger

    with opened(home) as workspace, workspace.read() as session:
        ledger.state_of(session, job_id)
        view = report.job_view(session.get_one(ledger.Job, job_id))
    print_json(view) if as_json else print_facts(view)


@jobs.command("retry")
def retry_job(job_id: JobId, home: Home = None, as_json: AsJson = False) -> None:
    """Queue a failed or cancelled job again."""
    from engine.store import jobs as ledger

    with opened(home) as workspace, workspace.write() as session:
        ledger.retry(session, job_id)
    print_json({"id": job_id, "state": "queued"}) if as_json else print(f"job {job_id} is queued again")


@jobs.command("cancel")
def cancel_job(job_id: JobId, home: Home = None, as_json: AsJson = False) -> None:
    """Cancel a waiting job, or ask a running one to stop."""
    from engine.store import jobs as ledger

    with opened(home) as workspace, workspace.write() as session:
        state = ledger.request_cancel(session, job_id)
    said = "is cancelled" if state == "cancelled" else "is asked to stop; it does so between two steps"
    print_json({"id": job_id, "state": state}) if as_json else print(f"job {job_id} {said}")
