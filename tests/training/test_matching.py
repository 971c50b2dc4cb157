"""Which proposed box answers for which true one."""

import numpy as np

from engine.training.matching import greedy_matches


def test_each_true_box_is_matched_once_and_best_score_first() -> None:
    truth = np.array([[0, 0, 10, 10], [100, 0, 110, 10]], float)
    boxes = np.array([[0, 0, 10, 9], [0, 0, 10, 10], [100, 0, 110, 4]], float)
    assert greedy_matches(boxes, np.array([0.9, 0.5, 0.4]), truth, 0.5).tolist() == [0, -1, -1]
    assert greedy_matches(boxes, np.array([0.5, 0.9, 0.4]), truth, 0.4).tolist() == [-1, 0, 1]
    assert greedy_matches(boxes, np.ones(3), np.zeros((0, 4)), 0.5).tolist() == [-1, -1, -1]
    assert greedy_matches(np.zeros((0, 4)), np.zeros(0), truth, 0.5).tolist() == []
