"""Models by name: the official sizes, MobileSAM, our tiny one, or any config."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import Any

import torch

from engine.errors import BadInput
from engine.modeling.architecture import config_of
from engine.modeling.checkpoint import load_state, read_state
from engine.modeling.sam import Sam, assemble
from engine.modeling.sam_config import CONFIGS, SamConfig

__all__ = ["CONFIGS", "SamConfig", "build_sam", "resolve_config", "sam_model_registry"]


def build_sam(
    name_or_config: str | SamConfig | Mapping[str, Any] | None = None,
    checkpoint: str | Path | None = None,
    seed: int | None = None,
) -> Sam:
    """A Sam in evaluation mode: "vit_b", "vit_l", "vit_h", "mobile", "tiny", a SamConfig or its dictionary.

    With `checkpoint` official or own weights are loaded, strictly; without a name the file says what it is:
    ours in its header, an official one by its keys. `seed` makes random weights repeatable and leaves torch's
    global generator untouched. Raises BadInput for an unknown name or weights that do not fit, Unavailable
    for a missing file.
    """
    sam = _seeded(resolve_config(name_or_config, checkpoint), seed)
    if checkpoint is not None:
        load_state(sam, read_state(checkpoint), source=str(checkpoint))
    return sam.eval()


def resolve_config(
    name_or_config: str | SamConfig | Mapping[str, Any] | None, checkpoint: str | Path | None = None
) -> SamConfig:
    """The sizes meant by a name, a config, its dictionary, or a checkpoint."""
    if isinstance(name_or_config, SamConfig):
        return name_or_config
    if isinstance(name_or_config, Mapping):
        return SamConfig.from_dict(name_or_config)
    if name_or_config is None and checkpoint is not None:
        return config_of(checkpoint)
    if name_or_config not in CONFIGS:
        raise BadInput(f"no model is named {name_or_config!r}; choose one of {', '.join(CONFIGS)}")
    return CONFIGS[name_or_config]


def _seeded(config: SamConfig, seed: int | None) -> Sam:
    if seed is None:
        return assemble(config)
    # Weights drawn here must not shift a trainer's own random stream.
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return assemble(config)


# The official names and call: sam_model_registry["vit_b"](checkpoint="sam_vit_b_01ec64.pth"); vit_t is how
# MobileSAM's own registry names it.
sam_model_registry: dict[str, Callable[..., Sam]] = {
    "default": partial(build_sam, "vit_h"),
    "vit_t": partial(build_sam, "mobile"),
    **{name: partial(build_sam, name) for name in CONFIGS},
}
