import json
from pathlib import Path

import numpy as np
import pytest

from engine.errors import BadInput, NotFound
from engine.synthetic.scene import draw_scene
from engine.training.dataset import FolderSamples, Mixture, Sample, SceneSamples, write_folder
from engine.training.steps import draw_batch, pick
from engine.training.views import ViewRules, draw_view


def test_a_folder_gives_back_what_was_written(disks, tmp_path: Path) -> None:
    assert write_folder((disks[i] for i in range(4)), tmp_path) == 4
    samples = FolderSamples(tmp_path)
    assert len(samples) == 4
    assert np.array_equal(samples[2].image, disks[2].image)
    assert np.array_equal(samples[2].mask(1), disks[2].mask(1))
    assert samples[2].human


def test_a_folder_without_samples_is_named_in_the_refusal(tmp_path: Path) -> None:
    with pytest.raises(NotFound, match="training snapshot"):
        FolderSamples(tmp_path)


def test_a_mask_of_another_size_is_refused_with_its_line(disks, tmp_path: Path) -> None:
    write_folder([disks[0]], tmp_path)
    row = json.loads((tmp_path / "samples.jsonl").read_text())
    row["rles"][0] = {"size": [3, 3], "counts": "09"}
    (tmp_path / "samples.jsonl").write_text(json.dumps(row))
    with pytest.raises(BadInput, match="line 1"):
        FolderSamples(tmp_path)[0]


def test_the_same_scene_number_gives_the_same_scene() -> None:
    scenes = SceneSamples(7, 3, ("still_life",), (96, 96))
    assert np.array_equal(scenes[1].image, scenes[1].image)
    assert not np.array_equal(scenes[1].image, scenes[2].image)
    with pytest.raises(IndexError):
        scenes[3]


def test_a_mixture_draws_in_its_shares_and_repeats_itself(disks) -> None:
    bright = [Sample(np.full((8, 8, 3), 255, np.uint8), [np.ones((8, 8), bool)], human=False)]
    mixture = Mixture((disks, bright), (3.0, 1.0))
    human = [mixture[i].human for i in range(200)]
    assert 0.65 < np.mean(human) < 0.85
    assert human == [mixture[i].human for i in range(200)]


def test_samples_without_weight_are_never_drawn(disks) -> None:
    first = Sample(disks[0].image, disks[0].masks, weight=0.0)
    rng = np.random.default_rng(0)
    assert all(pick([first, disks[1]], rng).weight == 1.0 for _ in range(20))
    with pytest.raises(BadInput, match="weight"):
        pick([first], rng)


def test_a_view_without_jitter_is_the_official_frame(disks) -> None:
    rules = ViewRules(window_px=64, flip=False, min_area_px=20)
    view = draw_view(disks[0], 64, 3, rules, np.random.default_rng(0))
    assert view is not None
    assert np.array_equal(view.image.numpy().transpose(1, 2, 0), disks[0].image)
    assert {mask.tobytes() for mask in view.masks} == {mask.tobytes() for mask in disks[0].masks}


def test_targets_hold_the_covered_share_of_each_cell(disks) -> None:
    rules = ViewRules(window_px=64, scale=(0.7, 1.4), min_area_px=20)
    view = draw_view(disks[1], 64, 3, rules, np.random.default_rng(5))
    assert view is not None
    shares = view.masks.reshape(3, 16, 4, 16, 4).mean(axis=(2, 4))
    assert np.allclose(view.targets.numpy(), shares)


def test_flips_move_picture_and_masks_together(disks) -> None:
    sample, rules = disks[3], ViewRules(window_px=64, min_area_px=20)
    for seed in range(8):
        view = draw_view(sample, 64, 3, rules, np.random.default_rng(seed))
        assert view is not None
        bright = view.image.numpy().max(axis=0) > 100
        assert np.array_equal(bright, view.masks.any(axis=0))


def test_padding_stays_right_and_below_and_holds_no_mask() -> None:
    image = np.full((32, 64, 3), 90, dtype=np.uint8)
    mask = np.zeros((32, 64), dtype=bool)
    mask[4:28, 8:40] = True
    rules = ViewRules(window_px=64, scale=(0.8, 0.8), min_area_px=20)
    for seed in range(6):
        view = draw_view(Sample(image, [mask]), 64, 1, rules, np.random.default_rng(seed))
        assert view is not None
        h, w = view.valid_hw
        assert view.image[:, :h, :w].min() > 80
        assert view.image[:, h:].sum() == 0 and view.image[:, :, w:].sum() == 0
        assert not view.masks[:, h:].any() and not view.masks[:, :, w:].any()


def test_too_small_and_near_full_masks_are_passed_over() -> None:
    image = np.zeros((64, 64, 3), dtype=np.uint8)
    dot, full = np.zeros((64, 64), dtype=bool), np.ones((64, 64), dtype=bool)
    dot[3, 3] = True
    rules = ViewRules(window_px=64)
    assert draw_view(Sample(image, [dot, full]), 64, 2, rules, np.random.default_rng(0)) is None
    with pytest.raises(BadInput, match="no usable mask"):
        draw_batch([Sample(image, [dot, full])], 1, 2, 64, rules, np.random.default_rng(0))


def test_parts_are_left_out_by_their_share_and_objects_never() -> None:
    whole, some = SceneSamples(3, 1), SceneSamples(3, 1, part_share=0.0)
    scene = draw_scene(3, size_hw=(512, 512), theme="still_life")
    n_objects = sum(one.kind == "object" for one in scene.masks)
    assert 0 < n_objects < len(scene.masks) == len(whole[0].masks)
    assert len(some[0].masks) == n_objects
    half = SceneSamples(3, 1, part_share=0.5)
    assert n_objects <= len(half[0].masks) < len(scene.masks)
