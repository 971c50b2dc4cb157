"""A checkpoint of anyone's -> what a model version is made of: safetensors with a card, and the decoder."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from engine.errors import BadInput
from engine.modeling.architecture import architecture_of, check_architecture
from engine.modeling.checkpoint import (
    checkpoint_bytes,
    explains_itself,
    load_state,
    read_header,
    read_state,
)
from engine.modeling.onnx import export_decoder
from engine.modeling.registry import build_sam
from engine.modeling.sam_config import SamConfig


@dataclass(frozen=True)
class Checkpoint:
    """A file that was found to be a whole SAM; `is_ours` when its own header says so."""

    path: Path
    config: SamConfig
    state: Mapping[str, Tensor]
    is_ours: bool


@dataclass(frozen=True)
class Converted:
    """Two files, ready to be stored."""

    weights: bytes
    decoder: bytes


def read_checkpoint(path: Path) -> Checkpoint:
    """A checkpoint of anyone's, its architecture read from the file.

    Raises BadInput where the file is no SAM, or not a whole one; needs no memory for weights that do not fit.
    """
    state, is_ours = read_state(path), explains_itself(path)
    config = read_header(path)[0] if is_ours else architecture_of(state, str(path))
    check_architecture(config, state, str(path))
    _refuse_not_finite(state, str(path))
    return Checkpoint(path, config, state, is_ours)


def convert(checkpoint: Checkpoint, source_sha256: str) -> Converted:
    """Weights and exported decoder of a checkpoint.

    Numbers stay as they are, bit for bit and in their type; a file of ours stays whole. The card of any other
    keeps `source_sha256`, the digest of the file it came from. Takes about four times the file's size in
    memory, the mapped file counted in.
    """
    sam = build_sam(checkpoint.config)
    load_state(sam, checkpoint.state, str(checkpoint.path))
    decoder = export_decoder(sam)
    # The model has as many bytes as the file that is now made of the state.
    del sam
    if checkpoint.is_ours:
        return Converted(checkpoint.path.read_bytes(), decoder)
    card = {"source_sha256": source_sha256}
    return Converted(checkpoint_bytes(checkpoint.state, checkpoint.config, card), decoder)


def _refuse_not_finite(state: Mapping[str, Tensor], source: str) -> None:
    broken = [key for key, tensor in state.items() if not torch.isfinite(tensor).all()]
    if broken:
        raise BadInput(
            f"{source} holds NaN or infinite weights in {len(broken)} tensors, the first is {broken[0]}: "
            "it is damaged, or its training diverged"
        )
