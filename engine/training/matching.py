"""Which proposed box answers for which true one: COCO's rule, for figures and thresholds alike."""

import numpy as np
from numpy.typing import NDArray

from engine.geometry.boxes import box_iou

Floats = NDArray[np.floating]

MATCH_IOU = 0.5


def greedy_matches(
    boxes_xyxy: Floats, scores: Floats, truth_xyxy: Floats, iou_threshold: float
) -> NDArray[np.int64]:
    """For each of N boxes the index of its true box, -1 for none: best score first, each true box once, the
    free one of highest IoU (COCOeval's rule, ties to the later one)."""
    matched = np.full(len(boxes_xyxy), -1, np.int64)
    truth = np.asarray(truth_xyxy, np.float64).reshape(-1, 4)
    if len(truth) == 0:
        return matched
    free = box_iou(np.asarray(boxes_xyxy).reshape(-1, 4), truth)
    for index in np.argsort(-scores, kind="stable"):
        best = len(truth) - 1 - int(np.argmax(free[index, ::-1]))
        if free[index, best] >= min(iou_threshold, 1 - 1e-10):
            matched[index] = best
            free[:, best] = -1
    return matched
