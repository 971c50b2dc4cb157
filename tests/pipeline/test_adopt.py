"""Checkpoints of anyone's become versions: whole, with their decoder, or not at all."""

import hashlib
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image as Picture
from sqlalchemy import func, select

from engine.errors import BadInput, Conflict, Unavailable
from engine.modeling import SamConfig, build_sam, read_state
from engine.modeling.onnx_predictor import DecoderSession
from engine.modeling.predictor import encode_image
from engine.modeling.prompts import labelled_points, to_model_frame
from engine.pipeline.adopt import adopt_checkpoint, adopt_weights
from engine.store.datasets import add_dataset
from engine.store.events import Event
from engine.store.model_versions import ActiveModel, ModelVersion
from engine.store.session import Workspace


@pytest.fixture
def empty_id(sqlite_workspace: Workspace) -> int:
    """A dataset that has no model yet."""
    with sqlite_workspace.write() as session:
        return add_dataset(session, "photographs").id


@pytest.fixture
def official(shared: Path, tmp_path: Path) -> Path:
    """A .pth that the official code saved, under a name of one's own."""
    path = tmp_path / "my weights.pth"
    path.write_bytes((shared / "parity/trained_tiny_sam.pth").read_bytes())
    return path


def versions(workspace: Workspace) -> list[ModelVersion]:
    with workspace.read() as session:
        return list(session.scalars(select(ModelVersion).order_by(ModelVersion.id)))


def test_an_official_state_dictionary_becomes_the_first_and_active_version(
    sqlite_workspace: Workspace, empty_id: int, official: Path, shared: Path
) -> None:
    adopted = adopt_checkpoint(sqlite_workspace, empty_id, official)
    sha256 = hashlib.sha256(official.read_bytes()).hexdigest()
    assert (adopted.name, adopted.is_active, adopted.was_known) == ("my-weights", True, False)
    assert adopted.architecture == "vit-128x6-256px" and adopted.source_sha256 == sha256
    (version,) = versions(sqlite_workspace)
    assert version.training == {
        "source_sha256": sha256,
        "source_file": "my weights.pth",
        "source_check": "with nothing: it has no published name",
    }
    stored = sqlite_workspace.blobs.local_path(version.weights_sha256)
    # Bit for bit, and read without a config: the card says the sizes.
    before, after = read_state(official), read_state(stored)
    assert before.keys() == after.keys() and all(torch.equal(before[key], after[key]) for key in before)
    assert build_sam(checkpoint=stored).config == SamConfig.from_dict(version.config)
    assert_official_answers(sqlite_workspace, version, shared)


def assert_official_answers(workspace: Workspace, version: ModelVersion, shared: Path) -> None:
    """The stored encoder and the exported decoder together say what the official code said."""
    sam = build_sam(checkpoint=workspace.blobs.local_path(version.weights_sha256))
    session = DecoderSession(workspace.blobs.read(version.decoder_sha256), sam.config)
    cases = json.loads((shared / "parity/trained_tiny_sam_cases.json").read_text())
    image = np.asarray(Picture.open(shared / "datasets" / cases["image"]).convert("RGB"))
    case = cases["cases"]["one_point.multi"]
    points = to_model_frame(np.array(case["point_coords"]), (256, 320), sam.config.input_hw((256, 320)))
    labels = np.array(case["point_labels"], np.float32)
    logits, scores = session.run_in_model_frame(
        encode_image(sam, image), *labelled_points(points, labels, None), None
    )
    with np.load(shared / "parity/trained_tiny_sam_outputs.npz") as official_answers:
        assert np.abs(logits[1:] - official_answers["one_point.multi.low_res_logits"]).max() < 1e-3
        assert np.abs(scores[1:] - official_answers["one_point.multi.iou_predictions"]).max() < 1e-3


def test_beside_a_model_it_is_a_candidate_and_asked_twice_the_first_one(
    sqlite_workspace: Workspace, empty_id: int, official: Path, small_model: tuple[bytes, bytes]
) -> None:
    with sqlite_workspace.write() as session:
        furnished_id = add_dataset(session, "furnished").id
    first = adopt_weights(sqlite_workspace, furnished_id, "small", *small_model)
    adopted = adopt_checkpoint(sqlite_workspace, furnished_id, official, "mine")
    renamed = official.rename(official.with_name("renamed.pth"))
    again = adopt_checkpoint(sqlite_workspace, furnished_id, renamed)
    assert (adopted.is_active, adopted.was_known) == (False, False)
    assert (again.name, again.is_active, again.was_known) == ("mine", False, True)
    elsewhere = adopt_checkpoint(sqlite_workspace, empty_id, renamed)
    assert (elsewhere.name, elsewhere.is_active, elsewhere.was_known) == ("renamed", True, False)
    with sqlite_workspace.read() as session:
        assert session.get_one(ActiveModel, furnished_id).model_version_id == first
        adoptions = select(func.count()).select_from(Event).where(Event.kind == "model.adopted")
        assert session.scalar(adoptions) == 3
    # Equal files under any name make equal weights, whose digest is their name in the store.
    _, mine, other = versions(sqlite_workspace)
    assert mine.weights_sha256 == other.weights_sha256 and mine.decoder_sha256 == other.decoder_sha256


def test_a_file_of_ours_is_stored_as_it_is(
    sqlite_workspace: Workspace, empty_id: int, small_model: tuple[bytes, bytes], tmp_path: Path
) -> None:
    path = tmp_path / "ours.safetensors"
    path.write_bytes(small_model[0])
    adopted = adopt_checkpoint(sqlite_workspace, empty_id, path)
    (version,) = versions(sqlite_workspace)
    assert version.weights_sha256 == adopted.source_sha256 == hashlib.sha256(small_model[0]).hexdigest()
    assert version.architecture == "small"


def broken(state: dict[str, Any], how: str) -> Any:
    if how == "NaN":
        state["image_encoder.neck.0.weight"] = torch.full_like(
            state["image_encoder.neck.0.weight"], torch.nan
        )
    elif how == "missing":
        del state["mask_decoder.iou_token.weight"]
    elif how == "of the wrong shape":
        state["mask_decoder.iou_token.weight"] = torch.zeros(1, 3)
    elif how == "no SAM checkpoint":
        return {"layer.weight": torch.zeros(2)}
    return state


@pytest.mark.parametrize("how", ["NaN", "missing", "of the wrong shape", "no SAM checkpoint"])
def test_what_is_no_whole_sam_leaves_nothing_behind(
    sqlite_workspace: Workspace, empty_id: int, official: Path, how: str
) -> None:
    torch.save(broken(read_state(official), how), official.with_name("broken.pth"))
    with pytest.raises(BadInput, match=how) as refused:
        adopt_checkpoint(sqlite_workspace, empty_id, official.with_name("broken.pth"))
    assert "broken.pth" in str(refused.value)
    assert versions(sqlite_workspace) == [] and list(sqlite_workspace.blobs.files()) == []


def test_a_file_with_a_published_name_and_another_content_is_refused(
    sqlite_workspace: Workspace, empty_id: int, official: Path
) -> None:
    path = official.rename(official.with_name("sam_vit_b_01ec64.pth"))
    with pytest.raises(BadInput, match="is damaged or another file: its MD5 begins with"):
        adopt_checkpoint(sqlite_workspace, empty_id, path)
    assert versions(sqlite_workspace) == []


def test_names_that_are_taken_reserved_or_none_are_refused_before_anything_is_read(
    sqlite_workspace: Workspace, empty_id: int, small_model: tuple[bytes, bytes], tmp_path: Path
) -> None:
    adopt_weights(sqlite_workspace, empty_id, "small", *small_model)
    (tmp_path / "file.pth").write_bytes(b"never read")
    refusals: list[tuple[str, type[Exception], str]] = [
        ("small", Conflict, "another model named 'small'"),
        ("v2", BadInput, "training rounds name their versions like v2"),
        ("a b", BadInput, "cannot name a model"),
        ("x" * 65, BadInput, "up to 64"),
    ]
    for name, error, sentence in refusals:
        with pytest.raises(error, match=sentence):
            adopt_checkpoint(sqlite_workspace, empty_id, tmp_path / "file.pth", name)
    with pytest.raises(Unavailable, match="no checkpoint at"):
        adopt_checkpoint(sqlite_workspace, empty_id, tmp_path / "none.pth")
