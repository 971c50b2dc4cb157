"""Official checkpoints fit by name and shape, and MobileSAM's encoder computes what the original computes."""

import json
import math
import zlib
from pathlib import Path

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from PIL import Image

from engine.modeling import Sam, build_sam
from engine.modeling.predictor import encode_image
from engine.modeling.tiny_vit import Attention

OFFICIAL = {"vit_b": "sam_vit_b", "vit_l": "sam_vit_l", "vit_h": "sam_vit_h", "mobile": "mobile_sam"}


@pytest.mark.parametrize("name", OFFICIAL)
def test_state_dictionary_has_the_official_keys_and_shapes(name: str, shared: Path) -> None:
    wanted = json.loads((shared / "parity" / "official_checkpoint_keys.json").read_text())[OFFICIAL[name]]
    with torch.device("meta"):
        state = build_sam(name).state_dict()
    assert {key: list(tensor.shape) for key, tensor in state.items()} == wanted


def regenerated(key: str, shape: tuple[int, ...]) -> NDArray[np.float64]:
    """The weight of one key, by the rule of the parity README."""
    rng = np.random.default_rng(zlib.crc32(key.encode()))
    if key.endswith("running_var"):
        return 1 + 0.1 * rng.random(shape)
    if key.endswith(("running_mean", "bias")):
        return 0.05 * rng.standard_normal(shape)
    if len(shape) == 1:
        return 1 + 0.05 * rng.standard_normal(shape)
    if "attention_biases" in key:
        return 0.2 * rng.standard_normal(shape)
    return rng.standard_normal(shape) * 1.2 / math.sqrt(math.prod(shape[1:]))


def test_mobile_encoder_matches_the_original_embedding(shared: Path) -> None:
    """The reference was made with attention biases of zero: the original caches them in eval(), before the
    weights were loaded. Their use is held by the next test."""
    sam = build_sam("mobile", seed=0)
    state = sam.image_encoder.state_dict()
    floating = {key: tensor for key, tensor in state.items() if tensor.is_floating_point()}
    drawn = {
        key: torch.from_numpy(regenerated(key, tuple(x.shape)).astype("f4")) for key, x in floating.items()
    }
    cached = {key: torch.zeros_like(x) for key, x in floating.items() if "attention_biases" in key}
    sam.image_encoder.load_state_dict(state | drawn | cached)
    image = np.asarray(Image.open(shared / "datasets/scenes/images/100075.jpg").convert("RGB"))
    with np.load(shared / "parity" / "mobile_sam_embedding.npz") as stored:
        wanted = stored["image_embedding_every_2nd"]
    assert np.abs(encode_image(sam, image)[::2, ::2, ::2] - wanted).max() < 2e-4


def test_tiny_vit_biases_belong_to_absolute_offsets_in_order_of_first_appearance() -> None:
    attention = Attention(dim=4, num_heads=2, window_size=3)
    cells = [(row, column) for row in range(3) for column in range(3)]
    offsets = {}
    for first in cells:
        for second in cells:
            offset = abs(first[0] - second[0]), abs(first[1] - second[1])
            offsets.setdefault(offset, len(offsets))
            wanted = attention.bias_index[cells.index(first), cells.index(second)]
            assert offsets[offset] == wanted


def test_tiny_vit_attention_equals_the_written_formula() -> None:
    attention = Attention(dim=8, num_heads=2, window_size=3)
    torch.nn.init.normal_(attention.attention_biases)
    x = torch.randn(5, 9, 8)
    qkv = attention.qkv(attention.norm(x)).view(5, 9, 2, 12)
    q, k, v = (part.permute(0, 2, 1, 3) for part in qkv.split(4, dim=3))
    scores = q @ k.transpose(-2, -1) / 2 + attention.attention_biases[:, attention.bias_index]
    wanted = attention.proj((scores.softmax(-1) @ v).transpose(1, 2).reshape(5, 9, 8))
    assert torch.allclose(attention(x), wanted, atol=1e-6)


def test_tiny_is_small_and_gives_at_least_128_squared_logits() -> None:
    with torch.device("meta"):
        sam = build_sam("tiny")
    assert sum(tensor.numel() for tensor in sam.state_dict().values()) < 5_000_000
    assert sam.config.logits_size >= 128
    assert sam.config.embedding_grid == 32


def test_every_weight_learns(small_sam: Sam) -> None:
    small_sam.zero_grad()
    embedding = small_sam.image_encoder(torch.randn(1, 3, 128, 128))
    masks = torch.randn(2, 1, 32, 32)
    points = torch.tensor([[[3.0, 4.0]], [[9.0, 2.0]]]), torch.tensor([[1.0], [0.0]])
    total = torch.zeros(())
    for boxes, mask_input in ((None, masks), (torch.tensor([[1.0, 2, 30, 40]] * 2), None)):
        sparse, dense = small_sam.prompt_encoder(points, boxes, mask_input)
        pe = small_sam.prompt_encoder.get_dense_pe()
        logits, scores = small_sam.mask_decoder.predict_masks(embedding, pe, sparse, dense)
        total = total + logits.square().sum() + scores.square().sum()
    total.backward()
    assert [name for name, weight in small_sam.named_parameters() if weight.grad is None] == []
    small_sam.zero_grad()
