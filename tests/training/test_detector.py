"""Training the box detector: what it is told, that it learns, stops, and is the same twice."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from engine.errors import BadInput
from engine.modeling.detector import build_detector, make_locations
from engine.modeling.detector_card import DetectorConfig
from engine.training.detector import DetectorProgress, DetectorRules, train_detector
from engine.training.detector_figures import evaluate_detector
from engine.training.detector_targets import (
    INCOMPLETE_WEIGHT,
    REJECTED_WEIGHT,
    DetectorSample,
    detector_loss,
    make_targets,
    paired_iou,
)
from tests.training.conftest import SMALL

NO_BOXES = np.zeros((0, 4))
QUICK = DetectorRules(n_images=2, width=16, fine_width=8, warmup_steps=3)
MODEL = replace(SMALL, img_size=128, detail_channels=1)
LOCATIONS = make_locations(DetectorConfig.of_model(MODEL))


def sample_of(boxes: object, **changes: object) -> DetectorSample:
    embedding = np.zeros((MODEL.embedding_channels, 8, 8), np.float32)
    plain = DetectorSample(embedding, (128, 128), np.array(boxes, float).reshape(-1, 4), NO_BOXES, True)
    return replace(plain, **changes)  # type: ignore[arg-type]


def drawn(seed: int, n_boxes: int = 3) -> DetectorSample:
    """Squares that show in one channel at stride 16 and, folded, in the detail at stride 4."""
    rng = np.random.default_rng(seed)
    corners = rng.permutation(9)[:n_boxes, None] // [1, 3] % 3 * 40 + rng.integers(0, 16, (n_boxes, 2))
    boxes = np.concatenate([corners, corners + rng.integers(12, 24, (n_boxes, 1))], axis=1)
    mask = np.zeros((128, 128), np.float32)
    for left, top, right, bottom in boxes:
        mask[top:bottom, left:right] = 1
    shrunk = torch.from_numpy(mask.reshape(32, 4, 32, 4).mean((1, 3)))[None]
    embedding = rng.normal(0, 0.1, (MODEL.embedding_channels, 8, 8)).astype(np.float32)
    embedding[MODEL.prompt_dim :] += torch.nn.functional.pixel_unshuffle(shrunk, 4).numpy()
    return sample_of(boxes, embedding=embedding)


def told_at(sample: DetectorSample, x: float, y: float, stride: int = 4) -> tuple[int, float]:
    """(box index, weight) at the location nearest to a frame pixel."""
    targets = make_targets(sample, LOCATIONS, MODEL)
    far = (LOCATIONS.centres_px - torch.tensor([x, y])).abs().sum(1)
    place = int(far.masked_fill(LOCATIONS.strides_px != stride, 1e9).argmin())
    return int(targets.box_index[place]), float(targets.weights[place])


def test_the_middle_of_a_box_answers_for_it_and_its_corner_does_not() -> None:
    sample = sample_of([[40, 40, 56, 56]])
    assert told_at(sample, 48, 48) == (0, 1.0)
    assert told_at(sample, 38, 38) == (-1, 1.0)


def test_large_boxes_belong_to_the_coarse_level_and_small_ones_to_the_fine() -> None:
    sample = sample_of([[0, 0, 120, 120], [58, 58, 68, 68]])
    assert told_at(sample, 62, 62, stride=4)[0] == 1
    assert told_at(sample, 62, 62, stride=16)[0] == 0


def test_where_boxes_overlap_the_smaller_answers() -> None:
    for boxes in ([[40, 40, 54, 54], [42, 42, 52, 52]], [[42, 42, 52, 52], [40, 40, 54, 54]]):
        smaller = int(np.argmin([box[2] - box[0] for box in boxes]))
        assert told_at(sample_of(boxes), 46, 46)[0] == smaller


@pytest.mark.parametrize("box", [[10.2, 10.2, 11.0, 11.0], [0, 60, 128, 61], [127, 127, 128, 128]])
def test_the_smallest_box_has_a_location(box: list[float]) -> None:
    assert (make_targets(sample_of([box]), LOCATIONS, MODEL).box_index == 0).any()


def test_unlabelled_places_count_less_while_the_truth_is_incomplete() -> None:
    sample = sample_of([[40, 40, 56, 56]], complete=False)
    assert told_at(sample, 100, 100) == (-1, INCOMPLETE_WEIGHT)
    assert told_at(sample, 48, 48) == (0, 1.0)


def test_a_rejected_proposal_counts_several_times_but_never_against_a_drawn_box() -> None:
    rejected = np.array([[40, 40, 56, 56], [90, 90, 104, 104]], float)
    sample = sample_of([[40, 40, 56, 56]], negatives_xyxy=rejected, complete=False)
    assert told_at(sample, 97, 97) == (-1, REJECTED_WEIGHT)
    assert told_at(sample, 48, 48) == (0, 1.0)


def test_the_padding_teaches_nothing() -> None:
    sample = sample_of([[10, 10, 20, 20]], original_hw=(64, 128))
    assert told_at(sample, 62, 100) == (-1, 0.0)
    assert told_at(sample, 62, 50) == (-1, 1.0)


def test_boxes_are_scaled_to_the_frame() -> None:
    sample = sample_of([[20, 10, 40, 30]], original_hw=(256, 256))
    assert make_targets(sample, LOCATIONS, MODEL).boxes_px.tolist() == [[10, 5, 20, 15]]


def test_a_box_without_area_is_refused() -> None:
    with pytest.raises(BadInput, match="finite corners"):
        make_targets(sample_of([[10, 10, 10, 20]]), LOCATIONS, MODEL)


def test_iou_and_giou_are_those_of_the_definition() -> None:
    first = torch.tensor([[0.0, 0, 2, 2], [0, 0, 2, 2], [0, 0, 1, 1]])
    second = torch.tensor([[0.0, 0, 2, 2], [1, 0, 3, 2], [2, 0, 3, 1]])
    iou, giou = paired_iou(first, second)
    assert iou.tolist() == pytest.approx([1, 1 / 3, 0])
    assert giou.tolist() == pytest.approx([1, 1 / 3, -1 / 3])


def test_the_loss_is_lowest_for_the_truth_and_sees_each_images_own_boxes() -> None:
    targets = [
        make_targets(sample_of(boxes), LOCATIONS, MODEL)
        for boxes in ([], [[10, 10, 30, 30]], [[60, 60, 80, 84], [5, 5, 9, 9]])
    ]
    index = torch.stack([target.box_index for target in targets]).long()
    boxes = torch.zeros(*index.shape, 4)
    for row, target in enumerate(targets):
        boxes[row, index[row] >= 0] = target.boxes_px[index[row][index[row] >= 0]]
    right = (index >= 0).float() * 40 - 20
    assert float(detector_loss(right, boxes, targets)) == pytest.approx(0, abs=1e-4)
    assert float(detector_loss(-right, boxes, targets)) > 1
    assert float(detector_loss(right, boxes.flip(0), targets)) > 1


def test_training_finds_what_an_untrained_head_does_not() -> None:
    trained = train_detector([drawn(i) for i in range(16)], MODEL, steps=60, seed=1, rules=QUICK)
    assert trained is not None
    figures = evaluate_detector(
        trained.detector, [drawn(i) for i in range(100, 106)], MODEL, 0.3, max_boxes=10
    )
    assert figures.detector.average_recall > 0.3
    assert figures.detector.average_recall > 3 * figures.untrained.average_recall
    assert figures.detector.average_recall > 3 * figures.random_boxes.average_recall
    assert figures.detector.precision is not None and figures.detector.precision > 0.4
    assert figures.detector.recall > 0.5


def test_the_same_seed_gives_the_same_weights_and_another_seed_others() -> None:
    states = []
    for seed in (5, 5, 6):
        torch.manual_seed(len(states))  # the global generator must not matter
        trained = train_detector([drawn(i) for i in range(4)], MODEL, steps=4, seed=seed, rules=QUICK)
        assert trained is not None
        states.append(trained.detector.state_dict())
    assert all(torch.equal(states[0][name], states[1][name]) for name in states[0])
    assert not all(torch.equal(states[0][name], states[2][name]) for name in states[0])


def test_a_time_box_plans_its_steps_and_can_be_repeated_with_them() -> None:
    seen: list[DetectorProgress] = []
    samples = [drawn(i) for i in range(4)]
    trained = train_detector(samples, MODEL, max_seconds=1.5, rules=QUICK, on_progress=seen.append)
    assert trained is not None
    assert [progress.step for progress in seen] == list(range(1, trained.steps + 1))
    assert seen[-1].steps == trained.steps < 20_000


def test_a_stopped_run_leaves_no_detector() -> None:
    asked: list[int] = []

    def stop_at_third() -> bool:
        asked.append(1)
        return len(asked) == 3

    assert train_detector([drawn(0)], MODEL, steps=50, rules=QUICK, should_stop=stop_at_third) is None
    assert len(asked) == 3


def test_images_without_boxes_alone_are_refused_but_do_no_harm_among_others() -> None:
    with pytest.raises(BadInput, match="nothing to detect"):
        train_detector([sample_of([])], MODEL, steps=1, rules=QUICK)
    assert train_detector([sample_of([]), drawn(0)], MODEL, steps=2, rules=QUICK) is not None


def test_embeddings_of_another_model_are_refused() -> None:
    with pytest.raises(BadInput, match="train one for this model"):
        train_detector([drawn(0)], replace(MODEL, detail_channels=0), steps=1, rules=QUICK)


def test_a_constant_channel_is_not_blown_up() -> None:
    trained = train_detector([drawn(0), drawn(1)], MODEL, steps=1, rules=QUICK)
    assert trained is not None
    assert float(trained.detector.channel_scale.min()) >= 0.009
    fresh = build_detector(trained.detector.config, 0)
    assert float(fresh.channel_scale.min()) == 1
