"""Scripts written for the official package run with their import lines changed, and get its answers."""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from engine.errors import BadInput
from engine.geometry import rle
from engine.modeling import (
    Predictor,
    ResizeLongestSide,
    Sam,
    SamPredictor,
    sam_model_registry,
)
from engine.modeling.sam import decode

ROOT = Path(__file__).parents[2]
# The name `small` stands for a model as small as a test needs: whatever the checkpoint's keys say.
PRELUDE = "import engine.modeling as m; m.sam_model_registry['small'] = m.build_sam\n"


def as_ours(script: str) -> str:
    """The script with its official import lines changed, and nothing else."""
    lines = []
    for line in script.splitlines():
        if line.startswith("from segment_anything"):
            line = f"from engine.modeling import {line.partition(' import ')[2]}"
        lines.append(line)
    return "\n".join(lines)


def run_script(name: str, *arguments: object) -> None:
    text = as_ours((Path(__file__).parent / "notebooks" / name).read_text())
    assert "from segment_anything" not in text
    program = PRELUDE + "import torch; torch.set_num_threads(1)\n" + text
    command = [sys.executable, "-c", program, *map(str, arguments)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=250)
    assert done.returncode == 0, done.stderr


@pytest.fixture(scope="module")
def answers(shared: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, NDArray[Any]]:
    """What the predictor script got out of the small trained checkpoint of the parity folder."""
    file = tmp_path_factory.mktemp("drop-in") / "answers.npz"
    image = shared / "datasets/nuclei/images/4cbd6c37f3a5.png"
    run_script("predictor_example.py", shared / "parity/trained_tiny_sam.pth", "small", image, file)
    with np.load(file) as stored:
        return {key: stored[key] for key in stored.files}


def test_a_predictor_script_gets_the_official_answers(answers: dict[str, Any], shared: Path) -> None:
    with np.load(shared / "parity/trained_tiny_sam_outputs.npz") as official:
        compared = {
            "one_point_logits": "one_point.multi.low_res_logits",
            "one_point_scores": "one_point.multi.iou_predictions",
            "box_logits": "box.single.low_res_logits",
            "both_logits": "box_and_point.single.low_res_logits",
        }
        for ours, theirs in compared.items():
            assert np.abs(answers[ours] - official[theirs]).max() < 2e-4, ours
        bits = official["one_point.multi.full_res_positive"]
    masks = np.unpackbits(bits)[: answers["one_point_masks"].size].reshape(3, 256, 320)
    assert (answers["one_point_masks"] != masks).sum() <= 2
    assert abs(int(answers["boxed"].sum()) - 1203) <= 2 and abs(int(answers["both"].sum()) - 209) <= 2
    assert answers["two_points"].dtype == np.float32 and answers["corrected"].dtype == np.bool_


def test_several_boxes_and_several_images_at_once_equal_one_by_one(answers: dict[str, Any]) -> None:
    assert answers["batch"].shape == (2, 1, 256, 320)
    assert np.array_equal(answers["first_masks"], answers["batch"])
    assert answers["first_low_res_logits"].shape == (2, 1, 64, 64)
    assert answers["second_masks"].shape == (1, 1, 200, 320)
    assert answers["second_iou_predictions"].shape == (1, 1)
    # The whole pixels of these boxes differ by less than one from those of `boxed` and `both`.
    assert rle.iou(rle.encode(answers["batch"][0, 0]), rle.encode(answers["boxed"][0])) > 0.9


def test_a_generator_script_gets_the_official_records(shared: Path, tmp_path: Path) -> None:
    official = json.loads((shared / "parity/amg_100075_crops.json").read_text())
    image = shared / "datasets" / official["image"]
    run_script(
        "automatic_mask_generator_example.py",
        shared / "parity/trained_tiny_sam.pth",
        "small",
        image,
        tmp_path / "answers.json",
    )
    answers = json.loads((tmp_path / "answers.json").read_text())
    assert len(answers["records"]) == len(official["records"])
    for ours, theirs in zip(answers["records"], official["records"], strict=True):
        assert list(ours) == list(theirs) and ours["crop_box"] == theirs["crop_box"]
        assert rle.iou(ours["segmentation"], theirs["segmentation"]) > 0.99
        assert ours["predicted_iou"] == pytest.approx(theirs["predicted_iou"], abs=1e-3)
    # This weak model is never as sure as the default thresholds ask.
    assert answers["default"] == 0
    plain = json.loads((shared / "parity/amg_100075_plain.json").read_text())["records"]
    covered = np.any([rle.decode(record["segmentation"]) for record in plain], axis=0)
    assert abs(answers["painted"] - int(covered.sum())) <= len(plain)


def test_the_registry_has_the_official_names_and_mobilesams() -> None:
    assert {"default", "vit_h", "vit_l", "vit_b", "vit_t"} <= set(sam_model_registry)
    with torch.device("meta"):
        sizes = {name: sam_model_registry[name]().config.name for name in ("default", "vit_b", "vit_t")}
    assert sizes == {"default": "vit_h", "vit_b": "vit_b", "vit_t": "mobile"}


def test_the_official_names_are_at_hand_before_torch_is_loaded() -> None:
    program = """
import sys
import engine, engine.modeling as modeling
names = {"SamPredictor", "SamAutomaticMaskGenerator", "sam_model_registry", "ResizeLongestSide"}
assert names <= set(modeling.__all__), modeling.__all__
sys.exit(", ".join({"torch", "numpy", "onnxruntime"} & set(sys.modules)) or 0)
"""
    done = subprocess.run([sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


def test_coordinates_and_images_go_to_the_models_frame_as_officially() -> None:
    transform = ResizeLongestSide(1024)
    assert transform.get_preprocess_shape(1200, 1800, 1024) == (683, 1024)
    boxes = np.array([[0, 0, 1800, 1200], [900, 600, 901, 601]])
    framed = transform.apply_boxes(boxes, (1200, 1800))
    assert framed[0].tolist() == [0, 0, 1024, 683] and framed.shape == (2, 4)
    torched = transform.apply_boxes_torch(torch.from_numpy(boxes), (1200, 1800))
    assert np.abs(torched.numpy() - framed).max() < 1e-3
    image = np.random.default_rng(0).integers(0, 256, (120, 180, 3), dtype=np.uint8)
    resized = transform.apply_image(image)
    assert resized.shape == (683, 1024, 3) and resized.dtype == np.uint8
    torch_image = torch.from_numpy(image).permute(2, 0, 1)[None].float()
    close = transform.apply_image_torch(torch_image)[0].permute(1, 2, 0).numpy()
    assert np.abs(close - resized).max() < 2


def test_pixels_that_were_resized_by_hand_are_taken_and_others_refused(small_sam: Sam) -> None:
    image = np.random.default_rng(0).integers(0, 256, (40, 60, 3), dtype=np.uint8)
    whole, by_hand = SamPredictor(small_sam), SamPredictor(small_sam)
    whole.set_image(image)
    pixels = torch.from_numpy(by_hand.transform.apply_image(image)).permute(2, 0, 1)[None]
    by_hand.set_torch_image(pixels, image.shape[:2])
    assert torch.equal(whole.get_image_embedding(), by_hand.get_image_embedding())
    with pytest.raises(BadInput, match=r"\(1, 3, 85, 128\)"):
        by_hand.set_torch_image(pixels[:, :, :50], image.shape[:2])


def test_a_decoder_can_be_trained_on_what_the_predictor_embedded(small_sam: Sam) -> None:
    predictor = Predictor(small_sam)
    predictor.set_image(np.zeros((40, 60, 3), np.uint8))
    point = torch.tensor([[[20.0, 20.0]]]), torch.ones(1, 1)
    logits, _ = decode(small_sam, predictor.get_image_embedding(), point, None, None, True)
    logits.sum().backward()
    assert small_sam.mask_decoder.iou_token.weight.grad is not None
    small_sam.zero_grad()
