"""`generate`: the masks of stage 3, image by image, for who wants them now; says first what they cost."""

from __future__ import annotations

import sys
import time
from dataclasses import dataclass, field, replace
from statistics import median
from typing import TYPE_CHECKING, Annotated

import typer

from engine.cli.opening import dataset_meant, opened
from engine.cli.options import AsJson, DatasetName, Home
from engine.cli.showing import print_facts, print_json, progress_of, say
from engine.cli.work import LocalWorker
from engine.errors import BadInput, Refused

if TYPE_CHECKING:
    from engine.config import Settings
    from engine.pipeline.stages import Stage
    from engine.store.datasets import Dataset
    from engine.store.jobs import Job
    from engine.store.model_versions import ModelVersion
    from engine.store.session import Workspace

STAGE = "fully_automatic"
# The newest jobs tell what the machine does now.
_TIMED_JOBS = 20


def add_to(app: typer.Typer) -> None:
    """Hangs the verb into the command."""
    app.command("generate")(generate)


def generate(
    dataset: DatasetName = None,
    again: Annotated[
        bool, typer.Option("--again", help="Also images that an older model, or another grid, did.")
    ] = False,
    budget_seconds: Annotated[
        float | None, typer.Option("--budget-seconds", min=1, help="Begin no image that would end later.")
    ] = None,
    points_per_side: Annotated[
        int | None, typer.Option("--points-per-side", min=1, max=64, help="Of the grid; else the stage's.")
    ] = None,
    yes: Annotated[bool, typer.Option("--yes", help="Do not ask whether the cost is fine.")] = False,
    home: Home = None,
    as_json: AsJson = False,
) -> None:
    """Make the masks of stage 3 here: every image that has none, by the active model, without people.

    What a person drew, kept or deleted stays as it is. Running it again does only what is left.
    """
    with opened(home) as workspace:
        order = _order(workspace, dataset, points_per_side, again=again)
        made = _Made(len(order.image_ids))
        if order.image_ids:
            _confirm(order, _seconds_per_image(workspace, order, made), yes=yes)
            _make(workspace, order, made, budget_seconds)
    told = made.told() | {"dataset": order.dataset.name, "model_version": order.version.name}
    print_json(told) if as_json else print_facts({key.replace("_", " "): told[key] for key in told})
    if made.n_masks < made.n_images:
        _say_why_few(workspace.settings, order)
    if made.reasons:
        raise Refused(f"{len(made.reasons)} images failed, the last one: {made.reasons[-1]}")


def _say_why_few(settings: Settings, order: _Order) -> None:
    """The paper's thresholds are for the paper's model; a small one is seldom as sure of itself."""
    asked = {name: order.stage.proposer[name] for name in ("pred_iou_thresh", "stability_score_thresh")}
    thresholds = " and ".join(f"{name} {value:g}" for name, value in asked.items())
    say(
        f"less than a mask an image passed {thresholds}: {order.version.name} seldom scores itself so high. "
        f"Lower them in {settings.home / 'stages' / (STAGE + '.toml')} (begin with a copy of "
        f"configs/stages/{STAGE}.toml), then add --again"
    )


@dataclass(frozen=True)
class _Order:
    """What is to be made."""

    dataset: Dataset
    stage: Stage
    version: ModelVersion
    image_ids: list[int]


@dataclass
class _Made:
    """What has been made so far."""

    n_asked: int
    n_images: int = 0
    n_masks: int = 0
    seconds: float = 0.0
    reasons: list[str] = field(default_factory=list)

    def told(self) -> dict[str, object]:
        """The figures for people and programs."""
        return {
            "images": self.n_images,
            "masks": self.n_masks,
            "masks_per_image": self.n_masks / self.n_images if self.n_images else None,
            "seconds_per_image": self.seconds / self.n_images if self.n_images else None,
            "images_left": self.n_asked - self.n_images - len(self.reasons),
            "images_failed": len(self.reasons),
        }


def _order(workspace: Workspace, name: str | None, points_per_side: int | None, *, again: bool) -> _Order:
    from engine.pipeline.loop_stages import images_to_generate
    from engine.pipeline.stages import stage_of
    from engine.store.model_versions import ActiveModel, ModelVersion

    with workspace.read() as session:
        dataset = dataset_meant(session, name)
        active = session.get(ActiveModel, dataset.id)
        if active is None:
            raise BadInput(
                f"{dataset.name} has no model yet: `maskloop stage open fully-automatic` gives it one"
            )
        version = session.get_one(ModelVersion, active.model_version_id)
        stage = stage_of(workspace.settings, dataset, STAGE)
        assert stage is not None
        if points_per_side is not None:
            stage = replace(stage, proposer=stage.proposer | {"points_per_side": points_per_side})
        ids = images_to_generate(session, dataset, stage, version.id, again=again)
    return _Order(dataset, stage, version, ids)


def _seconds_per_image(workspace: Workspace, order: _Order, made: _Made) -> float:
    """Measured on finished jobs of the same grid, else on the first image, which is then made."""
    from engine.pipeline import report

    with workspace.read() as session:
        jobs = report.job_list(session, kind="propose", state="done", limit=10 * _TIMED_JOBS)
    alike = [job for job in jobs if job["arguments"]["config"] == order.stage.proposer][:_TIMED_JOBS]
    if alike:
        return float(median((job["ended_at"] - job["started_at"]).total_seconds() for job in alike))
    say("nothing was timed with these settings yet: the first image is made to see how long one takes")
    _make_one(LocalWorker(workspace), order, made, order.image_ids.pop(0))
    return made.seconds


def _confirm(order: _Order, seconds: float, *, yes: bool) -> None:
    n_images = len(order.image_ids)
    minutes = n_images * seconds / 60
    say(
        f"{n_images} images x {seconds:.1f} s = {minutes:.1f} minutes on this machine, with "
        f"{order.version.name} and {order.stage.proposer['points_per_side']} points a side"
    )
    if not yes and n_images and sys.stdin.isatty():
        typer.confirm("Go on?", abort=True, err=True)


def _make(workspace: Workspace, order: _Order, made: _Made, budget_s: float | None) -> None:
    """One image after another: asks only for what it makes itself, so nothing is left to others."""
    worker, began = LocalWorker(workspace), time.monotonic()
    with progress_of("generating") as tell:
        for n_done, image_id in enumerate(order.image_ids):
            usual_s = made.seconds / made.n_images if made.n_images else 0.0
            if budget_s is not None and time.monotonic() - began + usual_s > budget_s:
                say(f"the budget of {budget_s:.0f} s is spent: the same command goes on later")
                return
            _make_one(worker, order, made, image_id)
            tell(n_done + 1, len(order.image_ids))


def _make_one(worker: LocalWorker, order: _Order, made: _Made, image_id: int) -> None:
    from engine.pipeline.loop_stages import ask_to_generate
    from engine.store.jobs import Job

    workspace, began = worker.workspace, time.monotonic()
    with workspace.write() as session:
        ids = ask_to_generate(
            session, workspace.settings, order.dataset, order.stage, order.version.id, [image_id]
        )
    if not ids:
        return
    state = worker.run(ids[0])
    with workspace.read() as session:
        job = session.get_one(Job, ids[0])
    _count(made, job, state, time.monotonic() - began)


def _count(made: _Made, job: Job, state: str, seconds: float) -> None:
    if state == "done":
        made.n_images += 1
        made.n_masks += int((job.outcome or {}).get("n_masks", 0))
        made.seconds += seconds
    elif state == "failed":
        made.reasons.append(job.reason or "no reason was given")
