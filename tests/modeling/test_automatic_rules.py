"""What the generator promises for any image and any model, the smallest included."""

from __future__ import annotations

import inspect
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from engine.errors import BadInput
from engine.geometry import rle
from engine.geometry.boxes import box_iou, xywh_to_xyxy
from engine.geometry.runs import mask_to_runs, runs_to_mask
from engine.modeling import (
    AutomaticMaskGenerator,
    Sam,
    SamAutomaticMaskGenerator,
    SamConfig,
    build_sam,
    encode_image,
)
from engine.modeling.generation_records import GeneratedMask, clean_masks
from engine.modeling.sam_config import CONFIGS
from engine.modeling.upscale import upscale_logits
from engine.modeling.upscale_region import RegionUpscaler

if TYPE_CHECKING:
    from tests.modeling.conftest import Reference

EVERYTHING = {"pred_iou_thresh": 0.0, "stability_score_thresh": 0.0, "points_per_side": 4}


@pytest.fixture(scope="module")
def loud_sam(small_config: SamConfig) -> Sam:
    """Random weights whose logits swing far beyond the stability offset."""
    sam = build_sam(small_config, seed=3)
    with torch.no_grad():
        for mlp in sam.mask_decoder.output_hypernetworks_mlps:
            mlp.layers[-1].weight *= 400  # type: ignore[operator,index,union-attr]
    return sam


def picture(hw: tuple[int, int], seed: int = 0) -> NDArray[np.uint8]:
    return np.random.default_rng(seed).integers(0, 256, (*hw, 3), dtype=np.uint8)


def generate(sam: Sam, image: NDArray[np.uint8], **arguments: Any) -> list[dict[str, Any]]:
    return AutomaticMaskGenerator(sam, **EVERYTHING | arguments).generate(image)


def test_arguments_have_the_official_names_order_and_defaults() -> None:
    assert SamAutomaticMaskGenerator is AutomaticMaskGenerator
    parameters = list(inspect.signature(AutomaticMaskGenerator).parameters.values())
    official = {
        "points_per_side": 32,
        "points_per_batch": 64,
        "pred_iou_thresh": 0.88,
        "stability_score_thresh": 0.95,
        "stability_score_offset": 1.0,
        "box_nms_thresh": 0.7,
        "crop_n_layers": 0,
        "crop_nms_thresh": 0.7,
        "crop_overlap_ratio": 512 / 1500,
        "crop_n_points_downscale_factor": 1,
        "point_grids": None,
        "min_mask_region_area": 0,
        "output_mode": "binary_mask",
    }
    positional = [p for p in parameters[1:] if p.kind is p.POSITIONAL_OR_KEYWORD]
    assert [(p.name, p.default) for p in positional] == list(official.items())


@pytest.mark.parametrize("crop_n_layers", [0, 1, 2])
@pytest.mark.parametrize("hw", [(1, 1), (1, 300), (3, 2), (33, 50), (97, 41)])
def test_records_fit_their_image_whatever_its_size(
    loud_sam: Sam, hw: tuple[int, int], crop_n_layers: int
) -> None:
    records = generate(loud_sam, picture(hw), crop_n_layers=crop_n_layers)
    assert records
    corners = np.array([hw[1], hw[0], hw[1], hw[0]])
    for record in records:
        mask = record["segmentation"]
        assert mask.shape == hw and mask.dtype == np.bool_ and mask.sum() == record["area"]
        if record["area"]:
            x, y, width, height = rle.bbox_xywh(rle.encode(mask))
            assert record["bbox"] == [x, y, width - 1, height - 1]
        assert (xywh_to_xyxy(np.array(record["crop_box"])) <= corners).all()
        assert (np.array(record["point_coords"][0]) <= corners[:2]).all()
        assert 0 <= record["stability_score"] <= 1


@pytest.mark.parametrize("threshold", [0.1, 0.7])
def test_no_two_records_overlap_beyond_the_nms_threshold(trained: Reference, threshold: float) -> None:
    arguments = {"box_nms_thresh": threshold, "crop_nms_thresh": threshold, "crop_n_layers": 1}
    records = generate(trained.sam, trained.image, pred_iou_thresh=0.3, **arguments)
    boxes = xywh_to_xyxy(np.array([record["bbox"] for record in records]))
    overlaps = box_iou(boxes, boxes) * ~np.eye(len(boxes), dtype=bool)
    assert len(records) > 10 and overlaps.max() <= threshold + 1e-6


def test_the_three_output_modes_hold_the_same_masks(loud_sam: Sam) -> None:
    image = picture((41, 33))
    as_masks, as_runs, as_strings = (
        generate(loud_sam, image, output_mode=mode, box_nms_thresh=1.0)
        for mode in ("binary_mask", "uncompressed_rle", "coco_rle")
    )
    assert len(as_masks) == len(as_runs) == len(as_strings) > 1
    for mask, runs, string in zip(as_masks, as_runs, as_strings, strict=True):
        assert rle.encode(mask["segmentation"]) == string["segmentation"]
        assert rle.validate(runs["segmentation"], (41, 33)) == string["segmentation"]


def test_how_many_prompts_go_at_once_changes_no_mask(loud_sam: Sam) -> None:
    image = picture((60, 48))
    one_by_one, in_fours = (
        generate(loud_sam, image, points_per_batch=n, output_mode="coco_rle") for n in (1, 64)
    )
    assert len(one_by_one) == len(in_fours)
    for first, second in zip(one_by_one, in_fours, strict=True):
        assert rle.iou(first["segmentation"], second["segmentation"]) > 0.999


def test_an_embedding_that_is_there_gives_the_masks_of_its_image(loud_sam: Sam) -> None:
    image = picture((60, 48))
    generator = AutomaticMaskGenerator(loud_sam, **EVERYTHING, output_mode="coco_rle")
    assert generator.generate_from_embedding(encode_image(loud_sam, image), (60, 48)) == generator.generate(
        image
    )
    with pytest.raises(BadInput, match="crop"):
        AutomaticMaskGenerator(loud_sam, crop_n_layers=1).generate_from_embedding(
            encode_image(loud_sam, image), (60, 48)
        )


def test_confidence_and_stability_are_floors_and_coverage_a_ceiling(loud_sam: Sam) -> None:
    image = picture((60, 48))
    everything = generate(loud_sam, image, box_nms_thresh=1.0)
    ious = sorted(record["predicted_iou"] for record in everything)
    confident = generate(loud_sam, image, pred_iou_thresh=max(ious[len(ious) // 2], 1e-6), box_nms_thresh=1.0)
    assert len(confident) < len(everything)
    assert all(record["predicted_iou"] > ious[len(ious) // 2] for record in confident)
    stable = generate(loud_sam, image, stability_score_thresh=0.9)
    assert all(record["stability_score"] >= 0.9 for record in stable)
    sparing = generate(loud_sam, image, max_coverage=0.3)
    assert max(record["area"] for record in everything) >= 0.3 * 60 * 48
    assert all(record["area"] < 0.3 * 60 * 48 for record in sparing)


@settings(max_examples=60, deadline=None)
@given(
    st.tuples(st.integers(1, 300), st.integers(1, 300)),
    st.integers(0, 2**32 - 1),
    st.sampled_from([-1.0, 0.0, 2.5]),
)
def test_upscaling_a_region_loses_no_pixel_above_the_cut(hw: tuple[int, int], seed: int, cut: float) -> None:
    config = replace(CONFIGS["tiny"], img_size=128)
    random = np.random.default_rng(seed)
    low_res = random.normal(-3, 1, (32, 32)).astype(np.float32)
    row, column = random.integers(0, 32, 2)
    low_res[row : row + 7, column : column + 5] += random.normal(4, 2)
    whole = upscale_logits(low_res, hw, config)
    region = RegionUpscaler(config, hw).above(low_res, cut)
    width, height = region.columns.shape
    inside = np.zeros(hw, bool)
    inside[region.y0 : region.y0 + height, region.x0 : region.x0 + width] = True
    assert inside.sum() == region.columns.size
    assert np.allclose(whole[inside].reshape(height, width), region.columns.T, atol=1e-4)
    assert (whole[~inside] <= cut + 1e-5).all()


def a_mask(pixels: NDArray[np.bool_], predicted_iou: float = 0.9) -> GeneratedMask:
    x, y, width, height = rle.bbox_xywh(rle.encode(pixels))
    box_xyxy = np.array([x, y, x + width - 1, y + height - 1])
    whole = [0, 0, pixels.shape[1], pixels.shape[0]]
    score = np.float32(predicted_iou)
    return GeneratedMask(mask_to_runs(pixels), box_xyxy, score, score, np.zeros(2), whole)


def a_square(side: int, x: int = 5, y: int = 5) -> NDArray[np.bool_]:
    pixels = np.zeros((40, 40), bool)
    pixels[y : y + side, x : x + side] = True
    return pixels


def test_a_speck_keeps_its_largest_part_unless_specks_are_dropped() -> None:
    masks = [a_mask(a_square(3) | a_square(4, 20, 20)), a_mask(a_square(12))]
    kept = clean_masks(masks, (40, 40), 20, 0.7, drop_specks=False)
    assert sorted(mask.area for mask in kept) == [16, 144]
    dropped = clean_masks(masks, (40, 40), 20, 0.7, drop_specks=True)
    assert [mask.area for mask in dropped] == [144]


def test_a_repaired_mask_yields_to_its_unchanged_twin() -> None:
    holed, clean = a_square(20), a_square(20)
    holed[10, 10] = False
    kept = clean_masks([a_mask(holed, 0.99), a_mask(clean, 0.89)], (40, 40), 5, 0.7, drop_specks=False)
    assert [float(mask.predicted_iou) for mask in kept] == [pytest.approx(0.89)]
    alone = clean_masks([a_mask(holed)], (40, 40), 5, 0.7, drop_specks=False)
    assert np.array_equal(runs_to_mask(alone[0].runs, (40, 40)), clean)


@pytest.mark.parametrize(
    "arguments, sentence",
    [
        ({"points_per_side": None}, "points_per_side or point_grids"),
        ({"point_grids": [np.zeros((1, 2))]}, "points_per_side or point_grids"),
        ({"points_per_side": None, "point_grids": [np.zeros((1, 2))], "crop_n_layers": 1}, "one per crop"),
        ({"points_per_side": None, "point_grids": [np.full((1, 2), 7.0)]}, "between 0 and 1"),
        ({"points_per_side": 0}, "raise points_per_side"),
        ({"crop_n_layers": 2, "crop_n_points_downscale_factor": 9}, "raise points_per_side"),
        ({"output_mode": "polygon"}, "binary_mask, uncompressed_rle, coco_rle"),
        ({"points_per_batch": 0}, "points_per_batch"),
        ({"crop_n_layers": -1}, "crop_n_layers"),
        ({"crop_overlap_ratio": 1.5}, "crop_overlap_ratio"),
        ({"box_nms_thresh": float("nan")}, "box_nms_thresh"),
        ({"stability_score_offset": -1.0}, "stability_score_offset"),
        ({"min_mask_region_area": -5}, "min_mask_region_area"),
        ({"max_coverage": 0.0}, "max_coverage"),
        ({"drop_specks": True}, "min_mask_region_area"),
    ],
)
def test_settings_that_cannot_be_meant_are_refused(
    small_sam: Sam, arguments: dict[str, Any], sentence: str
) -> None:
    with pytest.raises(BadInput, match=sentence):
        AutomaticMaskGenerator(small_sam, **arguments)


@pytest.mark.parametrize(
    "image", [np.zeros((8, 8, 3)), np.zeros((8, 8), np.uint8), np.zeros((0, 8, 3), np.uint8), "picture.jpg"]
)
def test_only_rgb_pixels_are_taken(small_sam: Sam, image: Any) -> None:
    with pytest.raises(BadInput, match="uint8"):
        AutomaticMaskGenerator(small_sam).generate(image)


def test_given_grids_are_the_points_that_are_asked(loud_sam: Sam) -> None:
    grid = np.array([[0.25, 0.5]])
    records = generate(loud_sam, picture((40, 60)), points_per_side=None, point_grids=[grid])
    assert {tuple(record["point_coords"][0]) for record in records} == {(15.0, 20.0)}
