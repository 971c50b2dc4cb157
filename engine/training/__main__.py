"""`python -m engine.training --recipe NAME --out DIR`: trains with torch, numpy, scipy, safetensors alone."""

import argparse
import os
import signal
import sys
import threading
from pathlib import Path

from engine.errors import MaskloopError
from engine.training.dataset import FolderSamples, Samples
from engine.training.distributed import die_with_parent, joined, launch, leave
from engine.training.recipes import RECIPES, bundled_scenes, recipe, run_recipe
from engine.training.trainer import Progress


def arguments() -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(prog="python -m engine.training", description=__doc__)
    parser.add_argument("--recipe", required=True, choices=sorted(RECIPES))
    parser.add_argument("--out", required=True, type=Path, help="folder of the run; run again to resume")
    parser.add_argument(
        "--samples", type=Path, help="folder of a training snapshot; generated scenes if left out"
    )
    parser.add_argument("--start", type=Path, help="checkpoint to start from; random weights if left out")
    parser.add_argument("--max-seconds", type=float)
    parser.add_argument("--steps", type=int, help="so many instead, however long they take")
    parser.add_argument("--seed", type=int)
    parser.add_argument("--device", default="cpu", help="torch device; cuda: one for each rank of torchrun")
    parser.add_argument("--processes", type=int, default=1, help="how many train together, by torchrun")
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


def main() -> int:
    """Runs the recipe; prints the path of the checkpoint. SIGTERM saves after the present step and ends."""
    die_with_parent()
    options, told_to_stop = arguments(), threading.Event()
    if options.processes > 1 and "WORLD_SIZE" not in os.environ:
        return launch(options.processes, ["-m", "--", "engine.training", *sys.argv[1:]])
    signal.signal(signal.SIGTERM, lambda *_: told_to_stop.set())
    try:
        samples: Samples = FolderSamples(options.samples) if options.samples else bundled_scenes()
        stages = recipe(options.recipe, options.max_seconds, options.seed, options.steps)
        with joined(options.device) as ranks:
            written = run_recipe(
                stages, samples, options.start, options.out, print_line, told_to_stop.is_set, ranks
            )
        if ranks.is_first:
            print(written or "stopped; the same command goes on from here", flush=True)
    except MaskloopError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    leave(main())
