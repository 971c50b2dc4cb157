"""The demo with the bundled model: its pictures, its page, and the turn without a browser."""

import json
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from engine.cli.garden import N_PICTURES, draw_garden
from engine.formats.coco import read_coco
from engine.formats.verify import verify


@contextmanager
def demo(home: Path, *arguments: str) -> Iterator[subprocess.Popen[str]]:
    command = [sys.executable, "-m", "engine", "demo", "--home", str(home), *arguments]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    try:
        yield process
    finally:
        process.terminate()
        process.communicate(timeout=30)


@pytest.fixture(scope="module")
def garden(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return draw_garden(tmp_path_factory.mktemp("garden")).parent


def test_the_garden_comes_with_its_exact_truth_and_is_drawn_once(garden: Path) -> None:
    coco = read_coco(garden / "truth.json")
    splits = [block.extra["split"] for block in coco.images.values()]
    assert (len(splits), splits.count("val")) == (N_PICTURES, N_PICTURES // 3)
    assert verify(garden / "truth.json").ok
    drawn_at = {path: path.stat().st_mtime_ns for path in (garden / "images").iterdir()}
    assert len(drawn_at) == N_PICTURES
    draw_garden(garden)
    assert drawn_at == {path: path.stat().st_mtime_ns for path in (garden / "images").iterdir()}


def test_the_garden_has_masks_enough_for_the_turn(garden: Path) -> None:
    coco = read_coco(garden / "truth.json")
    per_image = dict.fromkeys(coco.images, 0)
    for annotation in coco.annotations():
        per_image[annotation.image_id] += 1
    assert min(per_image.values()) >= 12


@pytest.mark.bundled
def test_the_demo_serves_a_dataset_that_is_ready_and_begins_where_it_was(tmp_path: Path) -> None:
    for n_known in (0, 1):
        with demo(tmp_path / "home", "--port", "0", "--json") as process:
            assert process.stdout is not None
            greeting = json.loads(process.stdout.readline())
            assert "/sign-in#token=" in greeting["link"], n_known
    brief = subprocess.run(
        [sys.executable, "-m", "engine", "stage", "show", "--json", "--home", str(tmp_path / "home")],
        capture_output=True,
        text=True,
        check=True,
    )
    shown = json.loads(brief.stdout)
    assert (shown["name"], shown["n_images"]) == ("garden", N_PICTURES)
    assert shown["open_stage"] == "assisted_manual"


@pytest.mark.bundled
@pytest.mark.slow
def test_one_turn_without_a_browser_ends_with_a_verified_file_and_a_row_per_version(tmp_path: Path) -> None:
    home = tmp_path / "turn"
    with demo(home, "--no-serve", "--json") as process:
        out, err = process.communicate(timeout=900)
    assert process.returncode == 0, err
    *rows, last = [json.loads(line) for line in out.splitlines()]
    assert [row["model_version"] for row in rows] == ["bundled-tiny", "v2"]
    assert rows[0]["masks"] > 0 and rows[0]["eval_masks"] == rows[1]["eval_masks"] > 0
    assert verify(Path(last["verified"])).ok
    assert verify(home / "before-training").ok
