"""A checkpoint's keys and shapes say which SAM it is, and what is wrong with one that is none."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from engine.errors import BadInput
from engine.modeling import build_sam
from engine.modeling.architecture import architecture_of, check_architecture, config_of
from engine.modeling.sam_config import CONFIGS
from tests.modeling.conftest import Reference

OFFICIAL = {"sam_vit_b": "vit_b", "sam_vit_l": "vit_l", "sam_vit_h": "vit_h", "mobile_sam": "mobile"}


@pytest.fixture(scope="module")
def official(shared: Path) -> dict[str, dict[str, Tensor]]:
    """The four official state dictionaries by name: every key and shape, no memory."""
    listed = json.loads((shared / "parity/official_checkpoint_keys.json").read_text())
    return {
        name: {key: torch.empty(shape, device="meta") for key, shape in listed[name].items()}
        for name in OFFICIAL
    }


@pytest.mark.parametrize("name", OFFICIAL)
def test_the_official_keys_and_shapes_are_recognised(official: dict[str, Any], name: str) -> None:
    config = architecture_of(official[name])
    assert config == CONFIGS[OFFICIAL[name]]
    check_architecture(config, official[name], name)


def test_our_own_sizes_are_recognised_too() -> None:
    with torch.device("meta"):
        state = build_sam("tiny").state_dict()
    assert architecture_of(state) == CONFIGS["tiny"]


@pytest.mark.parametrize("name", ["tiny_sam", "trained_tiny_sam"])
def test_other_sizes_in_the_official_layout_are_read_from_the_shapes(
    shared: Path, request: pytest.FixtureRequest, name: str
) -> None:
    fixture: Reference = request.getfixturevalue("untrained" if name == "tiny_sam" else "trained")
    config = config_of(shared / "parity" / f"{name}.pth")
    assert config.name.startswith("vit-") and config.name.endswith("-256px")
    assert replace(config, name=name) == fixture.sam.config


def test_a_wrong_key_list_is_told_with_counts_and_the_first_few(official: dict[str, Any]) -> None:
    state = dict(official["sam_vit_b"])
    for key in official["sam_vit_b"]:
        if key.startswith("image_encoder.blocks.") and ".mlp." in key:
            del state[key]
    state["head.weight"] = torch.empty(1, device="meta")
    state["image_encoder.neck.0.weight"] = torch.empty(9, device="meta")
    with pytest.raises(BadInput) as refused:
        check_architecture(architecture_of(state), state, "mine.pth")
    sentence = str(refused.value)
    assert sentence.startswith("mine.pth does not fit") and len(sentence) < 1000
    assert "48 missing: image_encoder.blocks.0.mlp.lin1.weight" in sentence and "and 40 more" in sentence
    assert "1 unknown: head.weight" in sentence
    assert "1 of the wrong shape: image_encoder.neck.0.weight (9,) instead of (256, 768, 1, 1)" in sentence


@pytest.mark.parametrize(
    ("key", "advice"),
    [
        ("module.image_encoder.pos_embed", "model.module.state_dict"),
        ("vision_encoder.pos_embed", "transformers library"),
        ("sam_prompt_encoder.no_mask_embed.weight", "SAM 2"),
        ("backbone.layer1.conv.weight", "is no SAM checkpoint: neither image_encoder.pos_embed"),
    ],
)
def test_the_keys_of_others_are_told_apart(key: str, advice: str) -> None:
    with pytest.raises(BadInput, match=advice):
        architecture_of({key: torch.zeros(1)}, "other.pth")


def test_sizes_that_make_no_model_are_refused() -> None:
    encoder = replace(CONFIGS["tiny"].encoder, embed_dims=(32, 64))
    with pytest.raises(BadInput, match="mine.safetensors: the sizes in it make no model"):
        check_architecture(replace(CONFIGS["tiny"], encoder=encoder), {}, "mine.safetensors")


def test_shapes_that_ask_for_an_absurd_model_are_refused_before_it_is_built() -> None:
    state = {"image_encoder.pos_embed": torch.empty(1, 64, 64, 768, device="meta")}
    state |= {"image_encoder.blocks.999999999.attn.rel_pos_h": torch.empty(27, 64, device="meta")}
    with pytest.raises(BadInput, match="depth in the model config cannot be"):
        architecture_of(state)
