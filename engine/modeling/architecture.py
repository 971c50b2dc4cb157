"""Which SAM a checkpoint is. Our own files say it; of an official .pth it is read from keys and shapes."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import torch
from torch import Tensor

from engine.errors import BadInput
from engine.modeling.checkpoint import check_fits, explains_itself, read_header, read_state
from engine.modeling.sam import assemble
from engine.modeling.sam_config import CONFIGS, STRIDE_PX, SamConfig, TinyVitConfig, VitConfig

_POS_EMBED = "image_encoder.pos_embed"
_TINY_STEM = "image_encoder.patch_embed.seq.0.c.weight"
_REL_POS = re.compile(r"image_encoder\.blocks\.(\d+)\.attn\.rel_pos_h")
_LAYER = re.compile(r"mask_decoder\.transformer\.layers\.(\d+)\.")

# How the keys of others begin, and what may be done about it.
_FOREIGN = {
    "module.": "it was saved from a DataParallel wrapper: save model.module.state_dict() instead",
    "vision_encoder.": "it is named as the transformers library names SAM: take the published .pth file",
    "sam_prompt_encoder.": "it is a SAM 2, which is another architecture: take a SAM checkpoint",
}


def config_of(path: str | Path) -> SamConfig:
    """The sizes of the model in a file; of a file that does not say them, by its keys.

    Raises Unavailable where there is no file, BadInput where it holds no SAM.
    """
    if explains_itself(path):
        return read_header(path)[0]
    return architecture_of(read_state(path), str(path))


def architecture_of(state: Mapping[str, Tensor], source: str = "the checkpoint") -> SamConfig:
    """The sizes that a state dictionary in the official key layout has: one of CONFIGS where they equal it.

    A ViT of other sizes (a smaller input, fewer blocks) is read from its shapes; what they do not tell, the
    decoder's 8 heads and the normalisation of pixels, is taken as in every published SAM. Raises BadInput for
    anything that is no SAM.
    """
    if _POS_EMBED in state and state[_POS_EMBED].dim() == 4:
        # Through its dictionary, which refuses sizes that nobody means: these come out of a file of anyone.
        return _named(SamConfig.from_dict(_vit(state).to_dict()))
    if _TINY_STEM in state:
        return _tiny_vit(state, source)
    for beginning, advice in _FOREIGN.items():
        if any(key.startswith(beginning) for key in state):
            raise BadInput(f"{source} does not have the keys of a SAM: {advice}")
    raise BadInput(
        f"{source} is no SAM checkpoint: neither {_POS_EMBED} (ViT-B, L, H) nor {_TINY_STEM} (MobileSAM) "
        f"is among its {len(state)} keys ({', '.join(list(state)[:3])}, ...)"
    )


def check_architecture(config: SamConfig, state: Mapping[str, Tensor], source: str) -> None:
    """Raises BadInput naming missing, unknown and mis-shaped keys; needs no memory for the weights."""
    try:
        with torch.device("meta"):
            sam = assemble(config)
    except (ValueError, TypeError, IndexError, RuntimeError) as error:
        raise BadInput(f"{source}: the sizes in it make no model ({error})") from error
    check_fits(sam, state, source)


def _vit(state: Mapping[str, Tensor]) -> SamConfig:
    """Where a key is missing the official size stands in for it: the comparison of keys then names it."""
    _, grid, _, embed_dim = state[_POS_EMBED].shape
    rel_pos = {int(found[1]): state[key].shape for key in state if (found := _REL_POS.fullmatch(key))}
    sides = {index: (shape[0] + 1) // 2 for index, shape in sorted(rel_pos.items())}
    head_dim, depth = next((shape[-1] for shape in rel_pos.values()), 64), max(sides, default=-1) + 1
    encoder = VitConfig(
        embed_dim=embed_dim,
        depth=depth,
        num_heads=max(1, embed_dim // max(1, head_dim)),
        # A block that attends over all of the grid has relative positions for all of it.
        global_attn_indexes=tuple(index for index, side in sides.items() if side == grid),
        window_size=next((side for side in sides.values() if side != grid), VitConfig.window_size),
    )
    layers = {found[1] for key in state if (found := _LAYER.match(key))}
    return SamConfig(
        name=f"vit-{embed_dim}x{depth}-{grid * STRIDE_PX}px",
        img_size=grid * STRIDE_PX,
        encoder=encoder,
        prompt_dim=_size(state, "prompt_encoder.no_mask_embed.weight", 1, SamConfig.prompt_dim),
        mlp_dim=_size(state, "mask_decoder.transformer.layers.0.mlp.lin1.weight", 0, SamConfig.mlp_dim),
        iou_hidden=_size(state, "mask_decoder.iou_prediction_head.layers.0.weight", 0, SamConfig.iou_hidden),
        decoder_depth=len(layers) or SamConfig.decoder_depth,
        num_multimask_outputs=_size(state, "mask_decoder.mask_tokens.weight", 0, 4) - 1,
        mask_in_chans=_size(state, "prompt_encoder.mask_downscaling.3.weight", 0, SamConfig.mask_in_chans),
    )


def _tiny_vit(state: Mapping[str, Tensor], source: str) -> SamConfig:
    """Window sizes of a TinyViT do not show in its shapes, so only the known ones are taken."""
    for config in CONFIGS.values():
        # The stem halves the first width; see tiny_vit.PatchEmbed.
        if isinstance(config.encoder, TinyVitConfig):
            if state[_TINY_STEM].shape[0] == config.encoder.embed_dims[0] // 2:
                return config
    raise BadInput(
        f"{source} is a TinyViT of sizes that no known model has: import a .safetensors that says its sizes"
    )


def _named(found: SamConfig) -> SamConfig:
    return next((known for known in CONFIGS.values() if replace(found, name=known.name) == known), found)


def _size(state: Mapping[str, Tensor], key: str, axis: int, official: int) -> int:
    return int(state[key].shape[axis]) if key in state and state[key].dim() > axis else official
