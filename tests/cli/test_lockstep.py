"""A run in lockstep ends with equal rows and bytes on SQLite in one process and on Postgres with workers."""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from engine.geometry.rle import area, bbox_xywh
from engine.simulation.truth import Truth
from tests.cli.conftest import Maskloop
from tests.conftest import REDIS
from tests.simulation.conftest import discs

__all__ = ["discs"]

# Few steps and few held-out masks, so that a detector prefills and a candidate is decided on.
QUICK = {
    "MASKLOOP_TRAIN__STEPS": "4",
    "MASKLOOP_TRAIN__MIN_HOLDOUT_MASKS": "4",
    "MASKLOOP_TRAIN__CLICK_CAP": "4",
    "MASKLOOP_DETECTOR__STEPS": "60",
    # Below the false rate that is allowed, so that a detector of sixty steps prefills at all.
    "MASKLOOP_DETECTOR__UNDRAWN_IS_FALSE": "0.1",
}
SHORT = "--images-per-round 3 --masks-per-image 6 --gate-masks 12 --eval-masks 4 --max-clicks 3"


def truth_file(folder: Path, truth: Truth, images: list[dict[str, Any]]) -> Path:
    ids = {image["file_name"]: image["id"] for image in images}
    annotations = [
        {
            "id": number,
            "image_id": ids[name],
            "category_id": 1,
            "segmentation": rle,
            "area": area(rle),
            "bbox": bbox_xywh(rle),
            "iscrowd": 0,
        }
        for number, (name, rle) in enumerate(((n, rle) for n, rles in truth.masks.items() for rle in rles), 1)
    ]
    blocks = {"images": images, "annotations": annotations, "categories": [{"id": 1, "name": "disc"}]}
    (folder / "truth.json").write_text(json.dumps(blocks))
    return folder / "truth.json"


def simulated(home: Path, truth: Path, pictures: Path, changed: dict[str, str], *options: str) -> list[Any]:
    """What `simulate` prints, a row each; the thresholds of stage 3 let an unsure model through."""
    stages = home / "stages"
    stages.mkdir(parents=True)
    written = (Path(__file__).parents[2] / "configs/stages/fully_automatic.toml").read_text()
    written = written.replace("pred_iou_thresh = 0.88", "pred_iou_thresh = 0.5")
    (stages / "fully_automatic.toml").write_text(written.replace("thresh = 0.95", "thresh = 0.6"))
    environment = os.environ | QUICK | {"MASKLOOP_HOME": str(home)} | changed
    command = [sys.executable, "-m", "engine"]
    if "MASKLOOP_DATABASE__URL" in changed:
        subprocess.run([*command, "db", "upgrade"], env=environment, check=True, timeout=60)
    asked = ["simulate", "--lockstep", "--three-stages", "--points-per-side", "4", "--json", *SHORT.split()]
    asked += ["--truth", str(truth), "--images", str(pictures), "--dataset", "discs", *options]
    ran = subprocess.run([*command, *asked], env=environment, capture_output=True, text=True, timeout=500)
    assert ran.returncode == 0, ran.stderr
    return [json.loads(line) for line in ran.stdout.splitlines()]


@pytest.mark.slow
def test_one_process_on_sqlite_and_two_workers_on_postgres_end_equal(
    discs: tuple[Path, Truth], empty_postgres: str, redis_prefix: str, tmp_path: Path
) -> None:
    pictures, truth = discs
    images = json.loads((pictures / "splits.json").read_text())["images"]
    file = truth_file(tmp_path, truth, images)
    alone = simulated(tmp_path / "alone", file, pictures, {})
    broker = {"MASKLOOP_WORKER__BROKER": REDIS, "MASKLOOP_WORKER__KEY_PREFIX": redis_prefix}
    shared = {"MASKLOOP_DATABASE__URL": empty_postgres} | broker
    together = simulated(tmp_path / "together", file, pictures, shared, "--workers", "2")
    assert together == alone
    first, second, third = alone[:3]
    assert first["masks"] and second["prefilled"] and third["masks"], "every stage has something to compare"
    rows = alone[-1]["rows"]
    assert rows["detector_versions"] >= 2 and rows["model_versions"] == 3 and rows["reviews"] > 0


@pytest.mark.parametrize(
    "options, sentence",
    [(("--workers", 2), "redis://HOST"), (("--lockstep", "--train-seconds", 9), "leave out --train-seconds")],
)
def test_what_cannot_be_is_said_before_anything_is_imported(
    maskloop: Maskloop, home: Path, options: tuple[str, ...], sentence: str
) -> None:
    ended = maskloop("simulate", "--truth", home / "none.json", *options, "--home", home)
    assert ended.code == 1 and sentence in ended.err
