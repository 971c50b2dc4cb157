"""The detector's figures against COCO's own code."""

import contextlib
import io

import numpy as np
import pytest
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval

from engine.errors import BadInput
from engine.modeling.detector import build_detector
from engine.modeling.detector_card import DetectorConfig
from engine.training.detector_figures import average_recall, evaluate_detector
from engine.training.detector_targets import DetectorSample
from engine.training.detector_threshold import scored_boxes
from tests.training.conftest import SMALL

Answer = tuple[np.ndarray, np.ndarray, np.ndarray]


def answers_of(seed: int, n_images: int = 2) -> list[Answer]:
    """Crowds of true boxes, shaken copies of some of them, and boxes at random."""
    rng = np.random.default_rng(seed)
    answers = []
    for _ in range(n_images):
        corners = rng.uniform(0, 200, (30, 2))
        truth = np.concatenate([corners, corners + rng.uniform(5, 60, (30, 2))], axis=1)
        shaken = truth[rng.integers(30, size=120)] + rng.normal(0, 4, (120, 4))
        shaken[:, 2:] = np.maximum(shaken[:, 2:], shaken[:, :2] + 1)
        answers.append((shaken, rng.permutation(120) / 120, truth))
    return answers


def coco_average_recall(answers: list[Answer], max_boxes: int) -> float:
    truths, found = [], []
    for image_id, (boxes, scores, truth) in enumerate(answers, 1):
        for x0, y0, x1, y1 in truth:
            box = [x0, y0, x1 - x0, y1 - y0]
            truths.append({"bbox": box, "area": box[2] * box[3], "image_id": image_id, "iscrowd": 0})
        for (x0, y0, x1, y1), score in zip(boxes, scores, strict=True):
            found.append({"bbox": [x0, y0, x1 - x0, y1 - y0], "score": score, "image_id": image_id})
    coco = COCO()
    coco.dataset = {
        "images": [{"id": i + 1, "height": 300, "width": 300} for i in range(len(answers))],
        "categories": [{"id": 1, "name": "object"}],
        "annotations": [{**row, "id": i + 1, "category_id": 1} for i, row in enumerate(truths)],
        "info": {},
    }
    with contextlib.redirect_stdout(io.StringIO()):
        coco.createIndex()
        evaluation = COCOeval(coco, coco.loadRes([{**row, "category_id": 1} for row in found]), "bbox")
        evaluation.params.maxDets = [max_boxes]
        evaluation.evaluate()
        evaluation.accumulate()
    # recall: thresholds x categories x areas ("all" first) x maxDets
    return float(evaluation.eval["recall"][:, 0, 0, 0].mean())


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("max_boxes", [10, 120])
def test_average_recall_is_cocos(seed: int, max_boxes: int) -> None:
    answers = answers_of(seed)
    best = [np.argsort(-scores, kind="stable")[:max_boxes] for _, scores, _ in answers]
    ours = average_recall(
        [
            (boxes[rows], scores[rows], truth)
            for (boxes, scores, truth), rows in zip(answers, best, strict=True)
        ]
    )
    assert ours == pytest.approx(coco_average_recall(answers, max_boxes), abs=1e-9)


def samples_of(n_images: int) -> list[DetectorSample]:
    rng = np.random.default_rng(1)
    shape = (SMALL.embedding_channels, SMALL.embedding_grid, SMALL.embedding_grid)
    boxes = np.array([[5, 5, 25, 25], [30, 30, 50, 44]], float)
    return [
        DetectorSample(rng.normal(size=shape), (64, 64), boxes, np.zeros((0, 4)), True)
        for _ in range(n_images)
    ]


def test_the_three_sources_are_compared_on_as_many_boxes_and_twice_alike() -> None:
    detector = build_detector(DetectorConfig.of_model(SMALL, width=8, fine_width=8), seed=3).eval()
    samples = samples_of(3)
    scores = scored_boxes(detector, samples, SMALL, 1.0, max_boxes=20).scores
    threshold = float(np.median(scores))
    first, second = (
        evaluate_detector(detector, samples, SMALL, threshold, max_boxes=20, seed=7) for _ in range(2)
    )
    assert first == second
    assert first.n_images == 3 and first.n_boxes == 6
    assert first.detector.n_proposed == int((scores >= threshold).sum()) > 0
    assert first.random_boxes.n_proposed == first.detector.n_proposed


def test_no_box_above_the_threshold_has_no_precision() -> None:
    detector = build_detector(DetectorConfig.of_model(SMALL, width=8, fine_width=8), seed=3).eval()
    figures = evaluate_detector(detector, samples_of(2), SMALL, 1.0)
    assert figures.detector.precision is None and figures.detector.recall == 0


def test_figures_need_a_true_box() -> None:
    detector = build_detector(DetectorConfig.of_model(SMALL, width=8, fine_width=8), seed=3).eval()
    with pytest.raises(BadInput, match="held-out images"):
        evaluate_detector(detector, [], SMALL, 0.5)
