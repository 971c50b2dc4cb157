"""The exported image encoder embeds as torch does, from plain pixels."""

from __future__ import annotations

import json

import numpy as np
import onnx
import pytest
import torch

from engine.errors import Refused
from engine.modeling import Sam, SamConfig, build_sam, encode_image
from engine.modeling.onnx_encoder import export_encoder, largest_difference
from engine.modeling.onnx_predictor import loaded, tensors_of
from engine.modeling.resize import resize_long_side
from engine.modeling.sam import assemble
from engine.modeling.sam_config import CONFIGS, TinyVitConfig, VitConfig

# The bundled model's kind, and the official one: windows that do not divide the grid, one global block.
KINDS = {
    "tiny_vit": SamConfig(
        "tiny_vit",
        128,
        TinyVitConfig((8, 8, 16, 16), (1, 1, 1, 1), (1, 1, 2, 2), (4, 4, 8, 4)),
        prompt_dim=16,
        detail_channels=2,
    ),
    "vit": SamConfig("vit", 128, VitConfig(16, 2, 2, (1,), window_size=3), prompt_dim=16),
}
Exported = tuple[Sam, bytes]


@pytest.fixture(scope="module", params=KINDS)
def exported(request: pytest.FixtureRequest) -> Exported:
    sam = build_sam(KINDS[request.param], seed=0)
    for weight in sam.image_encoder.parameters():
        # Biases and relative positions begin at zero, where a wrong one would not be seen.
        weight.data += 0.05 * torch.randn(weight.shape, generator=torch.Generator().manual_seed(1))
    sam.train()
    onnx_model = export_encoder(sam)
    assert sam.training and sam.image_encoder.training, "exporting leaves a model in training as it was"
    return sam.eval(), onnx_model


def test_exported_encoder_equals_torch_on_images_of_any_shape(exported: Exported) -> None:
    sam, onnx_model = exported
    assert largest_difference(sam, onnx_model, seed=1) < 1e-3
    session = loaded(onnx_model, 1, "image encoder")
    image = np.random.default_rng(2).integers(0, 256, (90, 200, 3), dtype=np.uint8)
    small = resize_long_side(image, sam.config.img_size)
    (embedding,) = session.run(None, {"image": small})
    assert np.abs(embedding[0] - encode_image(sam, image)).max() < 1e-3


def test_exported_encoder_is_whole_and_names_its_tensors(exported: Exported) -> None:
    sam, onnx_model = exported
    model = onnx.load_from_string(onnx_model)
    onnx.checker.check_model(model)
    notes = {note.key: note.value for note in model.metadata_props}
    assert json.loads(notes["config"]) == json.loads(json.dumps(sam.config.to_dict()))
    assert b".py" not in onnx_model
    (image,), (embedding,) = tensors_of(loaded(onnx_model, 1, "image encoder"))
    assert (image.name, image.type, image.shape) == ("image", "uint8", ("height", "width", 3))
    grid = sam.config.embedding_grid
    assert (embedding.name, embedding.shape) == (
        "image_embeddings",
        (1, sam.config.embedding_channels, grid, grid),
    )


def test_another_models_encoder_is_told_apart(exported: Exported) -> None:
    sam, onnx_model = exported
    assert largest_difference(build_sam(sam.config, seed=9), onnx_model) > 1e-3


def test_a_nan_is_no_small_difference(exported: Exported) -> None:
    sam, onnx_model = exported
    diverged = build_sam(sam.config, seed=0)
    diverged.image_encoder.neck[0].weight.data[0, 0] = float("nan")
    assert not largest_difference(diverged, onnx_model) <= 1e-3


def test_weights_that_no_onnx_file_can_hold_are_refused_with_a_way_out() -> None:
    with torch.device("meta"):
        largest = assemble(CONFIGS["vit_h"])
    with pytest.raises(Refused, match=r"2\.5 GB.*--decoder-only"):
        export_encoder(largest)
