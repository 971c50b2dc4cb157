"""How weights move: AdamW with layer-wise decay of the rate, warm-up, and a fall of the rate (appendix A)."""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import TYPE_CHECKING

import torch
from torch import nn

from engine.modeling.image_encoder import ImageEncoderViT
from engine.modeling.sam import Sam

if TYPE_CHECKING:
    from engine.training.trainer import TrainConfig


def make_optimizer(sam: Sam, head: nn.Module, config: TrainConfig) -> torch.optim.Optimizer:
    """AdamW over the encoder, layer by layer, and the rest; none of them decays vectors.

    `lr_scale` of each group is what its rate is multiplied by: `encoder_lr_scale` at the encoder's neck, and
    `layer_decay` less with every layer towards the pixels, which hold what is known longest.
    """
    others = [*sam.prompt_encoder.parameters(), *sam.mask_decoder.parameters(), *head.parameters()]
    scaled = [*_encoder_layers(sam.image_encoder, config), (others, 1.0)]
    groups = []
    for parameters, scale in scaled:
        for is_matrix, decay in ((True, config.weight_decay), (False, 0.0)):
            members = [p for p in parameters if (p.ndim > 1) == is_matrix]
            groups.append({"params": members, "weight_decay": decay, "lr_scale": scale})
    return torch.optim.AdamW(groups, lr=config.lr, betas=(0.9, 0.999))


def _encoder_layers(encoder: nn.Module, config: TrainConfig) -> Iterator[tuple[list[nn.Parameter], float]]:
    if config.layer_decay == 1.0:
        yield list(encoder.parameters()), config.encoder_lr_scale
        return
    layers = layers_of(encoder)
    for depth, layer in enumerate(layers):
        yield layer, config.encoder_lr_scale * config.layer_decay ** (len(layers) - 1 - depth)


def layers_of(encoder: nn.Module) -> list[list[nn.Parameter]]:
    """The encoder's parameters from the pixels to the neck: patches, one entry per block, the rest. A merge
    between two resolutions belongs to the block before it."""
    if isinstance(encoder, ImageEncoderViT):
        blocks = [list(block.parameters()) for block in encoder.blocks]
        first = [*encoder.patch_embed.parameters(), encoder.pos_embed]
    else:
        blocks = []
        for layer in encoder.get_submodule("layers").children():
            blocks += [list(block.parameters()) for block in layer.get_submodule("blocks").children()]
            merge = getattr(layer, "downsample", None)
            blocks[-1] += [] if merge is None else list(merge.parameters())
        first = list(encoder.get_submodule("patch_embed").parameters())
    known = {id(p) for layer in (first, *blocks) for p in layer}
    return [first, *blocks, [p for p in encoder.parameters() if id(p) not in known]]


def learning_rate(step: int, planned_steps: int, config: TrainConfig) -> float:
    """Linear warm-up, then the paper's steps: a tenth after each share of the run in `lr_drops`. Without
    these constant, then a cosine fall to a fiftieth over the last `cooldown_share`."""
    warm = min(1.0, (step + 1) / max(1, min(config.warmup_steps, planned_steps // 4)))
    if config.lr_drops:
        n_drops = sum(step >= share * planned_steps for share in config.lr_drops)
        return float(config.lr * warm * 0.1**n_drops)
    cooldown = max(1, int(planned_steps * config.cooldown_share))
    done = max(0.0, (step - (planned_steps - cooldown)) / cooldown)
    return config.lr * warm * (0.02 + 0.98 * 0.5 * (1 + math.cos(math.pi * min(1.0, done))))
