"""Greedy non-maximum suppression of boxes, by torchvision's definition."""

from typing import Any

import numpy as np
from numpy.typing import NDArray


def nms(boxes_xyxy: NDArray[Any], scores: NDArray[Any], iou_threshold: float) -> NDArray[np.intp]:
    """Indices of the kept ones of (N, 4) boxes, best score first; equal scores keep their order.

    A box goes when its IoU with a better kept one is above the threshold. A box without area overlaps
    nothing. IoU is taken in float32, as torchvision does, so that ties at the threshold fall alike.
    """
    boxes = boxes_xyxy.astype(np.float32).reshape(-1, 4)
    rest = np.argsort(-scores, kind="stable")
    kept = []
    while rest.size:
        best, rest = rest[0], rest[1:]
        kept.append(best)
        # float64 on the right only: torchvision compares its float32 IoU with a double.
        rest = rest[~(_iou_with(boxes[best], boxes[rest]) > np.float64(iou_threshold))]
    return np.array(kept, np.intp)


def _iou_with(box: NDArray[np.float32], others: NDArray[np.float32]) -> NDArray[np.float32]:
    top_left = np.maximum(box[:2], others[:, :2])
    bottom_right = np.minimum(box[2:], others[:, 2:])
    intersections = np.maximum(bottom_right - top_left, 0).prod(-1)
    areas = (others[:, 2:] - others[:, :2]).prod(-1)
    unions = (box[2:] - box[:2]).prod() + areas - intersections
    ious: NDArray[np.float32] = np.divide(intersections, unions, out=np.zeros_like(unions), where=unions > 0)
    return ious
