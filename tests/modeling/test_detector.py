"""The box detector: sizes from the card, boxes in the image's pixels, and files that know their encoder."""

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from engine.errors import BadInput, Unavailable
from engine.modeling import SamConfig
from engine.modeling.card import read_card
from engine.modeling.detector import (
    Detector,
    build_detector,
    load_detector,
    propose_boxes,
    save_detector,
)
from engine.modeling.detector_card import DetectorCard, DetectorConfig, read_detector_card
from engine.modeling.sam_config import CONFIGS

ENCODER = "a" * 64


@pytest.fixture
def detector(small_config: SamConfig) -> Detector:
    return build_detector(DetectorConfig.of_model(small_config, width=16, fine_width=8), seed=0).eval()


@pytest.fixture
def card(detector: Detector) -> DetectorCard:
    return DetectorCard(detector.config, ENCODER, 0.4, "detector-1", seed=3, steps=200)


@pytest.fixture
def embedding(small_config: SamConfig) -> np.ndarray:
    shape = (small_config.embedding_channels, small_config.embedding_grid, small_config.embedding_grid)
    return np.random.default_rng(0).normal(size=shape).astype(np.float32)


@pytest.mark.parametrize("name", ["tiny", "vit_b"])
def test_sizes_come_from_the_model(name: str) -> None:
    config = DetectorConfig.of_model(CONFIGS[name], width=8, fine_width=8, coarse_blocks=1, fine_blocks=1)
    grid = config.embedding_grid
    logits, boxes = build_detector(config, 0)(torch.zeros(1, config.embedding_channels, grid, grid))
    assert logits.shape == (1, 17 * grid**2) and boxes.shape == (1, 17 * grid**2, 4)
    assert config.frame_px == CONFIGS[name].img_size


def test_each_location_lies_in_its_own_box(detector: Detector, embedding: np.ndarray) -> None:
    _, boxes = detector(torch.from_numpy(embedding)[None])
    centres = detector.locations.centres_px
    assert ((boxes[0, :, :2] < centres) & (centres < boxes[0, :, 2:])).all()


def test_folded_detail_keeps_its_place(small_config: SamConfig) -> None:
    """A mark in the detail of one fine location moves the answers around it and none far away."""
    model = replace(small_config, detail_channels=2)
    detector = build_detector(DetectorConfig.of_model(model, width=8, fine_width=8), seed=0).eval()
    for norm in (module for module in detector.modules() if isinstance(module, torch.nn.GroupNorm)):
        torch.nn.init.zeros_(norm.bias)
    grid = detector.config.embedding_grid
    detail = torch.zeros(1, 2, 4 * grid, 4 * grid)
    detail[0, 1, 9, 22] = 100.0
    folded = torch.nn.functional.pixel_unshuffle(detail, 4)
    seen: list[torch.Tensor] = []
    assert detector.detail is not None
    detector.detail.register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0]))
    detector(torch.cat([torch.zeros(1, model.prompt_dim, grid, grid), folded], dim=1))
    assert np.argwhere(seen[0][0].abs().sum(0).numpy() > 1).tolist() == [[9 // 2, 22 // 2]]


@pytest.mark.parametrize("original_hw", [(300, 200), (50, 75), (128, 128)])
def test_boxes_are_in_original_pixels_and_never_in_the_padding(
    detector: Detector, embedding: np.ndarray, small_config: SamConfig, original_hw: tuple[int, int]
) -> None:
    boxes, scores = propose_boxes(detector, embedding, original_hw, small_config, 0.0, 40, 0.9)
    height, width = original_hw
    assert len(boxes) == len(scores) == 40
    assert (boxes >= 0).all() and (boxes[:, [0, 2]] <= width).all() and (boxes[:, [1, 3]] <= height).all()
    assert (boxes[:, 2:] > boxes[:, :2]).all()
    assert (np.diff(scores) <= 0).all()


def test_a_known_answer_lands_on_its_pixels(
    detector: Detector, embedding: np.ndarray, small_config: SamConfig
) -> None:
    """All weights 0 and a bias of log 1: every location draws a box of two strides each way."""
    for parameter in detector.parameters():
        torch.nn.init.zeros_(parameter)
    boxes, _ = propose_boxes(detector, embedding, (64, 128), small_config, 0.0, 5000, 1.0)
    # The frame is 128 px for 128 px of width, so a fine location at (62, 30) has its box at 8 px each way.
    assert (np.abs(boxes - [54, 22, 70, 38]).max(1) < 1e-4).any()
    # Below row 64 there is padding: the lowest centre is 62.
    assert boxes[:, 1].max() <= 62 - 8 + 1e-4


def test_proposals_keep_threshold_count_and_nms(
    detector: Detector, embedding: np.ndarray, small_config: SamConfig
) -> None:
    every, scores = propose_boxes(detector, embedding, (128, 128), small_config, 0.0, 1000, 1.0)
    middle = float(np.median(scores))
    _, above = propose_boxes(detector, embedding, (128, 128), small_config, middle, 1000, 1.0)
    assert above.min() >= middle and len(above) < len(every)
    spread, _ = propose_boxes(detector, embedding, (128, 128), small_config, 0.0, 1000, 0.1)
    assert 0 < len(spread) < len(every)
    assert len(propose_boxes(detector, embedding, (128, 128), small_config, 0.0, 3)[0]) == 3
    none, no_scores = propose_boxes(detector, embedding, (128, 128), small_config, 1.0)
    assert none.shape == (0, 4) and no_scores.shape == (0,)


def test_another_shape_of_embedding_is_refused(detector: Detector, small_config: SamConfig) -> None:
    with pytest.raises(BadInput, match="train one for this model"):
        propose_boxes(detector, np.zeros((3, 8, 8), np.float32), (10, 10), small_config)


def test_a_saved_detector_comes_back_whole(
    detector: Detector, card: DetectorCard, embedding: np.ndarray, small_config: SamConfig, tmp_path: Path
) -> None:
    detector.channel_mean.fill_(0.5)
    content = save_detector(detector, card)
    (tmp_path / "detector").write_bytes(content)
    for source in (content, tmp_path / "detector"):
        loaded, loaded_card = load_detector(source, ENCODER)
        assert loaded_card == card
        expected = propose_boxes(detector, embedding, (100, 80), small_config)
        found = propose_boxes(loaded, embedding, (100, 80), small_config)
        assert all(np.array_equal(a, b) for a, b in zip(expected, found, strict=True))
    assert save_detector(loaded, loaded_card) == content


def test_the_card_is_read_without_the_weights(detector: Detector, card: DetectorCard) -> None:
    without = replace(card, threshold=None)
    content = save_detector(detector, without)
    header = content[: 8 + int.from_bytes(content[:8], "little")]
    assert read_detector_card(header) == without


def test_a_detector_of_another_encoder_is_refused(detector: Detector, card: DetectorCard) -> None:
    with pytest.raises(BadInput, match="train a detector for the new model"):
        load_detector(save_detector(detector, card), "b" * 64)


def test_a_card_of_another_network_is_refused(detector: Detector, card: DetectorCard) -> None:
    with pytest.raises(BadInput, match=r"detector\.config"):
        save_detector(detector, replace(card, config=replace(card.config, width=32)))


def test_weights_that_do_not_fit_the_card_are_refused(detector: Detector, card: DetectorCard) -> None:
    content = save_detector(detector, card)
    length = int.from_bytes(content[:8], "little")
    header = json.loads(content[8 : 8 + length])
    written = json.loads(header["__metadata__"]["detector"])
    written["config"]["width"] = 32
    header["__metadata__"]["detector"] = json.dumps(written)
    text = json.dumps(header).encode()
    forged = len(text).to_bytes(8, "little") + text + content[8 + length :]
    with pytest.raises(BadInput, match="wrong shape"):
        load_detector(forged)


def test_broken_and_foreign_files_are_refused(detector: Detector, card: DetectorCard, tmp_path: Path) -> None:
    content = save_detector(detector, card)
    for broken in (b"", b"\x00" * 40, content[:-9], content[:50]):
        with pytest.raises(BadInput):
            load_detector(broken)
    with pytest.raises(BadInput):
        read_card(content)
    with pytest.raises(Unavailable):
        load_detector(tmp_path / "nowhere")


@pytest.mark.parametrize("sizes", [{"width": 12}, {"fine_width": 0}, {"fine_blocks": -1}])
def test_impossible_sizes_are_refused(small_config: SamConfig, sizes: dict[str, int]) -> None:
    with pytest.raises(BadInput):
        DetectorConfig.of_model(small_config, **sizes)
