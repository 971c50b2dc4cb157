"""`models export-onnx` as a person meets it."""

import hashlib
import json
from pathlib import Path

import numpy as np
import onnxruntime
import pytest

from tests.cli.conftest import Ended, Maskloop
from tests.cli.test_refusals import assert_stated

DECODERS = ["decoder.fp16.onnx", "decoder.int8.onnx"]


def test_a_version_becomes_files_that_work_without_maskloop(
    boxes: Path, maskloop: Maskloop, tmp_path: Path
) -> None:
    out = tmp_path / "deep" / "onnx"
    ended = maskloop("models", "export-onnx", "small", "--out", out, "--prompts", 6, "--home", boxes)
    assert ended.code == 0, ended.err
    told = json.loads((out / "onnx.json").read_text())
    named = {one["file"]: one for one in told["files"]}
    assert {path.name for path in out.iterdir()} == {*named, "onnx.json"}
    assert [path.name for path in out.parent.iterdir()] == ["onnx"]
    for name, one in named.items():
        content = (out / name).read_bytes()
        assert (one["n_bytes"], one["sha256"]) == (len(content), hashlib.sha256(content).hexdigest())
        assert name in ended.out
    # Each smaller decoder either passed, or is said not to have, with the figure.
    for name in DECODERS:
        complaint = [line for line in told["left_out"] if f"no {name}:" in line]
        assert (name in named) != bool(complaint)
        assert all("% of 6 prompts" in line and line in ended.err for line in complaint)
    assert _answers(out, told["config"]["logits_size"]) == ((1, 4, 32, 32), (1, 4))


def _answers(folder: Path, side: int) -> tuple[tuple[int, ...], ...]:
    """Shapes of what a click gives, asked by nothing but the files."""
    encoder, decoder = (onnxruntime.InferenceSession(folder / f"{n}.onnx") for n in ("encoder", "decoder"))
    image = np.zeros((96, 128, 3), np.uint8)
    prompt = {
        "image_embeddings": encoder.run(None, {"image": image})[0],
        "point_coords": np.array([[[40, 30], [0, 0]]], np.float32),
        "point_labels": np.array([[1, -1]], np.float32),
        "mask_input": np.zeros((1, 1, side, side), np.float32),
        "has_mask_input": np.zeros(1, np.float32),
    }
    return tuple(answer.shape for answer in decoder.run(None, prompt))


@pytest.mark.slow
def test_a_checkpoint_needs_no_home_and_the_encoder_may_be_left(
    small_model: tuple[bytes, bytes], maskloop: Maskloop, tmp_path: Path
) -> None:
    file, out = tmp_path / "mine.safetensors", tmp_path / "onnx"
    file.write_bytes(small_model[0])
    out.mkdir()
    arguments = ("--checkpoint", file, "--out", out, "--decoder-only", "--prompts", 3)
    told = maskloop("models", "export-onnx", *arguments, "--json").json
    assert (told["folder"], told["source"]) == (str(out), "mine.safetensors")
    assert told["source_sha256"] == hashlib.sha256(small_model[0]).hexdigest()
    assert (out / "decoder.onnx").is_file() and not (out / "encoder.onnx").exists()


def test_what_is_wrong_is_said_in_one_line_and_nothing_is_left(
    boxes: Path, maskloop: Maskloop, tmp_path: Path
) -> None:
    here = tmp_path / "here"
    here.mkdir()
    out, file = here / "onnx", tmp_path / "mine.pth"
    file.write_text("no weights here")

    def ended(*arguments: object, to: Path = out) -> Ended:
        return maskloop("models", "export-onnx", *arguments, "--out", to, "--home", boxes)

    assert_stated(ended(), "name a version", "--checkpoint FILE")
    assert_stated(ended("small", "--checkpoint", file), "name a version", "--checkpoint FILE")
    assert_stated(ended("smal"), "no model version named 'smal'", "there are: small")
    assert_stated(ended("--checkpoint", file), "mine.pth", "no torch file")
    assert_stated(ended("--checkpoint", here / "missing.pth"), "no checkpoint at", "missing.pth")
    assert_stated(ended("small", to=file / "onnx"), "Not a directory")
    assert list(here.iterdir()) == []
    out.mkdir()
    (out / "kept.txt").write_text("mine")
    assert_stated(ended("small"), "is not empty: name a new folder")
    assert [path.name for path in out.iterdir()] == ["kept.txt"]


def test_without_a_folder_the_usage_is_told(maskloop: Maskloop) -> None:
    ended = maskloop("models", "export-onnx", "small")
    assert ended.code == 2 and "--out" in ended.err
