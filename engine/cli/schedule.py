"""When models are retrained: `schedule add|list|remove`."""

from typing import Annotated, Any

import typer

from engine.cli.opening import dataset_meant, opened
from engine.cli.options import AsJson, DatasetName, Home
from engine.cli.showing import print_json, print_rows
from engine.errors import BadInput

schedule = typer.Typer(no_args_is_help=True, help="Retrain nightly, every so many new masks, or both.")

COLUMNS = {"id": "schedule", "when": "retrains", "next": "next due", "due": "last due", "state": "state"}
COLUMNS |= {"round": "round", "reason": "reason"}


def add_to(app: typer.Typer) -> None:
    """Hangs the verbs into the command."""
    app.add_typer(schedule, name="schedule")


@schedule.command("add")
def add(
    nightly: Annotated[bool, typer.Option("--nightly", help="Every night, if there are new masks.")] = False,
    at: Annotated[str | None, typer.Option(metavar="HH:MM", help="When at night, UTC; else 02:00.")] = None,
    every_new_masks: Annotated[
        int | None, typer.Option(metavar="N", help="Once N masks were made since the last round.")
    ] = None,
    dataset: DatasetName = None,
    home: Home = None,
    as_json: AsJson = False,
) -> None:
    """Retrain by itself; with --nightly and --every-new-masks by whichever comes first."""
    from engine.pipeline import schedule as schedules
    from engine.store.base import database_now

    if at is not None and not nightly:
        raise BadInput("--at goes with --nightly")
    nightly_at = (at or schedules.NIGHTLY_AT) if nightly else None
    with opened(home) as workspace, workspace.write() as session:
        meant = dataset_meant(session, dataset)
        made = schedules.add_schedule(
            session, meant.id, nightly_at=nightly_at, every_new_masks=every_new_masks
        )
        view = schedules.schedule_view(session, made, database_now(session))
    if as_json:
        print_json(view)
    else:
        print(f"schedule {view['id']}: {meant.name} is retrained {_when(view)}; next: {_next(view)}")


@schedule.command("list")
def list_schedules(dataset: DatasetName = None, home: Home = None, as_json: AsJson = False) -> None:
    """When each is due next, and what became of its last due time."""
    from engine.pipeline import schedule as schedules

    with opened(home) as workspace, workspace.read() as session:
        views = schedules.schedule_views(session, dataset_meant(session, dataset))
    if as_json:
        print_json(views)
    elif views:
        print_rows([_line(view) for view in views], COLUMNS)
    else:
        print("no schedule: `maskloop schedule add --nightly` makes one")


@schedule.command("remove")
def remove(
    schedule_id: Annotated[int, typer.Argument(metavar="ID")], home: Home = None, as_json: AsJson = False
) -> None:
    """Start nothing more by it; a round in progress goes on."""
    from engine.pipeline import schedule as schedules

    with opened(home) as workspace, workspace.write() as session:
        schedules.remove_schedule(session, schedule_id)
    print_json({"id": schedule_id, "removed": True}) if as_json else print(f"schedule {schedule_id} is gone")


def _when(view: dict[str, Any]) -> str:
    night = f"nightly at {view['nightly_at']} UTC" if view["nightly_at"] else ""
    masks = f"every {view['every_new_masks']:,} new masks" if view["every_new_masks"] else ""
    return " or ".join(part for part in (night, masks) if part)


def _next(view: dict[str, Any]) -> str:
    night = f"{view['next_due_at']:%Y-%m-%d %H:%M} UTC" if view["next_due_at"] else ""
    masks = f"after {view['masks_to_go']:,} more masks" if view["masks_to_go"] is not None else ""
    return " or ".join(part for part in (night, masks) if part)


def _line(view: dict[str, Any]) -> dict[str, Any]:
    line = {"id": view["id"], "when": _when(view), "next": _next(view)}
    for run in view["runs"][:1]:
        failed, reason = run["failed_job"], run["reason"]
        if failed is not None:
            reason = f"{failed['kind']} failed: {reason}; `maskloop jobs retry {failed['id']}` goes on"
        line |= {"due": run["due"], "round": run["round"], "reason": reason}
        line["state"] = run["round_state"] or run["state"]
    return line
