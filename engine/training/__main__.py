"""`python -m engine.training --recipe NAME --out DIR`: trains with torch, numpy, scipy, safetensors alone."""

import argparse
import os
import signal
import sys
import threading
from collections.abc import Callable
from dataclasses import asdict, replace
from pathlib import Path

from engine.errors import MaskloopError
from engine.training.dataset import FolderSamples, Samples
from engine.training.distributed import Ranks, die_with_parent, joined, launch, leave
from engine.training.pictures import Pixels
from engine.training.recipes import RECIPES, bundled_scenes, recipe, run_recipe
from engine.training.sinks import MLflow, PictureFolder, Sink, TensorBoard
from engine.training.trainer import Progress, TrainConfig

BAR_WIDTH = 24


def arguments() -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(prog="python -m engine.training", description=__doc__)
    parser.add_argument("--recipe", required=True, choices=sorted(RECIPES))
    parser.add_argument("--out", required=True, type=Path, help="folder of the run; run again to resume")
    parser.add_argument(
        "--samples", type=Path, help="folder of a training snapshot; generated scenes if left out"
    )
    parser.add_argument("--start", type=Path, help="checkpoint to start from; random weights if left out")
    parser.add_argument("--architecture", default="tiny", help="of random weights: tiny, mobile, vit_b ...")
    parser.add_argument("--max-seconds", type=float)
    parser.add_argument("--steps", type=int, help="so many instead, however long they take")
    parser.add_argument("--seed", type=int)
    parser.add_argument("--device", default="cpu", help="torch device; cuda: one for each rank of torchrun")
    parser.add_argument("--processes", type=int, default=1, help="how many train together, by torchrun")
    parser.add_argument("--pictures-every", type=int, default=0, help="steps between pictures of answers")
    parser.add_argument("--tensorboard", type=Path, help="folder for its event files")
    parser.add_argument("--mlflow", help="tracking address: sqlite:///FILE, http://HOST")
    return parser.parse_args()


def print_line(progress: Progress) -> None:
    """One plain line every fifth step, which `pipeline/train` reads."""
    if progress.step % 5 and progress.step != progress.steps:
        return
    report = progress.report
    print(
        f"step {progress.step}/{progress.steps} {progress.elapsed_s:.0f} s loss {report.loss:.3f} "
        f"first IoU {report.first_iou:.3f} last IoU {report.last_iou:.3f}",
        flush=True,
    )


def draw_bar(progress: Progress) -> None:
    """For a person at a terminal: one line, drawn over and over."""
    done, report = progress.step / progress.steps, progress.report
    left_s = progress.elapsed_s / progress.step * (progress.steps - progress.step)
    bar = ("#" * round(done * BAR_WIDTH)).ljust(BAR_WIDTH, ".")
    figures = f"loss {report.loss:.3f}, IoU {report.first_iou:.3f} to {report.last_iou:.3f}"
    minutes, seconds = divmod(round(left_s), 60)
    end = "\n" if progress.step == progress.steps else ""
    steps = f"{progress.step}/{progress.steps}, {minutes}:{seconds:02d} left"
    print(f"\r\x1b[K{progress.recipe} [{bar}] {steps}, {figures}", end=end, flush=True)


def sinks_of(options: argparse.Namespace, stages: tuple[TrainConfig, ...], ranks: Ranks) -> list[Sink]:
    """What was asked for; only the first rank has any."""
    if not ranks.is_first:
        return []
    sinks: list[Sink] = [PictureFolder(options.out / "pictures")] if options.pictures_every else []
    if options.tensorboard:
        sinks.append(TensorBoard(options.tensorboard))
    if options.mlflow:
        sinks.append(MLflow(options.mlflow, options.recipe, asdict(stages[-1])))
    return sinks


def run(options: argparse.Namespace, should_stop: Callable[[], bool]) -> None:
    """Runs the recipe as the options say; prints the path of the checkpoint."""
    samples: Samples = FolderSamples(options.samples) if options.samples else bundled_scenes()
    stages = recipe(options.recipe, options.max_seconds, options.seed, options.steps)
    stages = tuple(replace(stage, picture_every=options.pictures_every) for stage in stages)
    tell = draw_bar if sys.stdout.isatty() else print_line
    with joined(options.device) as ranks:
        sinks = sinks_of(options, stages, ranks)

        def on_progress(progress: Progress) -> None:
            tell(progress)
            figures = {f"{progress.recipe}/{name}": value for name, value in asdict(progress.report).items()}
            for sink in sinks:
                sink.log(progress.step, figures)

        def on_picture(step: int, picture: Pixels) -> None:
            for sink in sinks:
                sink.show(step, picture)

        try:
            written = run_recipe(
                stages,
                samples,
                options.start,
                options.out,
                on_progress,
                should_stop,
                ranks,
                options.architecture,
                on_picture,
            )
        finally:
            for sink in sinks:
                sink.close()
    if ranks.is_first:
        print(written or "stopped; the same command goes on from here", flush=True)


def main() -> int:
    """Runs the recipe. SIGTERM saves after the present step and ends."""
    die_with_parent()
    options, told_to_stop = arguments(), threading.Event()
    if options.processes > 1 and "WORLD_SIZE" not in os.environ:
        return launch(options.processes, ["-m", "--", "engine.training", *sys.argv[1:]])
    signal.signal(signal.SIGTERM, lambda *_: told_to_stop.set())
    try:
        run(options, told_to_stop.is_set)
    except MaskloopError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    leave(main())
