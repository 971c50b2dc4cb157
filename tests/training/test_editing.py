from pathlib import Path

import numpy as np
import pytest

from engine.modeling.registry import build_sam
from engine.training.dataset import Sample
from engine.training.editing import evaluate_editing
from engine.training.evaluate import TorchBackend, evaluate_clicks, iou
from engine.training.spoiling import SPOILERS, spoil

BUNDLED = Path(__file__).parents[2] / "engine" / "bundled" / "tiny.safetensors"


def test_every_large_mask_is_spoilt_in_every_way_and_clicked_once(disks, small) -> None:
    sam = build_sam(small, seed=3)
    dot = np.zeros((64, 64), bool)
    dot[1, 1] = True
    samples = [disks[0], Sample(disks[1].image, [dot, disks[1].mask(2)]), Sample(disks[2].image, [dot])]
    scores = evaluate_editing(sam, samples, seed=4)
    assert scores.sample_index.tolist() == [0, 0, 0, 1]
    assert scores.spoilt.shape == scores.corrected.shape == (4, len(SPOILERS))
    assert (scores.spoilt < 1).all() and (scores.spoilt > 0.1).all()
    expected = spoil(disks[0].mask(1), disks[0].masks, SPOILERS["bites"], np.random.default_rng([4, 0, 1, 2]))
    assert scores.spoilt[1, 2] == pytest.approx(iou(expected, disks[0].mask(1)))


def test_anew_is_the_first_click_of_the_evaluation(disks, small) -> None:
    sam = build_sam(small, seed=3)
    samples = [disks[0], disks[1]]
    clicks = evaluate_clicks(TorchBackend(sam), samples, n_clicks=(1,), cap=1)
    assert np.allclose(evaluate_editing(sam, samples).anew, clicks.ious[:, 0], atol=1e-3)


def test_equal_seeds_measure_alike_and_no_mask_gives_empty_scores(disks, small) -> None:
    sam = build_sam(small, seed=3)
    runs = [evaluate_editing(sam, [disks[0]], seed) for seed in (1, 1, 2)]
    assert np.array_equal(runs[0].spoilt, runs[1].spoilt)
    assert np.array_equal(runs[0].corrected, runs[1].corrected)
    assert not np.array_equal(runs[0].spoilt, runs[2].spoilt)
    assert evaluate_editing(sam, []).corrected.shape == (0, len(SPOILERS))


def test_masks_beside_are_spilt_into_but_not_measured(small) -> None:
    image, left, right = np.zeros((64, 64, 3), np.uint8), np.zeros((64, 64), bool), np.zeros((64, 64), bool)
    left[20:40, 10:30], right[20:40, 32:52] = True, True
    sample = Sample(image, [left], beside=[right])
    assert [mask.tobytes() for mask in sample.every_mask()] == [left.tobytes(), right.tobytes()]
    scores = evaluate_editing(build_sam(small, seed=3), [sample])
    spilt = spoil(left, [left, right], SPOILERS["spill"], np.random.default_rng([0, 0, 0, 3]))
    assert scores.spoilt.shape == (1, 4) and scores.spoilt[0, 3] == pytest.approx(iou(spilt, left))
    assert (spilt & right).sum() > 20


@pytest.mark.bundled
def test_one_click_mends_a_mask_under_the_microscope() -> None:
    from engine.synthetic.scene import draw_scene

    scene = draw_scene(9_600_001, theme="microscope")
    kept = [part.mask for part in scene.masks if part.kind == "object" and part.mask.sum() > 400][:8]
    scores = evaluate_editing(build_sam(checkpoint=BUNDLED), [Sample(scene.image, kept)])
    assert scores.corrected.mean() > scores.spoilt.mean() + 0.02
