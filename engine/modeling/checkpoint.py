"""Weights on disk: our safetensors files that explain themselves, and official .pth state dictionaries."""

from __future__ import annotations

import json
import os
import pickle
from collections.abc import Mapping
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save as serialize
from torch import Tensor, nn

from engine.errors import BadInput, Unavailable
from engine.modeling.sam_config import SamConfig

FORMAT = "maskloop-sam-1"
_RESERVED = ("format", "config")
_LISTED_KEYS = 8


def save_checkpoint(
    path: str | Path,
    state: Mapping[str, Tensor],
    config: SamConfig,
    metadata: Mapping[str, str] | None = None,
    dtype: torch.dtype | None = None,
) -> Path:
    """Writes a safetensors file whose header holds the config as JSON and `metadata`, all strings.

    With `dtype` (torch.float16 for a small file) floating-point tensors are stored in it; loading casts back.
    Appears whole or not at all: temporary name, fsync, rename. Raises BadInput on a reserved metadata name.
    """
    taken = sorted(set(metadata or {}) & set(_RESERVED))
    if taken:
        raise BadInput(f"metadata may not use the names {', '.join(taken)}")
    header = {**(metadata or {}), "format": FORMAT, "config": json.dumps(config.to_dict(), sort_keys=True)}
    tensors = {key: _stored(tensor, dtype) for key, tensor in state.items()}
    return write_atomically(Path(path), _in_order(serialize(tensors, metadata=header)))


def _in_order(content: bytes) -> bytes:
    """The same file with its metadata sorted: safetensors writes them in an order that differs by process,
    and files are known by their digest. The header is padded to 8 bytes, as the format wants."""
    length = int.from_bytes(content[:8], "little")
    header = json.loads(content[8 : 8 + length])
    header["__metadata__"] = dict(sorted(header["__metadata__"].items()))
    text = json.dumps(header, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)
    return len(text).to_bytes(8, "little") + text + content[8 + length :]


def write_atomically(path: Path, content: bytes) -> Path:
    """Writes bytes so that a reader, or a crash, never sees half of them."""
    # Same folder, so that the rename stays within one file system.
    temporary = path.with_name(f".{path.name}.{os.getpid()}.part")
    try:
        with open(temporary, "wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)
    return path


def read_header(path: str | Path) -> tuple[SamConfig, dict[str, str]]:
    """Config and free metadata of one of our safetensors files, without reading its weights."""
    with _opened(Path(path)) as file:
        metadata = dict(file.metadata() or {})
    if "config" not in metadata:
        raise BadInput(f"{path} holds no model config; name its architecture, for example vit_b")
    metadata.pop("format", None)
    return SamConfig.from_dict(json.loads(metadata.pop("config"))), metadata


def read_state(path: str | Path) -> dict[str, Tensor]:
    """The state dictionary in a .safetensors or a torch file (.pth, .pt), on the CPU.

    Torch files are read with weights_only=True: no code in them runs. Raises Unavailable where there is no
    file, BadInput where it cannot be read as weights.
    """
    path = Path(path)
    if not path.is_file():
        raise Unavailable(f"no checkpoint at {path}")
    if path.suffix == ".safetensors" or _begins_like_safetensors(path):
        with _opened(path) as file:
            return {key: file.get_tensor(key) for key in file.keys()}
    try:
        # Without weights_only a checkpoint is a program that runs here.
        state = torch.load(path, map_location="cpu", weights_only=True)
    except (pickle.UnpicklingError, RuntimeError, EOFError, ValueError, KeyError) as error:
        raise BadInput(f"{path} cannot be read as a torch state dictionary: {_first_line(error)}") from error
    if not isinstance(state, dict) or not all(isinstance(value, Tensor) for value in state.values()):
        raise BadInput(f"{path} is not a plain state dictionary of tensors")
    return state


def load_state(model: nn.Module, state: Mapping[str, Tensor], source: str = "the checkpoint") -> None:
    """Copies `state` into `model`, strictly. Raises BadInput naming missing, unknown and mis-shaped keys."""
    wanted = model.state_dict()
    misshaped = [
        f"{key} {tuple(state[key].shape)} instead of {tuple(wanted[key].shape)}"
        for key in wanted
        if key in state and state[key].shape != wanted[key].shape
    ]
    # torch would say all this too, over hundreds of lines.
    complaints = [
        _listed("missing", [key for key in wanted if key not in state]),
        _listed("unknown", [key for key in state if key not in wanted]),
        _listed("wrong shape", misshaped),
    ]
    if any(complaints):
        raise BadInput(f"{source} does not fit this architecture: {'; '.join(filter(None, complaints))}")
    # Copies into the model's own dtype, so half precision files come back as float32.
    model.load_state_dict(state, strict=True)


def _stored(tensor: Tensor, dtype: torch.dtype | None) -> Tensor:
    tensor = tensor.detach().to("cpu")
    return (tensor.to(dtype) if dtype and tensor.is_floating_point() else tensor).contiguous()


def _opened(path: Path) -> safe_open:
    if not path.is_file():
        raise Unavailable(f"no checkpoint at {path}")
    try:
        return safe_open(path, framework="pt")
    except SafetensorError as error:
        raise BadInput(f"{path} is not a whole safetensors file: {_first_line(error)}") from error


def _begins_like_safetensors(path: Path) -> bool:
    """A blob's name is its digest and has no suffix; safetensors is 8 bytes of length, then JSON."""
    with open(path, "rb") as file:
        return file.read(9)[8:] == b"{"


def _listed(what: str, keys: list[str]) -> str:
    shown = ", ".join(keys[:_LISTED_KEYS])
    more = f" and {len(keys) - _LISTED_KEYS} more" if len(keys) > _LISTED_KEYS else ""
    return f"{what}: {shown}{more}" if keys else ""


def _first_line(error: Exception) -> str:
    return (str(error).splitlines() or [type(error).__name__])[0]
