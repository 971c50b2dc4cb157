"""`demo`: everything at once on generated pictures, in a browser, or one turn of the loop without one."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from engine.cli.dataset import begin_stage
from engine.cli.garden import draw_garden
from engine.cli.opening import opened
from engine.cli.options import AsJson, Home, Host, Port
from engine.cli.serve import Open, serve
from engine.cli.showing import print_json, progress_of, say
from engine.cli.simulate import campaign_on, held_out_first, read_truth, show_figures, training
from engine.errors import BadInput, Refused

if TYPE_CHECKING:
    from engine.simulation.campaign import Campaign
    from engine.store.session import Workspace

DEMO_HOME = Path(".maskloop/demo")
TURN_HOME = Path(".maskloop/demo-turn")
# Says that a home was made by `demo --no-serve`, so the next run may replace it.
TURN_MARK = "made-by-demo-no-serve"
GARDEN = "garden"
TURN_TRAIN_S = 75.0


def add_to(app: typer.Typer) -> None:
    """Hangs the verb into the command."""
    app.command("demo")(demo)


def demo(
    images: Annotated[
        Path | None, typer.Option("--images", metavar="DIR", help="Your pictures, not generated ones.")
    ] = None,
    no_serve: Annotated[
        bool, typer.Option("--no-serve", help="One turn of the loop with simulated annotators instead.")
    ] = False,
    host: Host = None,
    port: Port = None,
    browse: Open = False,
    home: Home = None,
    as_json: AsJson = False,
) -> None:
    """Annotate a small generated dataset in the browser, or watch one turn of the loop with --no-serve."""
    if no_serve:
        if images is not None:
            raise BadInput("--no-serve needs the truth of generated pictures: leave out --images")
        turn(_home_meant(home, TURN_HOME), as_json=as_json)
        return
    folder = _home_meant(home, DEMO_HOME)
    with opened(folder, begin=True) as workspace:
        dataset, pictures, annotations = _what_to_show(folder, images)
        _begin(workspace, dataset, [pictures], annotations)
    web = {name: value for name, value in (("host", host), ("port", port)) if value is not None}
    serve(folder, web, browse=browse, as_json=as_json)


def turn(home: Path, *, as_json: bool) -> None:
    """Annotate, export, retrain, annotate again, export and verify; prints a row per model version."""
    from engine.simulation.annotators import Habits
    from engine.simulation.campaign import Plan

    _clear_turn_home(home)
    with opened(home, training(TURN_TRAIN_S), begin=True) as workspace:
        (home / TURN_MARK).touch()
        truth = home / GARDEN / "truth.json"
        _begin(workspace, GARDEN, held_out_first(draw_garden(home / GARDEN), truth), truth)
        # Small enough for five minutes on two busy cores, large enough for the gate's 50 held-out masks.
        habits = Habits(max_clicks=10)
        plan = Plan(rounds=1, images_per_round=8, gate_masks=60, eval_masks=60, habits=habits)
        campaign = campaign_on(workspace, GARDEN, read_truth(truth), plan)
        campaign.run(between=lambda: _export(campaign, home / "before-training"))
        rows = campaign.figures()
        written = _export(campaign, home / "after-training")
    show_figures(rows, as_json=as_json)
    file = written / "annotations.json"
    print_json({"verified": str(file)}) if as_json else print(f"verified: {file}")


def _home_meant(home: Path | None, otherwise: Path) -> Path:
    """--home, else MASKLOOP_HOME, else a folder beside where the command runs, never the user's own home."""
    from engine.config import load_settings

    chosen = load_settings(home).home
    own = load_settings(Path("~/.maskloop")).home
    return chosen if home is not None or chosen != own else otherwise.absolute()


def _what_to_show(home: Path, images: Path | None) -> tuple[str, Path, Path | None]:
    """(dataset, folder of pictures, COCO file with their splits): the person's own, or the garden."""
    if images is not None:
        return images.resolve().name, images, None
    return GARDEN, draw_garden(home / GARDEN), home / GARDEN / "truth.json"


def _begin(workspace: Workspace, dataset: str, pictures: list[Path], annotations: Path | None) -> None:
    """Imports what is not there yet and opens stage 1. Of `annotations` only the splits are read."""
    from engine.pipeline.ingest import import_images
    from engine.store.datasets import dataset_named

    with progress_of("importing") as told:
        done = import_images(workspace, dataset, pictures, annotations=annotations, on_progress=told)
    for name, sentence in done.refused:
        say(f"{name}: {sentence}")
    with workspace.read() as session:
        dataset_id = dataset_named(session, dataset).id
    begin_stage(workspace, dataset_id, "assisted_manual")
    say(f"{dataset}: {done.added or done.known} images, stage 1 is open")


def _clear_turn_home(home: Path) -> None:
    """Removes what an earlier turn left; Refused where anything else lies."""
    if not home.is_dir() or not any(home.iterdir()):
        return
    if not (home / TURN_MARK).is_file():
        raise Refused(f"{home} holds something else: give --no-serve a --home of its own")
    shutil.rmtree(home)


def _export(campaign: Campaign, folder: Path) -> Path:
    """The current masks as COCO, verified; BadInput names the first fault."""
    from engine.formats.verify import verify
    from engine.pipeline.export import export
    from engine.pipeline.snapshot import take

    with campaign.workspace.write() as session:
        taken = take(session, campaign.dataset_id, "release")
    written = export(campaign.workspace, campaign.dataset, taken.id, folder)
    found = verify(folder)
    if not found.ok or found.n_annotations != written.n_masks:
        raise BadInput(f"{folder} is not sound: {(found.problems or ['masks are missing'])[0]}")
    say(f"exported and verified {written.n_masks} masks on {written.n_images} images in {folder}")
    return folder
