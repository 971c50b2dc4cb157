"""The predictor keeps the official behaviour at its edges."""

import inspect
from typing import Any

import numpy as np
import pytest
import torch

import engine.modeling
from engine.errors import BadInput
from engine.modeling import Predictor, Sam, SamPredictor, encode_image

IMAGE = np.random.default_rng(0).integers(0, 256, (40, 60, 3), dtype=np.uint8)
POINT = {"point_coords": np.array([[30.0, 20.0]]), "point_labels": np.array([1])}


@pytest.fixture
def predictor(small_sam: Sam) -> Predictor:
    predictor = Predictor(small_sam)
    predictor.set_image(IMAGE)
    return predictor


def test_arguments_have_the_official_names_and_defaults() -> None:
    assert SamPredictor is Predictor
    assert list(inspect.signature(Predictor.set_image).parameters) == ["self", "image", "image_format"]
    predict = inspect.signature(Predictor.predict).parameters
    names = ["point_coords", "point_labels", "box", "mask_input", "multimask_output", "return_logits"]
    assert list(predict)[1:] == names
    assert predict["multimask_output"].default is True and predict["return_logits"].default is False


def test_shapes_are_the_official_ones(predictor: Predictor) -> None:
    masks, scores, low_res = predictor.predict(**POINT)
    assert masks.shape == (3, 40, 60) and masks.dtype == np.bool_
    assert scores.shape == (3,) and low_res.shape == (3, 32, 32)
    again, _, _ = predictor.predict(
        **POINT, mask_input=low_res[:1], multimask_output=False, return_logits=True
    )
    assert again.shape == (1, 40, 60) and again.dtype == np.float32


def test_bgr_images_are_turned(small_sam: Sam, predictor: Predictor) -> None:
    turned = Predictor(small_sam)
    turned.set_image(IMAGE[..., ::-1].copy(), image_format="BGR")
    assert torch.equal(turned.get_image_embedding(), predictor.get_image_embedding())


def test_embedding_is_deterministic_and_equals_set_image(small_sam: Sam, predictor: Predictor) -> None:
    first, second = encode_image(small_sam, IMAGE), encode_image(small_sam, IMAGE)
    assert np.array_equal(first, second) and first.shape == (16, 8, 8) and first.dtype == np.float32
    assert np.array_equal(first, predictor.get_image_embedding()[0].numpy())


def test_prompts_before_an_image_are_refused(small_sam: Sam, predictor: Predictor) -> None:
    predictor.reset_image()
    for empty in (Predictor(small_sam), predictor):
        with pytest.raises(BadInput, match="set_image"):
            empty.predict(**POINT)


def test_points_need_labels_and_images_a_known_format(predictor: Predictor) -> None:
    with pytest.raises(BadInput, match="point_labels"):
        predictor.predict(point_coords=POINT["point_coords"])
    with pytest.raises(BadInput, match="RGB or BGR"):
        predictor.set_image(IMAGE, image_format="HSV")


NAN = float("nan")


@pytest.mark.parametrize(
    ("prompts", "said"),
    [
        ({}, "nothing to follow"),
        ({"point_coords": [[NAN, 1.0]], "point_labels": [1]}, "finite"),
        ({"point_coords": [["a", "b"]], "point_labels": [1]}, "must be numbers"),
        ({"point_coords": [[61.0, 1.0]], "point_labels": [1]}, r"outside the image of 60 x 40 px"),
        ({"point_coords": [[5.0, -1.0]], "point_labels": [1]}, "outside"),
        ({"point_coords": [5.0, 1.0], "point_labels": [1]}, r"shape \(N, 2\)"),
        ({"point_coords": np.zeros((0, 2)), "point_labels": []}, "at least one point"),
        ({"point_coords": [[5.0, 1.0]], "point_labels": [1, 0]}, "1 points take 1"),
        ({"point_coords": [[5.0, 1.0]], "point_labels": [7]}, "1 .foreground. or 0"),
        ({"point_coords": np.ones((10_000, 2)), "point_labels": np.ones(10_000)}, "at most 64"),
        ({"box": [30.0, 5.0, 20.0, 9.0]}, "x0 < x1"),
        ({"box": [3.0, 5.0, NAN, 9.0]}, "finite"),
        ({"box": [-9.0, 5.0, -1.0, 9.0]}, "outside"),
        ({"box": np.ones((2, 4))}, "predict_torch"),
        ({"mask_input": np.zeros((1, 8, 8))}, "low_res_masks"),
        ({"mask_input": np.full((1, 32, 32), NAN)}, "finite"),
    ],
)
def test_prompts_without_a_meaning_are_named(predictor: Predictor, prompts: dict, said: str) -> None:
    with pytest.raises(BadInput, match=said):
        predictor.predict(**prompts)


@pytest.mark.parametrize(
    "image",
    [
        np.zeros((0, 5, 3), np.uint8),
        np.zeros((5, 5), np.uint8),
        np.zeros((5, 5, 4), np.uint8),
        np.zeros((5, 5, 3), np.float32),
        "image.png",
    ],
)
def test_an_image_of_another_kind_is_refused(predictor: Predictor, image: Any) -> None:
    with pytest.raises(BadInput, match="uint8 array"):
        predictor.set_image(image)


def test_a_detectors_box_may_reach_over_the_border(predictor: Predictor) -> None:
    masks, _, _ = predictor.predict(box=np.array([-3.0, 5.0, 63.5, 20.0]))
    assert masks.shape == (3, 40, 60)


def test_torch_prompts_are_finite_and_there(predictor: Predictor) -> None:
    for prompts in ((None, None), (torch.full((1, 1, 2), NAN), torch.ones(1, 1))):
        with pytest.raises(BadInput, match="finite"):
            predictor.predict_torch(*prompts)


def test_a_mask_alone_is_a_prompt(predictor: Predictor) -> None:
    masks, _, _ = predictor.predict(mask_input=np.zeros((1, 32, 32), np.float32), multimask_output=False)
    assert masks.shape == (1, 40, 60)


def test_every_public_name_resolves() -> None:
    for name in engine.modeling.__all__:
        assert getattr(engine.modeling, name) is not None
    with pytest.raises(AttributeError):
        _ = engine.modeling.nothing
