"""The paper's optimizer: rates fall by tenths at its steps, and towards the pixels by layer."""

from dataclasses import replace

import pytest
import torch
from torch import nn

from engine.errors import BadInput
from engine.modeling.checkpoint import save_checkpoint
from engine.modeling.layers import ResidualBlock, set_drop_path
from engine.modeling.registry import build_sam
from engine.modeling.sam_config import SamConfig, VitConfig
from engine.training.optimizer import layers_of, learning_rate, make_optimizer
from engine.training.trainer import TrainConfig, begin
from tests.training.conftest import SMALL

VIT = SamConfig("small_vit", 64, VitConfig(32, 3, 2, (2,), 2), prompt_dim=32, decoder_heads=2, mlp_dim=32)


def test_rates_warm_up_and_fall_to_a_tenth_at_the_papers_steps() -> None:
    config = TrainConfig("rates", steps=90_000, lr=1.0, lr_drops=(60_000 / 90_000, 86_666 / 90_000))
    at = {step: learning_rate(step, 90_000, config) for step in (0, 249, 59_999, 60_000, 86_665, 86_666)}
    expected = {0: 1 / 250, 249: 1.0, 59_999: 1.0, 60_000: 0.1, 86_665: 0.1, 86_666: 0.01}
    assert at == pytest.approx(expected)


@pytest.mark.parametrize("sizes, n_blocks", [(VIT, 3), (SMALL, None)])
def test_every_parameter_has_one_rate_and_layers_near_the_pixels_the_lowest(
    sizes: SamConfig, n_blocks: int | None
) -> None:
    sam, head = build_sam(sizes, seed=0), nn.Linear(2, 2)
    config = TrainConfig("rates", steps=1, layer_decay=0.5, encoder_lr_scale=0.8)
    layers = layers_of(sam.image_encoder)
    if n_blocks is not None:
        assert len(layers) == n_blocks + 2
    assert all(layers)
    scales = {
        id(p): group["lr_scale"]
        for group in make_optimizer(sam, head, config).param_groups
        for p in group["params"]
    }
    members = [*sam.image_encoder.parameters(), *sam.mask_decoder.parameters()]
    members += [*sam.prompt_encoder.parameters(), *head.parameters()]
    assert scales.keys() == {id(p) for p in members}
    by_layer = [{scales[id(p)] for p in layer} for layer in layers]
    assert by_layer == [{0.8 * 0.5 ** (len(layers) - 1 - n)} for n in range(len(layers))]
    assert {scales[id(p)] for p in sam.mask_decoder.parameters()} == {1.0}


def test_vectors_do_not_decay() -> None:
    sam = build_sam(SMALL, seed=0)
    groups = make_optimizer(sam, nn.Linear(2, 2), TrainConfig("decay", steps=1)).param_groups
    assert all((group["weight_decay"] == 0.1) == (p.ndim > 1) for group in groups for p in group["params"])


@pytest.mark.parametrize("sizes", [VIT, SMALL])
def test_branches_are_dropped_by_example_in_training_alone_and_keep_their_mean(sizes: SamConfig) -> None:
    encoder = build_sam(sizes, seed=0).image_encoder
    set_drop_path(encoder, 0.4)
    blocks = [module for module in encoder.modules() if isinstance(module, ResidualBlock)]
    assert [block.drop_path for block in blocks] == pytest.approx(
        [0.4 * n / (len(blocks) - 1) for n in range(len(blocks))]
    )
    last, branch = blocks[-1], torch.ones(4000, 3)
    last.train()
    torch.manual_seed(0)
    kept = last.kept(branch)
    # A whole example is dropped or scaled up.
    assert sorted(kept.unique().tolist()) == pytest.approx([0.0, 1 / 0.6])
    assert (kept == kept[:, :1]).all() and kept.mean().item() == pytest.approx(1.0, abs=0.05)
    last.eval()
    assert last.kept(branch) is branch
    image = torch.randn(1, 3, sizes.img_size, sizes.img_size)
    encoder.eval()
    with torch.no_grad():
        quiet = encoder(image)
        set_drop_path(encoder, 0.0)
        assert torch.equal(encoder(image), quiet)


def test_the_generators_recipe_grows_a_third_decoder_layer(quick: TrainConfig, tmp_path) -> None:
    config = replace(quick, decoder_depth=3)
    run = begin(config, None, tmp_path / "run", SMALL.to_dict())
    assert run.sam.config.decoder_depth == 3 and len(run.sam.mask_decoder.transformer.layers) == 3
    start = save_checkpoint(tmp_path / "two.safetensors", build_sam(SMALL, seed=0).state_dict(), SMALL)
    with pytest.raises(BadInput, match="decoder of 3 layers"):
        begin(config, start, tmp_path / "other")
