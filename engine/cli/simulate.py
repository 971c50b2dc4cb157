"""The loop with simulated annotators: `simulate` measures how few clicks each model version needs."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from engine.cli.dataset import begin_stage
from engine.cli.lockstep import check_broker, fingerprint, in_lockstep, worker_processes
from engine.cli.opening import dataset_meant, opened
from engine.cli.options import AsJson, DatasetName, Home
from engine.cli.showing import print_json, print_rows, progress_of, say
from engine.cli.work import LocalWorker
from engine.errors import BadInput, Refused

if TYPE_CHECKING:
    from engine.simulation.campaign import Campaign, Plan
    from engine.simulation.truth import Truth
    from engine.store.session import Workspace

ROUND_COLUMNS = {
    "stage": "stage",
    "round": "round",
    "model_version": "version",
    "images": "images",
    "masks": "masks",
    "masks_per_image": "masks per image",
    "prefilled": "prefilled",
    "share_kept": "share kept",
    "seconds_per_image": "seconds per image",
    "detector": "detector",
    "detector_average_recall": "average recall",
    "detector_precision": "precision at least",
    "detector_false_share": "false share",
}
COLUMNS = {
    "model_version": "version",
    "state": "state",
    "clicks_per_mask": "clicks per mask",
    "miou_1_click": "IoU, 1 click",
    "miou_3_clicks": "IoU, 3 clicks",
    "reached": "reached",
    "eval_masks": "measured on",
    "masks": "masks made",
    "images": "images",
    "active_seconds_per_mask": "seconds per mask",
}


def add_to(app: typer.Typer) -> None:
    """Hangs the verb into the command."""
    app.command("simulate")(simulate)


def simulate(
    truth: Annotated[Path, typer.Option("--truth", metavar="FILE", help="COCO file of the true masks.")],
    images: Annotated[
        Path | None, typer.Option("--images", metavar="DIR", help="Import these pictures first.")
    ] = None,
    dataset: DatasetName = None,
    rounds: Annotated[int, typer.Option(min=0, help="Trainings; each after one round of images.")] = 1,
    images_per_round: Annotated[int | None, typer.Option(min=1, help="For training; else a quarter.")] = None,
    masks_per_image: Annotated[int, typer.Option(min=1, help="What stands out most first.")] = 8,
    annotators: Annotated[int, typer.Option(min=1, help="They take the images in turn.")] = 1,
    target_iou: Annotated[float, typer.Option(min=0.01, max=1.0, help="Good enough to accept.")] = 0.85,
    max_clicks: Annotated[int, typer.Option(min=1, max=60, help="Then the best so far is accepted.")] = 20,
    budget: Annotated[float, typer.Option(min=1, help="Simulated seconds per image.")] = 300.0,
    gate_masks: Annotated[int, typer.Option(min=0, help="Masks drawn on held-out images.")] = 100,
    gold: Annotated[
        bool, typer.Option("--gold", help="Held-out images come with their true masks and judge by these.")
    ] = False,
    eval_masks: Annotated[int, typer.Option(min=1, help="Held-out masks each version is measured on.")] = (
        400
    ),
    train_seconds: Annotated[float | None, typer.Option(min=1, help="Else train.max_seconds.")] = None,
    three_stages: Annotated[
        bool, typer.Option("--three-stages", help="Then stages 2 (as many rounds) and 3: a row per round.")
    ] = False,
    points_per_side: Annotated[int, typer.Option(min=1, max=64, help="Of stage 3's grid.")] = 16,
    lockstep: Annotated[
        bool,
        typer.Option("--lockstep", help="Fixed steps, one thread; says what equal runs share."),
    ] = False,
    workers: Annotated[
        int, typer.Option(min=0, help="Worker processes that do the jobs (Redis); 0: this one.")
    ] = 0,
    wander: Annotated[float, typer.Option(min=0, help="How far clicks miss their aim, pixels.")] = 0.0,
    seed: Annotated[int, typer.Option(help="Of the measured masks and the wandering hand.")] = 0,
    home: Home = None,
    as_json: AsJson = False,
) -> None:
    """Let simulated annotators work on a dataset and measure every model version on held-out truth.

    Annotate, retrain (--rounds times), annotate once more. They use the functions that serve the page; the
    truth reaches no table (held-out masks do with --gold). Measured on masks of 64 px and more; one that
    never reaches 0.85 counts 20 clicks.
    """
    if lockstep and train_seconds is not None:
        raise BadInput("--lockstep counts steps (train.steps, detector.steps): leave out --train-seconds")
    if workers:
        check_broker(home)
    # First of all: torch reads how many threads it may use when it is imported.
    overrides = in_lockstep(home) if lockstep else training(train_seconds)
    from engine.simulation.annotators import Habits
    from engine.simulation.campaign import Plan

    habits = Habits(target_iou, max_clicks, budget_s=budget, wander_px=wander)
    plan = Plan(rounds, images_per_round, masks_per_image, annotators, gate_masks, eval_masks, seed, habits)
    with opened(home, overrides, begin=images is not None) as workspace:
        name = _dataset_of_its_own(workspace, dataset, images, truth)
        if gold:
            say(f"held-out images have {import_gold(workspace, name, truth)} true masks, drawn by no model")
        with _work_of(workspace, workers, overrides) as work_off:
            campaign = campaign_on(workspace, name, read_truth(truth), plan, work_off)
            by_round = _through_stages(campaign, rounds, points_per_side) if three_stages else []
            if not three_stages:
                campaign.run()
            rows = campaign.figures()
        ended = [fingerprint(workspace, name)] if lockstep else []
    show_figures(by_round, as_json=as_json, columns=ROUND_COLUMNS)
    show_figures(rows, as_json=as_json)
    show_figures(ended, as_json=as_json, columns={"masks": "masks", "export_sha256": "digest of the export"})


@contextmanager
def _work_of(
    workspace: Workspace, n_workers: int, overrides: Mapping[str, Any]
) -> Iterator[Callable[[], None]]:
    """What runs due jobs until none is left: this process, or workers of its own."""
    if n_workers == 0:
        yield LocalWorker(workspace).until_idle
        return
    with worker_processes(workspace, n_workers, overrides) as crew:
        yield crew.until_idle


def training(seconds: float | None) -> dict[str, dict[str, object]]:
    """Settings of a campaign whose rounds are as long as given."""
    return {} if seconds is None else {"train": {"max_seconds": seconds}}


def campaign_on(
    workspace: Workspace, dataset: str, truth: Truth, plan: Plan, work: Callable[[], None] | None = None
) -> Campaign:
    """A campaign whose lines go to stderr; its jobs run in this process, or as `work` does them."""
    from engine.simulation.campaign import Campaign

    return Campaign(workspace, dataset, truth, plan, work or LocalWorker(workspace).until_idle, say)


def _through_stages(campaign: Campaign, rounds: int, points_per_side: int) -> list[dict[str, Any]]:
    """All three stages, the grid of the last one as asked; a row per round."""
    from engine.pipeline.stages import override_stage
    from engine.simulation.three_stages import ThreeStages

    grid = {"points_per_side": points_per_side}
    settings = campaign.workspace.settings
    with campaign.workspace.write() as session:
        override_stage(session, settings, campaign.dataset_id, "fully_automatic", proposer=grid)
    return ThreeStages(campaign, rounds).run()


def show_figures(rows: list[dict[str, Any]], *, as_json: bool, columns: dict[str, str] | None = None) -> None:
    """A table, or one JSON object per line and row."""
    if not as_json and rows:
        print_rows(rows, columns or COLUMNS)
        return
    for row in rows:
        print_json(row)


def read_truth(file: Path) -> Truth:
    """The masks of a COCO file by the names of its pictures; crowds are nobody's object and left out."""
    from engine.formats.coco import read_coco
    from engine.geometry.rle import Rle
    from engine.simulation.truth import Truth

    coco = read_coco(file)
    masks: dict[str, list[Rle]] = {}
    for annotation in coco.annotations():
        if not annotation.iscrowd:
            masks.setdefault(coco.images[annotation.image_id].file_name, []).append(annotation.rle)
    if not masks:
        raise BadInput(f"{file.name} holds no mask: give a COCO file with masks")
    return Truth(masks)


def held_out_first(images: Path, annotations: Path) -> list[Path]:
    """Paths to import so that held-out pictures come first: images are handed out in that order, and no
    candidate can be judged before some held-out ones are annotated. A file named twice is imported once."""
    from engine.formats.coco import read_coco

    blocks = read_coco(annotations).images.values()
    # Names with folders keep their place: taken as single files they would lose the folder.
    flat = [block.file_name for block in blocks if "/" not in block.file_name and _is_held_out(block.extra)]
    return [*(images / name for name in sorted(flat) if (images / name).is_file()), images]


def import_gold(workspace: Workspace, dataset: str, truth: Path) -> int:
    """Imports the true masks of held-out images, as if people had drawn them without a model; how many.

    Masks drawn with the active model's help are near to what it answers, so a candidate that is better can
    seem worse on them (docs/three-stages.md has figures)."""
    from engine.formats.coco import read_coco
    from engine.formats.coco_writer import CocoWriter
    from engine.pipeline.ingest_masks import import_masks

    coco = read_coco(truth)
    images = [image for image in coco.images.values() if _is_held_out(image.extra)]
    ids, n = {image.id for image in images}, 0
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "gold.json"
        with CocoWriter(file, info={}, images=images, categories=list(coco.categories.values())) as writer:
            for annotation in coco.annotations():
                if annotation.image_id in ids:
                    writer.write(annotation)
                    n += 1
        import_masks(workspace, dataset, file)
    return n


def _is_held_out(extra: dict[str, Any]) -> bool:
    return extra.get("split") == "val"


def _dataset_of_its_own(workspace: Workspace, dataset: str | None, images: Path | None, truth: Path) -> str:
    """The dataset to simulate on: imported from `images` if given, without a mask, its first stage open."""
    from engine.pipeline import report
    from engine.pipeline.ingest import import_images

    if images is not None:
        dataset = dataset or f"{images.resolve().name}-simulated"
        with progress_of("importing") as told:
            paths = held_out_first(images, truth)
            done = import_images(workspace, dataset, paths, annotations=truth, on_progress=told)
        say(f"imported {done.added} images to {dataset} ({len(done.refused)} refused)")
    with workspace.read() as session:
        brief = report.dataset_brief(session, dataset_meant(session, dataset))
    if brief["n_masks"] or brief["n_done"]:
        raise Refused(f"{brief['name']} was annotated already: give --images DIR and a new --dataset")
    begin_stage(workspace, brief["id"], "assisted_manual")
    return str(brief["name"])
