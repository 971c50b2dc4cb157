"""Boxes as arrays (..., 4): `xyxy` are corners, `xywh` corner and size, both in pixels, y down."""

from typing import Any

import numpy as np
from numpy.typing import NDArray


def xywh_to_xyxy(boxes_xywh: NDArray[Any]) -> NDArray[Any]:
    """(..., 4) corner and size to two corners."""
    corners: NDArray[Any] = np.concatenate(
        [boxes_xywh[..., :2], boxes_xywh[..., :2] + boxes_xywh[..., 2:]], axis=-1
    )
    return corners


def xyxy_to_xywh(boxes_xyxy: NDArray[Any]) -> NDArray[Any]:
    """(..., 4) two corners to corner and size."""
    sizes: NDArray[Any] = np.concatenate(
        [boxes_xyxy[..., :2], boxes_xyxy[..., 2:] - boxes_xyxy[..., :2]], axis=-1
    )
    return sizes


def clip_xyxy(boxes_xyxy: NDArray[Any], hw: tuple[int, int]) -> NDArray[Any]:
    """(..., 4) corners moved into an image of that height and width."""
    height, width = hw
    inside: NDArray[Any] = np.clip(boxes_xyxy, 0, np.array([width, height, width, height]))
    return inside


def box_iou(first_xyxy: NDArray[Any], second_xyxy: NDArray[Any]) -> NDArray[np.float64]:
    """IoU of every box of (N, 4) with every box of (M, 4): (N, M). Boxes without area have 0."""
    first, second = first_xyxy[:, None].astype(float), second_xyxy[None].astype(float)
    top_left = np.maximum(first[..., :2], second[..., :2])
    bottom_right = np.minimum(first[..., 2:], second[..., 2:])
    intersection = np.clip(bottom_right - top_left, 0, None).prod(-1)
    union = _areas(first) + _areas(second) - intersection
    ious: NDArray[np.float64] = np.divide(intersection, union, out=np.zeros_like(union), where=union > 0)
    return ious


def _areas(boxes_xyxy: NDArray[Any]) -> NDArray[Any]:
    areas: NDArray[Any] = np.clip(boxes_xyxy[..., 2:] - boxes_xyxy[..., :2], 0, None).prod(-1)
    return areas
