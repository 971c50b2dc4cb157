"""Images and masks in, stages open and shut, how far it is: `images`, `masks`, `stage`, `report`, `db`."""

from pathlib import Path
from typing import Annotated, Any

import typer

from engine.cli.opening import dataset_meant, opened
from engine.cli.options import AsJson, DatasetName, Home
from engine.cli.showing import print_facts, print_json, print_rows, progress_of, say

images = typer.Typer(no_args_is_help=True, help="Bring pictures into a dataset.")
masks = typer.Typer(no_args_is_help=True, help="Bring masks of a COCO file into a dataset.")
stage = typer.Typer(no_args_is_help=True, help="Open and close the stages of the data engine.")
database = typer.Typer(no_args_is_help=True, help="Set up and check the database.")

STAGE_COLUMNS = {
    "stage": "stage",
    "images": "images",
    "masks": "masks",
    "masks_per_image": "masks per image",
    "prefilled": "prefilled",
    "share_kept": "share kept",
    "share_rejected": "share refused",
}
VERSION_COLUMNS = {
    "model_version": "version",
    "state": "state",
    "masks": "masks",
    "images": "images",
    "active_seconds_per_mask": "seconds per mask",
    "clicks_per_mask": "clicks per mask",
    "noc_85": "clicks to 0.85, held out",
    "miou_1_click": "IoU, 1 click",
    "miou_3_clicks": "IoU, 3 clicks",
    "decided_reason": "decided because",
}


def add_to(app: typer.Typer) -> None:
    """Hangs the verbs into the command."""
    app.add_typer(images, name="images")
    app.add_typer(masks, name="masks")
    app.add_typer(stage, name="stage")
    app.add_typer(database, name="db")
    app.command("report")(show_report)


@images.command("import")
def import_images(
    paths: Annotated[list[Path], typer.Argument(metavar="DIR|FILES", help="Folders or picture files.")],
    dataset: Annotated[str, typer.Option("--dataset", metavar="NAME", help="Made if it is new.")],
    annotations: Annotated[
        Path | None, typer.Option(metavar="FILE", help="COCO file whose image blocks give ids and splits.")
    ] = None,
    source: Annotated[str | None, typer.Option(help="Where the pictures come from.")] = None,
    licence: Annotated[str | None, typer.Option(help="Under which licence.")] = None,
    attribution: Annotated[str | None, typer.Option(help="Whom to name.")] = None,
    home: Home = None,
    as_json: AsJson = False,
) -> None:
    """Add pictures to a dataset; a file that is none is refused alone, twice the same changes nothing."""
    from engine.pipeline.ingest import Origin, import_images

    with opened(home, begin=True) as workspace, progress_of("importing") as told:
        done = import_images(
            workspace,
            dataset,
            paths,
            annotations=annotations,
            origin=Origin(source, licence, attribution),
            on_progress=told,
        )
    if as_json:
        print_json(vars(done))
        return
    for name, sentence in [*done.refused, *done.notes]:
        say(f"{name}: {sentence}")
    print(f"{done.added} images added to {dataset}, {done.known} known, {len(done.refused)} refused")


@masks.command("import")
def import_masks(
    file: Annotated[Path, typer.Argument(metavar="FILE", help="A COCO instance file.")],
    dataset: DatasetName = None,
    home: Home = None,
    as_json: AsJson = False,
) -> None:
    """Add the masks of a COCO file, with their ids, categories and attributes, to images that are there."""
    from engine.pipeline.ingest_masks import import_masks

    with opened(home) as workspace:
        with workspace.read() as session:
            name = dataset_meant(session, dataset).name
        done = import_masks(workspace, name, file)
    if as_json:
        print_json(vars(done))
        return
    for sentence in done.refused:
        say(sentence)
    renumbered = f", {done.renumbered} with a new id" if done.renumbered else ""
    refused = f"{len(done.refused)} refused"
    print(f"{done.added} masks added to {name}{renumbered}, {done.known} known, {refused}")


@stage.command("show")
def show_stage(dataset: DatasetName = None, home: Home = None, as_json: AsJson = False) -> None:
    """Say which stage is open and how far it is."""
    from engine.pipeline import report

    with opened(home) as workspace, workspace.read() as session:
        brief = report.dataset_brief(session, dataset_meant(session, dataset))
    if as_json:
        print_json(brief)
        return
    open_stage = brief["open_stage"] or "no stage is open: `maskloop stage open assisted-manual` opens one"
    print_facts({"dataset": brief["name"], "stage": open_stage})
    print_facts({"images": brief["n_images"], "done": brief["n_done"], "masks": brief["n_masks"]})


@stage.command("open")
def open_stage(
    name: Annotated[str, typer.Argument(metavar="NAME", help="One of the three.")],
    dataset: DatasetName = None,
    home: Home = None,
    as_json: AsJson = False,
) -> None:
    """Hand out the images of a dataset; the first time it is given the bundled model."""
    with opened(home) as workspace:
        with workspace.read() as session:
            meant = dataset_meant(session, dataset)
        opened_stage = begin_stage(workspace, meant.id, name)
    if as_json:
        print_json({"dataset": meant.name, "open_stage": opened_stage})
    else:
        print(f"stage {opened_stage} of {meant.name} is open: `maskloop up` serves its images")


def begin_stage(workspace: Any, dataset_id: int, name: str) -> str:
    """Opens the stage and gives the dataset a model if it has none; returns the stage's name."""
    from engine.pipeline import adopt, report, stages
    from engine.store.datasets import Dataset

    chosen = stages.stage_name(name)
    stages.read_stage(workspace.settings, chosen)
    with workspace.read() as session:
        view = report.dataset_view(session, session.get_one(Dataset, dataset_id))
    if view["model"] is None:
        adopt.adopt_bundled(workspace, dataset_id)
    with workspace.write() as session:
        stages.open_stage(session, dataset_id, chosen)
    return chosen


@stage.command("close")
def close_stage(
    name: Annotated[str, typer.Argument(metavar="NAME")],
    dataset: DatasetName = None,
    home: Home = None,
    as_json: AsJson = False,
) -> None:
    """Stop handing out images; who holds one may finish it."""
    from engine.pipeline import stages

    with opened(home) as workspace, workspace.write() as session:
        meant = dataset_meant(session, dataset)
        stages.close_stage(session, meant.id, stages.stage_name(name))
    if as_json:
        print_json({"dataset": meant.name, "open_stage": None})
    else:
        print(f"no stage of {meant.name} is open any more")


def show_report(dataset: DatasetName = None, home: Home = None, as_json: AsJson = False) -> None:
    """Images, masks, seconds and clicks per mask, by model version."""
    from engine.pipeline import report

    with opened(home) as workspace, workspace.read() as session:
        found = report.progress(session, workspace.settings, dataset_meant(session, dataset))
    if as_json:
        print_json(found)
        return
    versions, stages = found.pop("by_model_version"), found.pop("by_stage")
    failed, note = found.pop("failed_jobs"), found.pop("note")
    print_facts({name.replace("_", " "): _flat(fact) for name, fact in found.items()})
    print_rows(versions, VERSION_COLUMNS)
    print_rows(stages, STAGE_COLUMNS)
    for job in failed:
        print(f"job {job['id']} ({job['kind']}) failed: {job['reason']} (`maskloop jobs retry {job['id']}`)")
    if note:
        print(note)


def _flat(fact: Any) -> Any:
    return ", ".join(f"{n} {name}" for name, n in fact.items()) if isinstance(fact, dict) else fact


@database.command("upgrade")
def upgrade_database(home: Home = None, as_json: AsJson = False) -> None:
    """Bring the database to what this version needs, making it if there is none."""
    from engine.config import load_settings
    from engine.store.session import revision, upgrade

    settings = load_settings(home)
    before = revision(settings)
    upgrade(settings)
    after = revision(settings)
    if as_json:
        print_json({"before": before, "after": after})
    else:
        print(f"the database is at {after}" + ("" if before != after else ", as it was"))


@database.command("check")
def check_database(home: Home = None, as_json: AsJson = False) -> None:
    """Say whether the database fits this version and is sound."""
    from engine.errors import Unavailable
    from engine.store.session import head_revision

    with opened(home) as workspace, workspace.read() as session:
        faults = []
        if workspace.settings.database.url.startswith("sqlite"):
            ask = session.connection().exec_driver_sql
            faults = [str(row[0]) for row in ask("PRAGMA integrity_check") if row[0] != "ok"]
            faults += [f"{row[0]} row {row[1]} names no {row[2]}" for row in ask("PRAGMA foreign_key_check")]
    if faults:
        raise Unavailable(
            f"the database is damaged ({faults[0]}; {len(faults)} faults): restore a copy of it"
        )
    if as_json:
        print_json({"revision": head_revision(), "ok": True})
    else:
        print(f"the database is sound and at {head_revision()}")
