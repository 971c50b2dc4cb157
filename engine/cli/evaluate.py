"""`models evaluate`: how well models follow clicks, by the paper's protocol; see docs/evaluation.md."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from engine.cli.evaluation_plot import check_plot, plot_figures
from engine.cli.evaluation_table import print_editing, print_figures
from engine.cli.opening import dataset_meant, opened
from engine.cli.options import AsJson, DatasetName, Home
from engine.cli.showing import print_json, progress_of, say
from engine.errors import BadInput, Refused

if TYPE_CHECKING:
    from engine.config import Settings
    from engine.store.session import Workspace
    from engine.training.click_figures import Resampling
    from engine.training.dataset import Sample
    from engine.training.evaluate import ClickScores


def add_to(models: typer.Typer) -> None:
    """Hangs the verb into the group `models`."""
    models.command("evaluate")(evaluate_models)


def evaluate_models(
    versions: Annotated[
        list[str] | None, typer.Argument(metavar="[VERSION]...", help="As `models list` names them.")
    ] = None,
    checkpoint: Annotated[
        list[Path] | None, typer.Option(metavar="FILE", help="A checkpoint; may be given several times.")
    ] = None,
    snapshot: Annotated[
        str | None, typer.Option(metavar="NAME", help="Masks to judge by; else all held-out human masks.")
    ] = None,
    truth: Annotated[
        Path | None, typer.Option(metavar="FILE", help="COCO file of masks to judge by instead.")
    ] = None,
    images: Annotated[Path | None, typer.Option(metavar="DIR", help="The pictures of --truth.")] = None,
    split: Annotated[
        str | None, typer.Option(metavar="NAME", help="Only images of --truth with this split.")
    ] = None,
    scenes: Annotated[
        int | None, typer.Option(min=1, help="Judge by so many generated scenes that no model has seen.")
    ] = None,
    masks: Annotated[
        int | None, typer.Option(min=1, help="So many masks of these, drawn by --seed; else all.")
    ] = None,
    baselines: Annotated[
        bool, typer.Option("--baselines", help="Flood fill, local Otsu, GrabCut beside it, best settings.")
    ] = False,
    editing: Annotated[
        bool, typer.Option("--editing", help="Also: one click on spoilt masks, against beginning anew.")
    ] = False,
    resamples: Annotated[int, typer.Option(min=100, help="Of the bootstrap's images.")] = 1000,
    seed: Annotated[int, typer.Option(min=0, help="Of masks drawn, spoilt, and resamples.")] = 0,
    plot: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Draw IoU by clicks, .svg or .png (matplotlib).")
    ] = None,
    dataset: DatasetName = None,
    home: Home = None,
    as_json: AsJson = False,
) -> None:
    """Measure models by simulated clicks on held-out masks; --json prints an object per model.

    IoU after 1, 2, 3, 5 and 9 clicks, of the mask that is shown and of the best candidate, clicks to IoU 0.85
    and 0.90 (20 where never), with 95 % intervals over resampled images, by COCO's mask sizes.
    """
    names, files = versions or [], checkpoint or []
    if not names and not files:
        raise BadInput("name a version that `models list` shows, or give --checkpoint FILE")
    check_options(snapshot, truth, images, split, scenes, masks)
    if plot is not None:
        check_plot(plot)
    own_ground = truth is not None or scenes is not None
    with _settings_of(home, needs_dataset=bool(names) or not own_ground) as (settings, workspace):
        if truth is not None and images is not None:
            ground = _of_file(settings, truth, images, split, masks, seed)
        elif scenes is not None:
            ground = _of_scenes(scenes, masks, seed)
        else:
            assert workspace is not None
            ground = _held_out(workspace, dataset, snapshot)
        models = [*_versions(workspace, dataset, names), *_checkpoints(files)]
        say(f"measuring on {ground.name}: {ground.n_masks} masks")
        rows = list(_measured(settings, models, ground, _resampling(resamples, seed), editing=editing))
        if baselines:
            rows += _baselines(ground, _resampling(resamples, seed))
        _keep(settings, workspace, ground, rows)
    told = [row.told for row in rows]
    if plot is not None:
        plot_figures(told, plot)
    for row in told if as_json else ():
        print_json(row)
    if not as_json:
        print_figures(told)
        print_editing(told)


def check_options(
    snapshot: str | None,
    truth: Path | None,
    images: Path | None,
    split: str | None,
    scenes: int | None,
    masks: int | None,
) -> None:
    """Refuses options that do not go together."""
    if (truth is None) != (images is None):
        raise BadInput("--truth FILE and --images DIR go together: give both or neither")
    if sum(given is not None for given in (snapshot, truth, scenes)) > 1:
        raise BadInput("give one of --snapshot, --truth and --scenes: masks of a dataset, a file, or drawn")
    if truth is None and split is not None:
        raise BadInput("--split chooses from a file: give --truth FILE and --images DIR too")
    if truth is None and scenes is None and masks is not None:
        raise BadInput("--masks draws from --truth or --scenes: a dataset's masks are always the same ones")


@dataclass(frozen=True)
class _Model:
    """A checkpoint to be measured; `version_id` where it is a version of the dataset."""

    name: str
    weights: Path
    version_id: int | None = None


@dataclass(frozen=True)
class _Ground:
    """The masks to judge by; they can be passed over again and again."""

    name: str
    n_masks: int
    samples: Iterable[Sample]
    snapshot_id: int | None = None


@dataclass(frozen=True)
class _Row:
    """One line of the answer, and what it was read from."""

    told: dict[str, Any]
    scores: ClickScores
    version_id: int | None = None


@contextmanager
def _settings_of(home: Path | None, *, needs_dataset: bool) -> Iterator[tuple[Settings, Workspace | None]]:
    """A checkpoint and a file need neither home nor database."""
    if needs_dataset:
        with opened(home) as workspace:
            yield workspace.settings, workspace
        return
    from engine.config import load_settings

    yield load_settings(home), None


def _held_out(workspace: Workspace, dataset: str | None, snapshot: str | None) -> _Ground:
    from engine.pipeline.evaluate import HeldOut
    from engine.pipeline.snapshot import BY_PEOPLE, snapshot_named, take

    with workspace.write() as session:
        dataset_id = dataset_meant(session, dataset).id
        if snapshot is not None:
            taken = snapshot_named(session, dataset_id, snapshot)
        else:
            taken = take(session, dataset_id, "evaluation", query=BY_PEOPLE | {"split": "val"})
        if taken.n_masks == 0:
            raise Refused("there is no mask on a held-out image to judge by: annotate some first")
    return _Ground(taken.name, taken.n_masks, HeldOut(workspace, taken.id), taken.id)


def _of_file(
    settings: Settings, truth: Path, images: Path, split: str | None, masks: int | None, seed: int
) -> _Ground:
    from engine.pipeline.evaluate import truth_file

    found = truth_file(settings, truth, images, split, masks, seed)
    return _Ground(truth.name, found.n_masks, found)


def _of_scenes(scenes: int, masks: int | None, seed: int) -> _Ground:
    from engine.pipeline.evaluate import generated_scenes

    say(f"drawing {scenes} scenes")
    samples = generated_scenes(scenes, masks, seed)
    return _Ground(f"{scenes} generated scenes", sum(len(one.masks) for one in samples), samples)


def _versions(workspace: Workspace | None, dataset: str | None, names: list[str]) -> Iterator[_Model]:
    from engine.pipeline.promote import version_named

    for name in names:
        assert workspace is not None
        with workspace.read() as session:
            version = version_named(session, dataset_meant(session, dataset).id, name)
        yield _Model(name, workspace.blobs.local_path(version.weights_sha256), version.id)


def _checkpoints(files: list[Path]) -> Iterator[_Model]:
    """By the file's name, or by the whole path where several have one name, as trained ones do."""
    names = [file.name for file in files]
    for file in files:
        yield _Model(file.name if names.count(file.name) == 1 else str(file), file)


def _resampling(resamples: int, seed: int) -> Resampling:
    from engine.training.click_figures import Resampling

    return Resampling(resamples, seed)


def _measured(
    settings: Settings, models: list[_Model], ground: _Ground, resampling: Resampling, *, editing: bool
) -> Iterator[_Row]:
    """A row per model; from the second on with what it gains over the first."""
    from engine.pipeline.evaluate import N_CLICKS, correct_masks, follow_clicks
    from engine.training.click_figures import editing_figures, gains

    first: tuple[str, ClickScores] | None = None
    for model in models:
        scores = follow_clicks(settings, model.weights, _counted(ground, f"measuring {model.name}"))
        told = _told(model.name, scores, ground, resampling)
        if model.version_id is not None:
            told = {"model_version": model.name} | told
        if first is not None:
            told["gain_over"] = {first[0]: gains(scores, first[1], N_CLICKS, resampling)}
        if editing:
            samples = _counted(ground, f"correcting with {model.name}")
            edits = correct_masks(settings, model.weights, samples, resampling.seed)
            told["editing"] = editing_figures(edits, resampling)
        first = first or (model.name, scores)
        yield _Row(told, scores, model.version_id)


def _baselines(ground: _Ground, resampling: Resampling) -> list[_Row]:
    from engine.pipeline.evaluate import follow_without_model
    from engine.training import grabcut

    if not grabcut.is_installed():
        say("GrabCut is left out: pip install 'maskloop[grabcut]' brings it")
    found = follow_without_model(_counted(ground, "reading for the baselines"))
    return [_Row(_told(name, scores, ground, resampling), scores) for name, scores in found.items()]


def _told(name: str, scores: ClickScores, ground: _Ground, resampling: Resampling) -> dict[str, Any]:
    """One row for programs: what most ask for on top, all figures by mask size below."""
    from engine.pipeline.evaluate import CAP, MIN_AREA_PX, N_CLICKS, TARGETS
    from engine.training.click_figures import by_size

    figures = by_size(scores, N_CLICKS, TARGETS, CAP, resampling)
    everything, target = figures["all"], f"{TARGETS[0]:.2f}"
    told = {"name": name, "snapshot": ground.name, "masks": everything["masks"]}
    told |= {"images": everything["images"], "clicks_per_mask": everything["noc"][target]["mean"]}
    told |= {f"miou_{n}": interval["mean"] for n, interval in everything["miou"].items()}
    protocol = {
        "n_clicks": N_CLICKS,
        "targets": TARGETS,
        "cap": CAP,
        "min_area_px": MIN_AREA_PX,
        "resamples": resampling.n_resamples,
        "seed": resampling.seed,
    }
    return told | {"reached": everything["reached"][target], "figures": figures, "protocol": protocol}


def _keep(settings: Settings, workspace: Workspace | None, ground: _Ground, rows: list[_Row]) -> None:
    """What promotion decides by, read of the same clicks, becomes a row for each version of the dataset."""
    from engine.pipeline.evaluate import as_figures, keep, protocol_of
    from engine.store.runner import commit

    if workspace is None or ground.snapshot_id is None:
        return
    protocol = protocol_of(settings)
    for row in rows:
        if row.version_id is not None:
            ids = {"model_version_id": row.version_id, "snapshot_id": ground.snapshot_id}
            commit(workspace, keep(as_figures(row.scores, protocol), protocol, **ids))


def _counted(ground: _Ground, what: str) -> Iterator[Sample]:
    """The samples, told as they go by."""
    with progress_of(what) as tell:
        n_done = 0
        for sample in ground.samples:
            yield sample
            n_done += len(sample.masks)
            tell(n_done, ground.n_masks)
