"""Masks that nobody asked for, of one embedded image: by a grid of points (stage 3), by boxes (stage 2).

Every one says which single prompt and which of its three candidates gives it again (prompts.fold).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from engine.geometry.boxes import box_iou
from engine.geometry.regions import clean_runs
from engine.geometry.rle import Rle, bbox_of_runs, iou
from engine.geometry.runs import Runs, format_runs
from engine.modeling.automatic import AutomaticMaskGenerator
from engine.modeling.prompts import Floats, to_model_frame
from engine.modeling.sam import Sam, decode
from engine.modeling.upscale_region import RegionUpscaler

# Four prompts' tokens and keys stay in a CPU's cache; a GPU wants more at once.
_PROMPTS_ON_CPU, _PROMPTS_ON_GPU = 4, 64
# A hundredth of a pixel moves no mask, and keeps the stored prompts short.
_BOX_DECIMALS = 2


@dataclass(frozen=True)
class ProposedMask:
    """One mask of the image's size; `prompt` and `chosen` (0..2) give it again. `score` is its box's."""

    segmentation: Rle
    area: int
    bbox_xywh: tuple[int, int, int, int]
    predicted_iou: float
    stability_score: float
    prompt: dict[str, Any]
    chosen: int
    score: float | None = None


def masks_of_grid(
    sam: Sam,
    image_embedding: Floats,
    original_hw: tuple[int, int],
    settings: Mapping[str, Any],
    between: Callable[[], None] = lambda: None,
) -> list[ProposedMask]:
    """The official generator's masks of (C, g, g), without crops; `settings` are its arguments by name.

    `between` is called every few points and may raise, which ends the work.
    """
    generator = AutomaticMaskGenerator(sam, output_mode="coco_rle", between=between, **settings)
    records = generator.generate_from_embedding(image_embedding, original_hw)
    records = [record for record in records if record["area"] > 0]
    points = [record["point_coords"][0] for record in records]
    ious = [record["predicted_iou"] for record in records]
    chosen = _candidates_of(sam, image_embedding, original_hw, points, ious, between)
    return [_of_record(record, index) for record, index in zip(records, chosen, strict=True)]


def masks_of_boxes(
    sam: Sam,
    image_embedding: Floats,
    original_hw: tuple[int, int],
    boxes_xyxy: Floats,
    scores: Floats,
    settings: Mapping[str, Any],
    between: Callable[[], None] = lambda: None,
) -> list[ProposedMask]:
    """The best of three masks of each box (n, 4) in original pixels, the highest score first.

    `settings`: masks need a predicted IoU above `pred_iou_thresh`; parts under `min_mask_region_area` px go;
    of two masks whose IoU is above `box_nms_thresh` the one of the lower score goes; empty ones go.
    """
    boxes = np.round(np.asarray(boxes_xyxy, np.float64), _BOX_DECIMALS)
    real = np.flatnonzero((boxes[:, 2:] > boxes[:, :2]).all(axis=1))
    order = real[np.argsort(-scores[real], kind="stable")]
    frame = to_model_frame(boxes[order].reshape(-1, 2, 2), original_hw, sam.config.input_hw(original_hw))
    upscaler, found = RegionUpscaler(sam.config, original_hw), list[ProposedMask]()
    decoded = _decoded(sam, image_embedding, frame.reshape(-1, 4), between, is_box=True)
    for index, (low_res, ious) in zip(order, decoded, strict=True):
        best = int(np.argmax(ious))
        if ious[best] <= settings["pred_iou_thresh"]:
            continue
        runs, stability = upscaler.mask_of(low_res[best], sam.mask_threshold)
        if settings["min_mask_region_area"] > 0:
            runs, _ = clean_runs(runs, original_hw, settings["min_mask_region_area"])
        if runs.size > 1:
            prompt = {"kind": "box"} | dict(zip(("x0", "y0", "x1", "y1"), boxes[index].tolist(), strict=True))
            quality = float(ious[best]), stability, prompt, best, float(scores[index])
            found.append(_of_runs(runs, original_hw, *quality))
    return _without_twins(found, settings["box_nms_thresh"])


def _of_record(record: Mapping[str, Any], chosen: int) -> ProposedMask:
    rle = Rle(size=record["segmentation"]["size"], counts=record["segmentation"]["counts"])
    x, y = record["point_coords"][0]
    # The record's box is one pixel short, as in SA-1B; ours has width 1 for one pixel.
    left, top, width, height = record["bbox"]
    return ProposedMask(
        rle,
        record["area"],
        (left, top, width + 1, height + 1),
        record["predicted_iou"],
        record["stability_score"],
        {"kind": "point", "x": x, "y": y, "label": 1},
        chosen,
    )


def _of_runs(
    runs: Runs,
    hw: tuple[int, int],
    predicted_iou: float,
    stability: float,
    prompt: dict[str, Any],
    chosen: int,
    score: float,
) -> ProposedMask:
    rle = Rle(size=[hw[0], hw[1]], counts=format_runs(runs))
    box, area = bbox_of_runs(runs, hw[0]), int(runs[1::2].sum())
    return ProposedMask(rle, area, box, predicted_iou, stability, prompt, chosen, score)


def _candidates_of(
    sam: Sam,
    image_embedding: Floats,
    hw: tuple[int, int],
    points: Sequence[Sequence[float]],
    predicted_ious: Sequence[float],
    between: Callable[[], None],
) -> list[int]:
    """Which of a point's three candidates each mask was: the records do not say, so each point that gave a
    mask is asked once more, which costs a tenth of the grid."""
    coords = np.asarray(points, np.float64).reshape(-1, 2)
    frame = to_model_frame(coords, hw, sam.config.input_hw(hw))
    decoded = _decoded(sam, image_embedding, frame, between, is_box=False)
    # Nearest and not equal: how many prompts are decoded together moves the last digit.
    return [
        int(np.abs(ious - wanted).argmin()) for (_, ious), wanted in zip(decoded, predicted_ious, strict=True)
    ]


def _decoded(
    sam: Sam, image_embedding: Floats, prompts: Floats, between: Callable[[], None], *, is_box: bool
) -> Iterator[tuple[Floats, Floats]]:
    """For each point (n, 2) or box (n, 4) of the model frame three logits (3, 4g, 4g) and their IoU (3,)."""
    features = torch.as_tensor(image_embedding, device=sam.device)[None]
    at_a_time = _PROMPTS_ON_CPU if sam.device.type == "cpu" else _PROMPTS_ON_GPU
    for start in range(0, len(prompts), at_a_time):
        between()
        few = torch.as_tensor(prompts[start : start + at_a_time], device=sam.device)
        low_res, ious = _decode_few(sam, features, few, is_box=is_box)
        yield from zip(low_res.float().cpu().numpy(), ious.float().cpu().numpy(), strict=True)


@torch.inference_mode()
def _decode_few(sam: Sam, features: Tensor, few: Tensor, *, is_box: bool) -> tuple[Tensor, Tensor]:
    if is_box:
        return decode(sam, features, None, few, None, multimask_output=True)
    labels = torch.ones(len(few), 1, device=sam.device)
    return decode(sam, features, (few[:, None], labels), None, None, multimask_output=True)


def _without_twins(masks: Sequence[ProposedMask], iou_threshold: float) -> list[ProposedMask]:
    """Greedy NMS on the masks themselves, the first the best: things that touch share boxes, not pixels."""
    kept: list[ProposedMask] = []
    for mask in masks:
        near = [other for other in kept if boxes_meet(mask.bbox_xywh, other.bbox_xywh)]
        if not any(iou(mask.segmentation, other.segmentation) > iou_threshold for other in near):
            kept.append(mask)
    return kept


def boxes_meet(first_xywh: Sequence[int], second_xywh: Sequence[int]) -> bool:
    """Whether two boxes share a pixel, without which no masks inside of them do."""
    corners = [np.array([[x, y, x + w, y + h]]) for x, y, w, h in (first_xywh, second_xywh)]
    return bool(box_iou(*corners)[0, 0] > 0)
