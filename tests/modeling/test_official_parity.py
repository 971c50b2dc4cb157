"""Our SAM against what the official code computed: logits within 2e-4, scores within 1e-4 (parity README)."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from engine.modeling import Predictor
from engine.modeling.predictor import preprocess_image
from engine.modeling.sam import decode

if TYPE_CHECKING:
    from tests.modeling.conftest import Reference


LOGITS, SCORES = 2e-4, 1e-4


@pytest.fixture(scope="session")
def prompted(reference: Reference) -> Predictor:
    predictor = Predictor(reference.sam)
    predictor.set_image(reference.image)
    return predictor


def largest(ours: Any, theirs: NDArray[np.float32]) -> float:
    return float(np.abs(np.asarray(ours, np.float32) - theirs).max())


def arguments(reference: Reference, case: dict[str, Any]) -> dict[str, Any]:
    """The stored prompt as keyword arguments of `predict`."""
    named = {key: np.array(case[key]) for key in ("point_coords", "point_labels", "box") if key in case}
    if "mask_input" in case:
        named["mask_input"] = reference.outputs[case["mask_input"]]
    return named | {"multimask_output": case["multimask_output"]}


def test_every_case_matches_the_official_logits_and_scores(reference: Reference, prompted: Predictor) -> None:
    for name, case in reference.cases["cases"].items():
        _, scores, logits = prompted.predict(**arguments(reference, case))
        assert logits.shape == reference.outputs[f"{name}.low_res_logits"].shape
        assert largest(logits, reference.outputs[f"{name}.low_res_logits"]) < LOGITS, name
        assert largest(scores, reference.outputs[f"{name}.iou_predictions"]) < SCORES, name


def test_full_size_masks_differ_only_where_the_logit_is_near_zero(
    reference: Reference, prompted: Predictor
) -> None:
    compared = [name for name, case in reference.cases["cases"].items() if "full_res_shape" in case]
    assert compared
    for name in compared:
        case = reference.cases["cases"][name]
        logits, _, _ = prompted.predict(**arguments(reference, case), return_logits=True)
        n_pixels = int(np.prod(case["full_res_shape"]))
        stored = np.unpackbits(reference.outputs[f"{name}.full_res_positive"])[:n_pixels]
        differing = (logits > 0) != stored.reshape(case["full_res_shape"]).astype(bool)
        assert np.all(np.abs(logits[differing]) < 1e-3), name


def test_trained_masks_have_the_recorded_areas(trained: Reference) -> None:
    predictor = Predictor(trained.sam)
    predictor.set_image(trained.image)
    for case in trained.cases["cases"].values():
        masks, _, _ = predictor.predict(**arguments(trained, case))
        assert np.abs(masks.sum(axis=(1, 2)) - case["area"]).max() <= 2


def test_preprocessing_matches_the_official_pixels(untrained: Reference) -> None:
    ours = preprocess_image(untrained.sam, untrained.image).numpy()
    assert largest(ours, untrained.outputs["preprocessed"]) < 2e-3  # stored as fp16


def test_image_embedding_and_dense_positions_match(untrained: Reference) -> None:
    predictor = Predictor(untrained.sam)
    predictor.set_image(untrained.image)
    assert largest(predictor.get_image_embedding(), untrained.outputs["image_embedding"]) < LOGITS
    with torch.inference_mode():
        dense_pe = untrained.sam.prompt_encoder.get_dense_pe()
    assert largest(dense_pe, untrained.outputs["dense_pe"]) < 1e-6


def test_a_batch_of_64_prompts_matches(untrained: Reference) -> None:
    points = torch.from_numpy(untrained.outputs["grid64.points_xy_model_frame"]).float()[:, None]
    features = torch.from_numpy(untrained.outputs["image_embedding"])
    with torch.inference_mode():
        logits, scores = decode(untrained.sam, features, (points, torch.ones(64, 1)), None, None, True)
    assert largest(logits, untrained.outputs["grid64.low_res_logits"]) < LOGITS
    assert largest(scores, untrained.outputs["grid64.iou_predictions"]) < SCORES


def test_one_embedding_per_prompt_equals_one_shared_embedding(untrained: Reference) -> None:
    points = torch.from_numpy(untrained.outputs["grid64.points_xy_model_frame"]).float()[:4, None]
    features = torch.from_numpy(untrained.outputs["image_embedding"])
    prompts = (points, torch.ones(4, 1)), None, None, True
    with torch.inference_mode():
        shared_embedding, _ = decode(untrained.sam, features, *prompts)
        one_each, _ = decode(untrained.sam, features.expand(4, -1, -1, -1), *prompts)
    assert torch.equal(shared_embedding, one_each)
