"""The resumable state of a run: one safetensors file, replaced atomically, no pickle.

Names inside: `model.*` and `ema.*` are state dictionaries, `adam.KIND.INDEX` the optimizer's moments in
parameter order, and the header's `progress` a JSON object (step, plan, seconds, configuration).
Batches and noise are functions of (seed, step), so the step number is the whole random state.
"""

import json
import os
from pathlib import Path
from typing import Any

import torch
from safetensors import safe_open
from safetensors.torch import save
from torch import Tensor, nn

from engine.errors import BadInput

STATE_NAME = "state.safetensors"


def replace_file(path: Path, content: bytes) -> None:
    """Writes beside `path`, syncs, renames: a reader sees the old file or the new one, never a part."""
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    with open(temporary, "wb") as stream:
        stream.write(content)
        stream.flush()
        os.fsync(stream.fileno())
    os.replace(temporary, path)


def pack(model: nn.Module, ema: dict[str, Tensor], optimizer: torch.optim.Optimizer) -> dict[str, Tensor]:
    """All tensors of a run under one flat set of names."""
    tensors = {f"model.{name}": value for name, value in model.state_dict().items()}
    tensors |= {f"ema.{name}": value for name, value in ema.items()}
    for index, moments in optimizer.state_dict()["state"].items():
        tensors |= {f"adam.{kind}.{index}": value for kind, value in moments.items()}
    return {name: value.detach().clone().contiguous() for name, value in tensors.items()}


def save_state(folder: Path, tensors: dict[str, Tensor], progress: dict[str, Any]) -> None:
    """Replaces the state file of `folder`."""
    replace_file(folder / STATE_NAME, save(tensors, {"progress": json.dumps(progress, sort_keys=True)}))


def load_state(folder: Path) -> tuple[dict[str, Tensor], dict[str, Any]] | None:
    """Tensors and progress of the last saved state, or None where no run has been saved."""
    path = folder / STATE_NAME
    if not path.is_file():
        return None
    with safe_open(path, framework="pt") as stream:
        progress = json.loads((stream.metadata() or {}).get("progress", "null"))
        tensors = {name: stream.get_tensor(name) for name in stream.keys()}
    if not isinstance(progress, dict):
        raise BadInput(f"{path} is not the state of a training run: remove it to begin anew")
    return tensors, progress


def unpack(
    tensors: dict[str, Tensor], model: nn.Module, optimizer: torch.optim.Optimizer
) -> dict[str, Tensor]:
    """Restores model and optimizer in place; returns the averaged weights."""
    model.load_state_dict(chosen(tensors, "model."))
    moments: dict[int, dict[str, Tensor]] = {}
    for name, value in chosen(tensors, "adam.").items():
        kind, index = name.rsplit(".", 1)
        moments.setdefault(int(index), {})[kind] = value
    optimizer.load_state_dict({"state": moments, "param_groups": optimizer.state_dict()["param_groups"]})
    return chosen(tensors, "ema.")


def chosen(tensors: dict[str, Tensor], prefix: str) -> dict[str, Tensor]:
    """The tensors whose names begin with `prefix`, without it."""
    return {name.removeprefix(prefix): value for name, value in tensors.items() if name.startswith(prefix)}
