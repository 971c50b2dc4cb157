"""Model versions for people: `models list|promote|rollback`; the rest of the group is hung in."""

from __future__ import annotations

import os
import socket
import time
from typing import TYPE_CHECKING, Annotated

import typer

from engine.cli import checkpoints, evaluate, onnx_export
from engine.cli.dataset import VERSION_COLUMNS
from engine.cli.opening import dataset_meant, opened
from engine.cli.options import AsJson, DatasetName, Home
from engine.cli.showing import print_json, print_rows, say
from engine.cli.work import end_stuck
from engine.errors import Conflict, Refused, Unavailable

if TYPE_CHECKING:
    from engine.store.session import Workspace

models = typer.Typer(no_args_is_help=True, help="See, measure and switch model versions.")

VersionName = Annotated[str, typer.Argument(metavar="VERSION", help="As `models list` names it.")]


def add_to(app: typer.Typer) -> None:
    """Hangs the verbs into the command."""
    checkpoints.add_to(models)
    evaluate.add_to(models)
    onnx_export.add_to(models)
    app.add_typer(models, name="models")


@models.command("list")
def list_models(dataset: DatasetName = None, home: Home = None, as_json: AsJson = False) -> None:
    """The dataset's line of models: which is active, what was made with each, why it was decided so."""
    from engine.pipeline import report

    with opened(home) as workspace, workspace.read() as session:
        found = report.progress(session, workspace.settings, dataset_meant(session, dataset))
    versions = found["by_model_version"]
    if as_json:
        print_json(versions)
    elif versions:
        print_rows(versions, VERSION_COLUMNS)
    else:
        print("no model yet: `maskloop stage open assisted-manual` gives the dataset the bundled one")


@models.command("promote")
def promote_model(
    version: VersionName,
    anyway: Annotated[bool, typer.Option("--anyway", help="Also a version that the gate refused.")] = False,
    dataset: DatasetName = None,
    home: Home = None,
    as_json: AsJson = False,
) -> None:
    """Let a version serve new images by hand; leases keep the version they began with."""
    from engine.pipeline import promote, report
    from engine.store.runner import Work, commit

    with opened(home) as workspace:
        with workspace.read() as session:
            meant = dataset_meant(session, dataset)
            chosen = promote.version_named(session, meant.id, version)
            versions = report.progress(session, workspace.settings, meant)["by_model_version"]
        row = next(row for row in versions if row["model_version"] == version)
        if row["state"] in ("refused", "candidate") and not anyway:
            why = row["decided_reason"] or "it was not measured against the active one yet"
            raise Refused(f"{version} did not pass the gate ({why}): --anyway lets it serve all the same")
        commit(workspace, promote.activate(Work.inline(workspace), model_version_id=chosen.id))
    print_json({"active": version}) if as_json else print(f"{version} serves new images of {meant.name}")


@models.command("rollback")
def roll_back_model(
    to: Annotated[
        str | None, typer.Option(metavar="VERSION", help="One that served; else the one before this.")
    ] = None,
    dataset: DatasetName = None,
    home: Home = None,
    as_json: AsJson = False,
) -> None:
    """Let an earlier version serve again, once the next images are prepared for it; leases keep theirs."""
    from engine.pipeline import promote
    from engine.store.model_versions import ActiveModel

    with opened(home) as workspace:
        with workspace.write() as session:
            meant = dataset_meant(session, dataset)
            target = promote.roll_back(session, meant.id, to)
        say(f"going back to {target.name}: the next images are prepared for it first")
        _until_back(workspace, meant.id)
        with workspace.read() as session:
            serving = session.get_one(ActiveModel, meant.id).model_version_id
        if serving != target.id:
            raise Conflict("another version was switched to meanwhile: see `maskloop models list`")
    print_json({"active": target.name}) if as_json else print(f"{target.name} serves {meant.name} again")


def _until_back(workspace: Workspace, dataset_id: int) -> None:
    """Does the roll-back's jobs here, together with any worker there is; Unavailable when one of them failed
    and none is left."""
    from engine.pipeline import loop, promote
    from engine.store.runner import run_job

    name = f"{socket.gethostname()}-{os.getpid()}-rollback"
    while True:
        with workspace.write() as session:
            loop.due(session, workspace.settings)
            jobs = promote.roll_back_jobs(session, dataset_id)
        if not jobs:
            return
        open_ones = [job for job in jobs if job.state in ("queued", "running")]
        if not open_ones and (failed := [job for job in jobs if job.state in ("failed", "cancelled")]):
            raise Unavailable(f"not gone back: job {failed[-1].id} {failed[-1].state}, {failed[-1].reason}")
        states = {run_job(workspace, job.id, loop.arrow, name, on_stuck=end_stuck) for job in open_ones}
        if states & {"queued", "running"}:
            time.sleep(workspace.settings.worker.tick_s)
