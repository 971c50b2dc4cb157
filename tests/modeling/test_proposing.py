"""Masks of a grid and of boxes: what the generator makes, with the prompt and choice that make it again."""

from typing import Any

import numpy as np
import pytest

from engine.geometry.rle import Rle, decode, encode, iou
from engine.modeling import AutomaticMaskGenerator, Sam
from engine.modeling.predictor import TorchPrompts, encode_image
from engine.modeling.prompts import fold
from engine.modeling.proposing import ProposedMask, masks_of_boxes, masks_of_grid
from engine.modeling.upscale import upscale_logits
from tests.modeling.conftest import Reference

HW = (64, 96)
GRID = {"points_per_side": 8, "pred_iou_thresh": 0.4, "stability_score_thresh": 0.5}
BOXES = {"pred_iou_thresh": 0.0, "min_mask_region_area": 0, "box_nms_thresh": 0.7}


def replayed(sam: Sam, embedding: Any, hw: tuple[int, int], mask: ProposedMask) -> Rle:
    answer = fold(TorchPrompts(sam, embedding, hw), [mask.prompt], [mask.chosen])
    return encode(upscale_logits(answer.low_res_logits, hw, sam.config)[mask.chosen] > 0)


def test_a_grid_gives_the_generators_masks_and_each_can_be_made_again(trained: Reference) -> None:
    image, sam = trained.image, trained.sam
    embedding, hw = encode_image(sam, image), (image.shape[0], image.shape[1])
    masks = masks_of_grid(sam, embedding, hw, GRID)
    records = AutomaticMaskGenerator(sam, output_mode="coco_rle", **GRID).generate(image)
    assert [mask.segmentation["counts"] for mask in masks] == [
        record["segmentation"]["counts"] for record in records
    ]
    assert len(masks) > 1
    for mask in masks:
        assert iou(replayed(sam, embedding, hw, mask), mask.segmentation) >= 0.99
        pixels = decode(mask.segmentation)
        x, y, width, height = mask.bbox_xywh
        assert mask.area == pixels.sum() == pixels[y : y + height, x : x + width].sum()


@pytest.fixture(scope="module")
def embedding(small_sam: Sam) -> Any:
    return encode_image(small_sam, np.random.default_rng(0).integers(0, 255, (*HW, 3), dtype=np.uint8))


def test_boxes_are_masked_best_first_by_their_score(small_sam: Sam, embedding: Any) -> None:
    boxes = np.array([[5, 5, 30, 30], [50, 20, 90, 60], [10, 10, 10, 40], [5, 5, 30, 30]], np.float32)
    masks = masks_of_boxes(small_sam, embedding, HW, boxes, np.array([0.5, 0.9, 0.99, 0.4]), BOXES)
    # The third box is a line, and the fourth is the first once more.
    assert [mask.score for mask in masks] in ([0.9, 0.5], [0.9])
    assert masks[0].prompt == {"kind": "box", "x0": 50.0, "y0": 20.0, "x1": 90.0, "y1": 60.0}
    for mask in masks:
        assert iou(replayed(small_sam, embedding, HW, mask), mask.segmentation) >= 0.99


def test_masks_the_model_doubts_and_no_boxes_at_all_give_nothing(small_sam: Sam, embedding: Any) -> None:
    box, none = np.array([[5, 5, 30, 30]], np.float32), np.zeros((0, 4), np.float32)
    strict = BOXES | {"pred_iou_thresh": 0.999}
    assert masks_of_boxes(small_sam, embedding, HW, box, np.array([0.5]), strict) == []
    assert masks_of_boxes(small_sam, embedding, HW, none, np.zeros(0), BOXES) == []


def test_specks_go_where_they_are_asked_to(small_sam: Sam, embedding: Any) -> None:
    box = np.array([[5, 5, 60, 50]], np.float32)
    (rough,) = masks_of_boxes(small_sam, embedding, HW, box, np.array([0.5]), BOXES)
    cleaned = masks_of_boxes(
        small_sam, embedding, HW, box, np.array([0.5]), BOXES | {"min_mask_region_area": 40}
    )
    assert cleaned and cleaned[0].prompt == rough.prompt


def test_the_work_can_be_ended_between_a_few_prompts(small_sam: Sam, embedding: Any) -> None:
    seen = []

    def stop() -> None:
        seen.append(1)
        if len(seen) == 2:
            raise InterruptedError

    with pytest.raises(InterruptedError):
        masks_of_grid(small_sam, embedding, HW, {"points_per_side": 8}, stop)
    assert len(seen) == 2
