"""The masks of the automatic generator: one in the making, duplicates removed, cleaned, and as a record."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from engine.geometry.boxes import xyxy_to_xywh
from engine.geometry.nms import nms
from engine.geometry.regions import clean_runs
from engine.geometry.rle import bbox_of_runs
from engine.geometry.runs import Runs, format_runs, runs_to_mask

OUTPUT_MODES = ("binary_mask", "uncompressed_rle", "coco_rle")


@dataclass(frozen=True)
class GeneratedMask:
    """In pixels of the whole image; `box_xyxy` names the first and last column and row with foreground."""

    runs: Runs
    box_xyxy: NDArray[np.int64]
    predicted_iou: np.float32
    stability_score: np.float32
    point: NDArray[np.float64]
    crop_box_xyxy: list[int]

    @property
    def area(self) -> int:
        """Number of foreground pixels."""
        return int(self.runs[1::2].sum())


def drop_duplicates(
    masks: Sequence[GeneratedMask], scores: Sequence[float | np.float32], iou_threshold: float
) -> list[GeneratedMask]:
    """Greedy NMS on the masks' boxes, best score first."""
    boxes_xyxy = np.array([mask.box_xyxy for mask in masks]).reshape(-1, 4)
    return [masks[index] for index in nms(boxes_xyxy, np.asarray(scores, np.float32), iou_threshold)]


def prefer_small_crops(masks: Sequence[GeneratedMask], iou_threshold: float) -> list[GeneratedMask]:
    """Duplicates between crops removed: the mask seen at the higher zoom stays (paper, appendix B)."""
    crops = np.array([mask.crop_box_xyxy for mask in masks], np.float32).reshape(-1, 4)
    return drop_duplicates(masks, list(1 / (crops[:, 2:] - crops[:, :2]).prod(-1)), iou_threshold)


def clean_masks(
    masks: Sequence[GeneratedMask],
    hw: tuple[int, int],
    min_area: int,
    iou_threshold: float,
    *,
    drop_specks: bool,
) -> list[GeneratedMask]:
    """Holes and islands under `min_area` px removed, then the duplicates that this made.

    Unchanged masks go first and so survive their repaired twins. With `drop_specks` a mask without one part
    of `min_area` px goes as a whole; without, its largest part stays.
    """
    cleaned, unchanged = [], []
    for mask in masks:
        runs, changed = clean_runs(mask.runs, hw, min_area, keep_largest=not drop_specks)
        if drop_specks and runs.size == 1:  # all background
            continue
        cleaned.append(replace(mask, runs=runs, box_xyxy=_box_xyxy(runs, hw[0])) if changed else mask)
        unchanged.append(float(not changed))
    return drop_duplicates(cleaned, unchanged, iou_threshold)


def _box_xyxy(runs: Runs, height: int) -> NDArray[np.int64]:
    x, y, n_columns, n_rows = bbox_of_runs(runs, height)
    return np.array([x, y, x + n_columns - 1, y + n_rows - 1], np.int64)


def to_record(mask: GeneratedMask, hw: tuple[int, int], output_mode: str) -> dict[str, Any]:
    """One mask in the official keys. `bbox` is XYWH, one pixel short of the mask, as in SA-1B."""
    return {
        "segmentation": _segmentation(mask.runs, hw, output_mode),
        "area": mask.area,
        "bbox": xyxy_to_xywh(mask.box_xyxy).tolist(),
        "predicted_iou": float(mask.predicted_iou),
        "point_coords": [mask.point.tolist()],
        "stability_score": float(mask.stability_score),
        "crop_box": xyxy_to_xywh(np.array(mask.crop_box_xyxy)).tolist(),
    }


def _segmentation(runs: Runs, hw: tuple[int, int], output_mode: str) -> Any:
    if output_mode == "binary_mask":
        return runs_to_mask(runs, hw)
    counts = format_runs(runs) if output_mode == "coco_rle" else runs.tolist()
    return {"size": [hw[0], hw[1]], "counts": counts}
