"""The exported decoder answers as torch does, and needs no torch to do so."""

from __future__ import annotations

import copy
import json
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import onnx
import pytest

from engine.errors import BadInput, Unavailable
from engine.modeling import SamConfig, encode_image
from engine.modeling.onnx import SMALLER, export_decoder, largest_difference, with_smaller_weights
from engine.modeling.onnx_fidelity import Fidelity, compare
from engine.modeling.onnx_predictor import DecoderSession, fold, upscale_logits
from engine.modeling.predictor import TorchPrompts
from engine.modeling.prompts import Floats
from engine.modeling.prompts import fold as fold_prompts

if TYPE_CHECKING:
    from tests.modeling.conftest import Reference


REPOSITORY = Path(__file__).resolve().parents[2]
PROMPTS = [
    {"kind": "point", "x": 96.0, "y": 102.4, "label": 1},
    {"kind": "point", "x": 120.5, "y": 90.0, "label": 0, "at_ms": 800},
    {"kind": "box", "x0": 80.0, "y0": 76.8, "x1": 144.0, "y1": 140.8},
]


@pytest.fixture(scope="session")
def exported(trained: Reference) -> bytes:
    return export_decoder(trained.sam)


@pytest.fixture(scope="session")
def session(trained: Reference, exported: bytes) -> DecoderSession:
    return DecoderSession(exported, trained.sam.config.to_dict())


@pytest.fixture(scope="session")
def embedding(trained: Reference) -> Floats:
    return encode_image(trained.sam, trained.image)


def test_exported_decoder_equals_torch_for_1_to_40_points(trained: Reference, exported: bytes) -> None:
    assert largest_difference(trained.sam, exported, n_points=40, seed=1) < 1e-3


def test_exported_file_is_whole_and_carries_its_config(trained: Reference, exported: bytes) -> None:
    model = onnx.load_from_string(exported)
    onnx.checker.check_model(model)
    assert [opset.version for opset in model.opset_import if opset.domain == ""] == [20]
    notes = {note.key: note.value for note in model.metadata_props}
    assert json.loads(notes["config"])["logits_size"] == trained.sam.config.logits_size
    assert not any(weight.external_data for weight in model.graph.initializer)


def test_a_nan_is_no_small_difference(trained: Reference, exported: bytes) -> None:
    diverged = copy.deepcopy(trained.sam)
    diverged.mask_decoder.mask_tokens.weight.data[0, 0] = float("nan")
    assert not largest_difference(diverged, exported, n_points=2) <= 1e-3


def test_exported_file_does_not_say_where_it_was_made(exported: bytes) -> None:
    assert str(REPOSITORY).encode() not in exported and b".py" not in exported


def test_half_precision_weights_stay_exact_in_a_smaller_file(trained: Reference) -> None:
    halved = copy.deepcopy(trained.sam).half().float()
    exact = export_decoder(halved, n_checked_points=1)
    smaller = with_smaller_weights(exact, "fp16")
    assert len(smaller) < 0.6 * len(exact)
    assert largest_difference(halved, smaller, n_points=20, seed=2) < 1e-3


@pytest.mark.parametrize("kind", SMALLER)
def test_a_smaller_decoder_is_a_whole_model_near_the_exact_one(
    trained: Reference, exported: bytes, kind: str
) -> None:
    smaller = with_smaller_weights(exported, kind)
    onnx.checker.check_model(onnx.load_from_string(smaller))
    assert len(smaller) < len(exported)
    spread = np.ptp(trained.outputs[next(n for n in trained.outputs if n.endswith("low_res_logits"))])
    assert 0 < largest_difference(trained.sam, smaller, n_points=6) < 0.05 * spread


def test_a_smaller_decoder_ships_if_99_of_100_masks_are_the_same() -> None:
    assert Fidelity([1.0] * 98 + [0.99, 0.2]).ships
    assert not Fidelity([1.0] * 98 + [0.989, 0.2]).ships
    assert not Fidelity([]).ships


def test_decoders_are_compared_by_the_masks_people_see(
    trained: Reference, exported: bytes, session: DecoderSession, embedding: Floats
) -> None:
    empty = onnx.load_from_string(exported)
    for weight in empty.graph.initializer:
        if "hypernetworks" in weight.name:
            weight.CopyFrom(onnx.numpy_helper.from_array(np.zeros(weight.dims, np.float32), weight.name))
    strange = DecoderSession(empty.SerializeToString(), trained.sam.config)
    masks = [np.zeros(trained.image.shape[:2], bool) for _ in range(2)]
    masks[0][80:140, 60:150], masks[1][30:60, 200:230] = True, True
    same, another = Fidelity(), Fidelity()
    compare(session, [(session, same), (strange, another)], embedding, masks, seed=0)
    assert same.ious == [1.0] * 6 and same.ships
    assert len(another.ious) == 6 and not another.ships


def test_official_cases_hold_in_onnxruntime(
    trained: Reference, session: DecoderSession, embedding: Floats
) -> None:
    for name, case in trained.cases["cases"].items():
        prompt = {key: np.array(case[key]) for key in ("point_coords", "point_labels", "box") if key in case}
        logits, scores = session.run(embedding, trained.image.shape[:2], **prompt)
        kept = slice(1, None) if case["multimask_output"] else slice(0, 1)
        assert np.abs(logits[kept] - trained.outputs[f"{name}.low_res_logits"]).max() < 1e-3
        assert np.abs(scores[kept] - trained.outputs[f"{name}.iou_predictions"]).max() < 1e-3


@pytest.mark.parametrize("n_prompts", [1, 2, 3])
def test_onnxruntime_and_torch_fold_to_the_same_masks(
    trained: Reference, session: DecoderSession, embedding: Floats, n_prompts: int
) -> None:
    hw = trained.image.shape[:2]
    chosen = [2, 0, 0][:n_prompts]
    ours = fold(session, embedding, hw, PROMPTS[:n_prompts], chosen)
    theirs = fold_prompts(TorchPrompts(trained.sam, embedding, hw), PROMPTS[:n_prompts], chosen)
    assert len(ours.iou_predictions) == (3 if n_prompts == 1 else 1)
    assert np.abs(ours.low_res_logits - theirs.low_res_logits).max() < 1e-3
    assert upscale_logits(ours.low_res_logits, hw, session.config).shape == (len(ours.iou_predictions), *hw)


def test_replaying_prompts_gives_the_same_bits(
    trained: Reference, exported: bytes, embedding: Floats
) -> None:
    hw = trained.image.shape[:2]
    first, second = (
        fold(DecoderSession(exported, trained.sam.config), embedding, hw, PROMPTS, [1, 0]) for _ in range(2)
    )
    assert np.array_equal(first.low_res_logits, second.low_res_logits)


def test_a_prompt_outside_the_image_is_refused(
    trained: Reference, session: DecoderSession, embedding: Floats
) -> None:
    with pytest.raises(BadInput, match="outside"):
        fold(
            session, embedding, trained.image.shape[:2], [{"kind": "point", "x": 999, "y": 1, "label": 1}], []
        )


def test_another_models_embedding_is_refused(session: DecoderSession) -> None:
    with pytest.raises(BadInput, match="embed again"):
        session.run(np.zeros((3, 16, 16), np.float32), (10, 10), np.ones((1, 2)), np.ones(1))


def test_bytes_that_are_no_model_are_named(small_config: SamConfig) -> None:
    with pytest.raises(Unavailable, match="cannot be loaded"):
        DecoderSession(b"not a model", small_config)


def test_the_web_process_predicts_without_torch(
    tmp_path: Path, exported: bytes, trained: Reference, embedding: Floats
) -> None:
    (tmp_path / "decoder.onnx").write_bytes(exported)
    (tmp_path / "config.json").write_text(json.dumps(trained.sam.config.to_dict()))
    np.save(tmp_path / "embedding.npy", embedding)
    program = """
import json, sys, numpy as np
import engine.modeling
from engine.modeling.onnx_predictor import DecoderSession, fold
session = DecoderSession(open("decoder.onnx", "rb").read(), json.load(open("config.json")))
prompt = {"kind": "point", "x": 96.0, "y": 102.4, "label": 1}
assert len(fold(session, np.load("embedding.npy"), (256, 320), [prompt], []).iou_predictions) == 3
assert not [name for name in sys.modules if name.split(".")[0] == "torch"]
"""
    done = subprocess.run(
        [sys.executable, "-c", program],
        cwd=tmp_path,
        env={"PYTHONPATH": str(REPOSITORY)},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
