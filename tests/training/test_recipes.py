import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from engine.errors import NotFound
from engine.modeling.checkpoint import read_header, save_checkpoint
from engine.modeling.registry import build_sam
from engine.training.dataset import write_folder
from engine.training.evaluate import TorchBackend, evaluate_clicks
from engine.training.recipes import BUNDLED_THEMES, RECIPES, bundled_scenes, recipe, with_replay

ROOT = Path(__file__).parents[2]
BUNDLED = ROOT / "engine" / "bundled" / "tiny.safetensors"


def test_the_demos_theme_is_never_trained_on() -> None:
    assert "garden" not in BUNDLED_THEMES
    assert bundled_scenes().themes == BUNDLED_THEMES


def test_an_unknown_recipe_names_the_known_ones() -> None:
    with pytest.raises(NotFound, match="bundled-tiny, finetune, generator, paper"):
        recipe("nothing")


def test_a_time_limit_is_shared_among_the_stages_by_their_steps() -> None:
    stages = recipe("bundled-tiny", max_seconds=100.0)
    limits = [stage.max_seconds or 0.0 for stage in stages]
    assert sum(limits) == pytest.approx(100.0)
    assert limits[2] == max(limits) and stages[2].steps == max(stage.steps for stage in stages)


def test_the_paper_recipe_has_the_papers_eleven_rounds() -> None:
    (paper,) = RECIPES["paper"]
    assert paper.prompts.rounds == 11 and paper.losses.focal / paper.losses.dice == 20
    assert paper.n_images * paper.accumulate == 256 and paper.views.max_area_share == 0.9
    (generator,) = RECIPES["generator"]
    assert (generator.prompts.rounds, generator.prompts.box_share, generator.decoder_depth) == (4, 0.0, 3)


def test_steps_stand_in_place_of_any_time_limit() -> None:
    (finetune,) = recipe("finetune", max_seconds=9.0, steps=40)
    assert (finetune.steps, finetune.max_seconds) == (40, None)
    stages = recipe("bundled-tiny", steps=1000)
    assert sum(stage.steps for stage in stages) == pytest.approx(1000, abs=len(stages))


def test_replay_mixes_scenes_into_small_sets(disks) -> None:
    mixed = with_replay(disks, share=0.5)
    assert {mixed[number].human for number in range(12)} == {True, False}


def test_the_command_prints_steps_and_ends_with_the_checkpoint(disks, small, tmp_path: Path) -> None:
    """The contract of `pipeline/train`, which reads these lines from a child process."""
    write_folder((disks[i] for i in range(2)), tmp_path / "samples")
    start = tmp_path / "start.safetensors"
    save_checkpoint(start, build_sam(small, seed=0).state_dict(), small)
    options = [
        "--samples",
        tmp_path / "samples",
        "--start",
        start,
        "--out",
        tmp_path / "run",
        "--max-seconds",
        2,
    ]
    command = [sys.executable, "-m", "engine.training", "--recipe", "finetune", *map(str, options)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    lines = done.stdout.splitlines()
    assert lines[-2].startswith("step ") and " s loss " in lines[-2]
    assert read_header(lines[-1])[0] == small


def test_the_command_states_a_failure_in_one_line(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "engine.training", "--recipe", "finetune", "--out", str(tmp_path)]
    done = subprocess.run([*command, "--samples", str(tmp_path)], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 1 and len(done.stderr.splitlines()) == 1


@pytest.mark.bundled
def test_the_bundled_model_is_small_and_says_what_it_saw() -> None:
    config, facts = read_header(BUNDLED)
    assert BUNDLED.stat().st_size <= 12_000_000
    assert config.name == "tiny" and facts["trained_on"] == "generated scenes only"
    assert facts["licence"] == "Apache-2.0"


@pytest.mark.bundled
def test_the_bundled_model_follows_clicks_on_scenes_it_never_saw() -> None:
    from engine.synthetic.scene import draw_scene
    from engine.training.dataset import Sample

    scenes = [draw_scene(9_500_000 + number, theme="microscope") for number in range(2)]
    samples = [Sample(s.image, [part.mask for part in s.masks if part.kind == "object"]) for s in scenes]
    scores = evaluate_clicks(TorchBackend(build_sam(checkpoint=BUNDLED)), samples, n_masks=12, cap=3)
    assert scores.mean_iou(1) > 0.35
    assert scores.mean_iou(3) > scores.mean_iou(1)
    assert np.isfinite(scores.ious).all()
