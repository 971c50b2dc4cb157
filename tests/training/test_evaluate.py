import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from engine.errors import BadInput
from engine.geometry.points import interior_point
from engine.modeling.predictor import encode_image
from engine.modeling.prompts import fold
from engine.modeling.registry import build_sam
from engine.training.baselines import (
    SegmenterBackend,
    best_flood_fill,
    best_local_otsu,
    flood_fill,
    local_otsu,
    mean_one_click_iou,
)
from engine.training.dataset import Sample
from engine.training.evaluate import TorchBackend, evaluate_clicks, next_click


class Oracle:
    """Answers with the mask that was clicked, from the `n_late`-th click on; before, with nothing."""

    def __init__(self, n_late: int = 1) -> None:
        self.n_late = n_late
        self.seen: list[NDArray[np.float32]] = []
        self.truths: list[NDArray[np.bool_]] = []

    def encode(self, image: NDArray[np.uint8]) -> None:
        return None

    def decode(self, embedding, hw, coords, labels, mask_input, multimask):
        self.seen.append(coords)
        n_candidates = 3 if multimask else 1
        logits = np.full((len(coords), n_candidates, *hw), -1.0, dtype=np.float32)
        for row, clicks in enumerate(coords):
            x, y = clicks[0].astype(int)
            mask = next(truth for truth in self.truths if truth[y, x])
            if len(clicks) >= self.n_late:
                logits[row, -1][mask] = 1.0
        return logits, np.tile(np.arange(n_candidates, dtype=np.float32), (len(coords), 1))

    def upscale(self, low_res_logits, hw):
        return low_res_logits


def test_a_perfect_model_needs_one_click(disks) -> None:
    oracle = Oracle()
    oracle.truths = [disks[0].mask(i) for i in range(3)]
    scores = evaluate_clicks(oracle, [disks[0]], n_clicks=(1,), cap=20)
    assert scores.clicks.tolist() == [1, 1, 1]
    assert scores.mean_iou(1) == 1.0 and scores.mean_clicks() == 1.0
    assert np.isnan(scores.ious[:, 1:]).all() and len(oracle.seen) == 1


def test_clicks_count_until_the_target_and_the_cap_where_it_is_never_reached(disks) -> None:
    late, never = Oracle(n_late=3), Oracle(n_late=99)
    late.truths = never.truths = [disks[0].mask(i) for i in range(3)]
    assert evaluate_clicks(late, [disks[0]], cap=20).clicks.tolist() == [3, 3, 3]
    assert evaluate_clicks(never, [disks[0]], cap=7).clicks.tolist() == [7, 7, 7]
    assert len(never.seen) == 7


def test_every_mask_gets_the_clicks_its_mean_needs(disks) -> None:
    oracle = Oracle()
    oracle.truths = [disks[1].mask(i) for i in range(3)]
    scores = evaluate_clicks(oracle, [disks[1]], n_clicks=(1, 3), cap=5)
    assert scores.clicks.tolist() == [1, 1, 1]
    assert scores.mean_iou(3) == 1.0


def test_small_masks_are_left_out_and_rows_name_their_mask(disks) -> None:
    dot = np.zeros((64, 64), dtype=bool)
    dot[2, 2] = True
    sample = Sample(disks[0].image, [dot, disks[0].mask(0)])
    oracle = Oracle()
    oracle.truths = [disks[0].mask(0)]
    scores = evaluate_clicks(oracle, [sample, sample], n_clicks=(1,), min_area_px=64)
    assert scores.sample_index.tolist() == [0, 1] and scores.mask_index.tolist() == [1, 1]
    assert scores.area_px.tolist() == [int(disks[0].mask(0).sum())] * 2
    assert len(evaluate_clicks(oracle, [], n_clicks=(1,)).clicks) == 0


def test_the_first_click_is_farthest_from_the_border() -> None:
    mask = np.zeros((40, 60), dtype=bool)
    mask[10:21, 20:51] = True
    x, y = interior_point(mask)
    assert y == 15 and 25 <= x <= 45
    whole = np.ones((11, 31), dtype=bool)  # the picture's edge is a border too
    assert interior_point(whole)[1] == 5


def test_the_next_click_is_the_centre_of_the_largest_error_with_its_sign() -> None:
    truth = np.zeros((40, 60), dtype=bool)
    truth[10:20, 10:20] = True
    predicted = truth.copy()
    predicted[12, 12] = False
    predicted[25:34, 30:39] = True
    assert next_click(predicted, truth) == (34, 29, 0)
    assert next_click(np.zeros_like(truth), truth)[2] == 1
    assert truth[next_click(truth, truth)[1], next_click(truth, truth)[0]]


class OneImage:
    """The torch model behind modeling's `fold`, for comparison."""

    def __init__(self, backend: TorchBackend, image: NDArray[np.uint8]) -> None:
        self.backend, self.hw = backend, (image.shape[0], image.shape[1])
        self.embedding = backend.encode(image)

    def decode(self, point_coords, point_labels, box, mask_input, multimask_output):
        fed = None if mask_input is None else mask_input[None, None]
        coords, labels = point_coords[None], point_labels[None].astype(np.int64)
        logits, scores = self.backend.decode(self.embedding, self.hw, coords, labels, fed, multimask_output)
        return logits[0], scores[0]


def test_a_simulated_session_equals_the_fold_of_its_prompts(disks, small) -> None:
    backend = TorchBackend(build_sam(small, seed=3))
    sample = disks[2]
    scores = evaluate_clicks(backend, [sample], n_clicks=(1, 4), cap=4)
    prompts, chosen, ious = [], [], []
    one, truth = OneImage(backend, sample.image), sample.mask(1)
    x, y = interior_point(truth)
    label = 1
    for _ in range(4):
        prompts.append({"kind": "point", "x": float(x), "y": float(y), "label": label})
        candidates = fold(one, prompts, chosen)
        chosen.append(candidates.best)
        logits = candidates.low_res_logits[candidates.best][None]
        mask = backend.upscale(logits, one.hw)[0] > 0
        ious.append((mask & truth).sum() / max(1, (mask | truth).sum()))
        x, y, label = next_click(mask, truth)
    assert np.allclose(scores.ious[1], ious, atol=1e-3)


def test_the_backend_encodes_as_the_predictor_does(disks, small) -> None:
    sam = build_sam(small, seed=3)
    with torch.inference_mode():
        assert np.array_equal(
            TorchBackend(sam).encode(disks[0].image)[0].numpy(), encode_image(sam, disks[0].image)
        )


def test_flood_fill_stops_where_the_colour_changes() -> None:
    image = np.zeros((20, 20, 3), dtype=np.uint8)
    image[5:10, 5:10], image[5:10, 12:15] = 100, 100
    filled = flood_fill(image, (7, 7), 10.0)
    assert filled.sum() == 25 and filled[5:10, 5:10].all()


def test_local_otsu_takes_the_clicked_side_inside_its_window() -> None:
    image = np.full((60, 60, 3), 30, dtype=np.uint8)
    image[20:30, 20:30] = 200
    assert local_otsu(image, (25, 25), 16).sum() == 100
    dark = local_otsu(image, (12, 25), 8)
    assert dark[25, 12] and not dark[25, 25] and not dark[25, 50]


def test_baselines_are_tuned_on_what_they_are_given(disks) -> None:
    samples = [disks[0], disks[1]]
    tolerance, fill = best_flood_fill(samples)
    assert tolerance < 80 and mean_one_click_iou(fill, samples) == pytest.approx(1.0)
    assert mean_one_click_iou(best_local_otsu(samples)[1], samples) > 0.9


class Stubborn:
    """Offers nothing, the clicked mask and nothing, surest of the first; then repeats what was fed back."""

    def __init__(self, truths: list[NDArray[np.bool_]]) -> None:
        self.truths, self.n_decoded = truths, 0

    def encode(self, image: NDArray[np.uint8]) -> None:
        return None

    def decode(self, embedding, hw, coords, labels, mask_input, multimask):
        self.n_decoded += len(coords)
        if not multimask:
            return mask_input, np.ones((len(coords), 1), np.float32)
        logits = np.full((len(coords), 3, *hw), -1.0, dtype=np.float32)
        for row, clicks in enumerate(coords):
            x, y = clicks[0].astype(int)
            logits[row, 1][next(truth for truth in self.truths if truth[y, x])] = 1.0
        return logits, np.tile(np.array([0.9, 0.5, 0.1], np.float32), (len(coords), 1))

    def upscale(self, low_res_logits, hw):
        return low_res_logits


def test_the_oracle_goes_on_from_the_candidate_nearest_to_the_truth(disks) -> None:
    stubborn = Stubborn([disks[0].mask(i) for i in range(3)])
    scores = evaluate_clicks(stubborn, [disks[0]], n_clicks=(1, 3), cap=5, oracle=True)
    assert (scores.ious[:, :5] == 0).all() and scores.clicks.tolist() == [5, 5, 5]
    assert scores.oracle_ious is not None and scores.oracle_ious.tolist() == [[1.0] * 3] * 3
    assert stubborn.n_decoded == 3 * (5 + 2)


def test_nothing_is_clicked_again_where_the_surest_candidate_is_the_nearest(disks) -> None:
    oracle = Oracle()
    oracle.truths = [disks[0].mask(i) for i in range(3)]
    scores = evaluate_clicks(oracle, [disks[0]], n_clicks=(1,), cap=20, oracle=True)
    assert scores.oracle_ious is not None and scores.oracle_ious.tolist() == [[1.0]] * 3
    assert len(oracle.seen) == 1
    empty = evaluate_clicks(oracle, [], n_clicks=(1, 3), oracle=True, ceiling=lambda truth: 1.0)
    assert empty.oracle_ious is not None and empty.oracle_ious.shape == (0, 3)
    assert empty.ceilings is not None and empty.ceilings.shape == (0,)


def test_clicks_to_a_lower_target_are_those_of_a_session_that_stops_there(disks, small) -> None:
    backend = TorchBackend(build_sam(small, seed=3))
    samples = [disks[number] for number in range(3)]
    long = evaluate_clicks(backend, samples, n_clicks=(1, 2, 3, 5), noc_iou=0.9, cap=8)
    # Between what the luckier and the other half of the masks ever reach.
    target = float(np.median(long.ious[:, :6].max(axis=1))) - 1e-4
    short = evaluate_clicks(backend, samples, noc_iou=target, cap=6)
    assert 0 < short.reached(target, 6).sum() < len(short.clicks)
    assert long.clicks_to(target, 6).tolist() == short.clicks.tolist()
    assert np.allclose(long.ious[:, :3], short.ious[:, :3], atol=1e-3)


def test_a_target_beyond_what_was_clicked_to_is_refused(disks) -> None:
    oracle = Oracle()
    oracle.truths = [disks[0].mask(i) for i in range(3)]
    scores = evaluate_clicks(oracle, [disks[0]], n_clicks=(1,), noc_iou=0.85)
    with pytest.raises(BadInput, match="measure again"):
        scores.clicks_to(0.9, 20)


def test_ceilings_are_those_of_each_mask(disks) -> None:
    oracle = Oracle()
    oracle.truths = [disks[0].mask(i) for i in range(3)]
    scores = evaluate_clicks(oracle, [disks[0]], n_clicks=(1,), ceiling=lambda truth: truth.mean())
    assert scores.ceilings is not None
    assert np.allclose(scores.ceilings, [truth.mean() for truth in oracle.truths])


def test_a_baseline_is_measured_by_the_same_clicks(disks) -> None:
    _, fill = best_flood_fill([disks[0]])
    scores = evaluate_clicks(SegmenterBackend(fill), [disks[0]], n_clicks=(1, 3))
    assert scores.clicks.tolist() == [1, 1, 1] and scores.mean_iou(3) == 1.0


def test_a_pixel_that_two_clicks_claim_goes_to_the_nearer_one() -> None:
    everything = SegmenterBackend(lambda image, xy: np.ones(image.shape[:2], bool))
    image, hw = np.zeros((4, 9, 3), np.uint8), (4, 9)
    coords, labels = np.array([[[1, 1]]], np.float32), np.array([[1]])
    first, _ = everything.decode(image, hw, coords, labels, None, True)
    assert (first > 0).all()
    both = np.array([[[1, 1], [7, 1]]], np.float32)
    second, _ = everything.decode(image, hw, both, np.array([[1, 0]]), first, False)
    assert ((second[0, 0] > 0) == (np.arange(9) <= 4)).all()
    assert (first > 0).all(), "what was fed back is not written to"
