"""A mask without logits becomes a prompt: cells, logits, box, and the fold that goes on from it."""

from dataclasses import replace

import numpy as np
import pytest
from numpy.typing import NDArray

from engine.errors import BadInput
from engine.modeling import Sam, SamConfig, encode_image
from engine.modeling.mask_prompt import (
    INSIDE,
    OUTSIDE,
    covered_share,
    logits_of_share,
    mask_prompt,
    reachable_iou,
)
from engine.modeling.predictor import TorchPrompts
from engine.modeling.prompts import check_prompts, fold
from engine.modeling.upscale import upscale_logits


def disc(hw: tuple[int, int], x: int, y: int, radius: float) -> NDArray[np.bool_]:
    rows, columns = np.mgrid[: hw[0], : hw[1]]
    return np.asarray((rows - y) ** 2 + (columns - x) ** 2 <= radius**2)


def test_a_cell_holds_the_share_that_the_mask_covers_of_it(small_config: SamConfig) -> None:
    mask = np.random.default_rng(0).random((128, 128)) < 0.4
    expected = mask.reshape(32, 4, 32, 4).mean(axis=(1, 3))
    assert np.allclose(covered_share(mask, small_config), expected)


@pytest.mark.parametrize("hw", [(96, 200), (50, 31), (128, 300)])
def test_shares_keep_the_area_whatever_the_images_shape(small_config: SamConfig, hw: tuple[int, int]) -> None:
    mask = disc(hw, hw[1] // 3, hw[0] // 2, 11)
    input_h, input_w = small_config.input_hw(hw)
    share = covered_share(mask, small_config)
    cells_per_pixel = (input_h / hw[0]) * (input_w / hw[1]) / 16
    assert share.shape == (32, 32) and share.max() <= 1 + 1e-6
    assert share.sum() == pytest.approx(mask.sum() * cells_per_pixel, rel=1e-5)
    assert not share[-(-input_h // 4) :].any() and not share[:, -(-input_w // 4) :].any()


def test_logits_change_sign_where_half_a_cell_is_covered_and_saturate_in_the_second_cell() -> None:
    share = np.zeros((9, 9), np.float32)
    share[:, :5] = 1
    row = logits_of_share(share)[4]
    assert row[3] == INSIDE and row[6] == OUTSIDE
    assert np.allclose(row[4:6], [INSIDE * 2 / 3, OUTSIDE * 2 / 3])
    assert np.allclose(logits_of_share(np.full((2, 5, 5), 0.5, np.float32)), 0)


def test_a_part_one_cell_wide_stays_mask() -> None:
    share = np.zeros((9, 9), np.float32)
    share[:, 4] = 1
    logits = logits_of_share(share)
    assert (logits[:, 4] > 0).all() and (logits[:, [3, 5]] < 0).all()


@pytest.mark.parametrize("hw", [(128, 128), (90, 140), (300, 200)])
def test_a_mask_comes_back_from_its_logits(small_config: SamConfig, hw: tuple[int, int]) -> None:
    mask = disc(hw, hw[1] // 2, hw[0] // 2, min(hw) / 4) | disc(hw, hw[1] // 4, hw[0] // 4, min(hw) / 6)
    logits = mask_prompt(mask, small_config).low_res_logits
    again = upscale_logits(logits[None], hw, small_config)[0] > 0
    assert np.count_nonzero(again & mask) / np.count_nonzero(again | mask) > 0.9
    assert reachable_iou(mask, small_config) > 0.93


def test_more_logits_reach_farther_and_dots_stay_out_of_reach(small_config: SamConfig) -> None:
    dots = np.zeros((256, 256), bool)
    dots[10:250:12, 10:250:12] = True
    assert reachable_iou(dots, small_config) < 0.1
    crescent = disc((256, 256), 90, 90, 20) & ~disc((256, 256), 96, 90, 19)
    finer = replace(small_config, img_size=512)
    assert reachable_iou(crescent, small_config) < reachable_iou(crescent, finer) - 0.05


def test_the_box_is_the_masks_own_and_a_valid_prompt(small_config: SamConfig) -> None:
    mask = np.zeros((40, 60), bool)
    mask[39, 5:60] = True
    begun = mask_prompt(mask, small_config)
    assert begun.prompt == {"kind": "box", "x0": 5, "y0": 39, "x1": 60, "y1": 40}
    assert check_prompts([begun.prompt], (40, 60)) == [begun.prompt]
    with pytest.raises(BadInput, match="empty mask"):
        mask_prompt(np.zeros((40, 60), bool), small_config)


def test_a_session_goes_on_from_the_mask_as_from_the_answer_to_its_box(small_sam: Sam) -> None:
    """The first click on an existing mask is one call: box, click and the mask's logits, one answer."""
    hw = (96, 128)
    image = np.random.default_rng(1).integers(0, 255, (*hw, 3), dtype=np.uint8)
    decoder = TorchPrompts(small_sam, encode_image(small_sam, image), hw)
    begun = mask_prompt(disc(hw, 60, 40, 20), small_sam.config)
    click = {"kind": "point", "x": 60.0, "y": 70.0, "label": 1}
    untouched = fold(decoder, [begun.prompt], [], answer=begun.low_res_logits)
    assert np.array_equal(untouched.low_res_logits, begun.low_res_logits[None])
    corrected = fold(decoder, [begun.prompt, click], [0], answer=begun.low_res_logits)
    box = np.array([begun.prompt[name] for name in ("x0", "y0", "x1", "y1")], np.float32)
    coords, labels = np.array([[60, 70]], np.float32), np.array([1], np.float32)
    expected, _ = decoder.decode(coords, labels, box, begun.low_res_logits, False)
    assert np.array_equal(corrected.low_res_logits, expected) and len(expected) == 1


def test_two_masks_of_one_box_are_remembered_apart(small_sam: Sam) -> None:
    hw, memory = (64, 64), {}
    decoder = TorchPrompts(small_sam, encode_image(small_sam, np.zeros((*hw, 3), np.uint8)), hw)
    full, hollow = np.zeros(hw, bool), np.zeros(hw, bool)
    full[10:50, 10:50] = hollow[10:50, 10:50] = True
    hollow[20:40, 20:40] = False
    click = {"kind": "point", "x": 5.0, "y": 5.0, "label": 1}
    answers = []
    for mask in (full, hollow, full):
        begun = mask_prompt(mask, small_sam.config)
        answers.append(fold(decoder, [begun.prompt, click], [0], memory, begun.low_res_logits))
    plain = fold(decoder, [begun.prompt, click], [0], memory)
    assert answers[0] is answers[2]
    logits = [answer.low_res_logits for answer in (*answers[:2], plain)]
    assert not any(np.array_equal(logits[a], logits[b]) for a, b in ((0, 1), (0, 2), (1, 2)))
