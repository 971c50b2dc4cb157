"""`python -m engine.training --recipe NAME --out DIR`: trains with torch, numpy, scipy, safetensors alone."""

import argparse
import sys
from pathlib import Path

from engine.errors import MaskloopError
from engine.training.dataset import FolderSamples, Samples
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
    parser.add_argument("--seed", type=int)
    return parser.parse_args()


def print_line(progress: Progress) -> None:
    """One plain line every fifth step: `pipeline/train` reads it, and may cancel only when there is one."""
    if progress.step % 5 and progress.step != progress.steps:
        return
    report = progress.report
    print(
        f"step {progress.step}/{progress.steps} {progress.elapsed_s:.0f} s loss {report.loss:.3f} "
        f"first IoU {report.first_iou:.3f} last IoU {report.last_iou:.3f}",
        flush=True,
    )


def main() -> int:
    """Runs the recipe; prints the path of the checkpoint."""
    options = arguments()
    try:
        samples: Samples = FolderSamples(options.samples) if options.samples else bundled_scenes()
        stages = recipe(options.recipe, options.max_seconds, options.seed)
        print(run_recipe(stages, samples, options.start, options.out, print_line))
    except MaskloopError as error:
        print(error, file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
