"""Weights on disk: our safetensors files that explain themselves, and official .pth state dictionaries."""

from __future__ import annotations

import json
import os
import warnings
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save as serialize
from torch import Tensor, nn

from engine.errors import BadInput, Unavailable
from engine.modeling.sam_config import SamConfig

FORMAT = "maskloop-sam-1"
_RESERVED = ("format", "config")
_LISTED_KEYS = 8
# Where training scripts keep the weights when they save more than those.
_WRAPPERS = ("model", "state_dict", "model_state_dict")


def save_checkpoint(
    path: str | Path,
    state: Mapping[str, Tensor],
    config: SamConfig,
    metadata: Mapping[str, str] | None = None,
    dtype: torch.dtype | None = None,
) -> Path:
    """Writes `checkpoint_bytes` whole or not at all: temporary name, fsync, rename."""
    return write_atomically(Path(path), checkpoint_bytes(state, config, metadata, dtype))


def checkpoint_bytes(
    state: Mapping[str, Tensor],
    config: SamConfig,
    metadata: Mapping[str, str] | None = None,
    dtype: torch.dtype | None = None,
) -> bytes:
    """A safetensors file whose header holds the config as JSON and `metadata`, all strings.

    With `dtype` (torch.float16 for a small file) floating-point tensors are stored in it; loading casts back.
    Raises BadInput on a reserved metadata name.
    """
    taken = sorted(set(metadata or {}) & set(_RESERVED))
    if taken:
        raise BadInput(f"metadata may not use the names {', '.join(taken)}")
    header = {**(metadata or {}), "format": FORMAT, "config": json.dumps(config.to_dict(), sort_keys=True)}
    tensors = {key: _stored(tensor, dtype) for key, tensor in state.items()}
    return _in_order(serialize(tensors, metadata=header))


def _in_order(content: bytes) -> bytes:
    """The same file with its metadata sorted: safetensors writes them in an order that differs by process,
    and files are known by their digest. The header is padded to 8 bytes, as the format wants."""
    length = int.from_bytes(content[:8], "little")
    header = json.loads(content[8 : 8 + length])
    header["__metadata__"] = dict(sorted(header["__metadata__"].items()))
    text = json.dumps(header, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)
    # Joined in one go: the largest models have 2.5 GB, and each plus sign would copy them.
    return b"".join((len(text).to_bytes(8, "little"), text, memoryview(content)[8 + length :]))


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
    try:
        return SamConfig.from_dict(json.loads(metadata.pop("config"))), metadata
    except (ValueError, AttributeError) as error:
        raise BadInput(f"the model config in {path} is no JSON object: {error}") from error


def explains_itself(path: str | Path) -> bool:
    """Whether the file says its sizes, as every safetensors file that we wrote does."""
    if not _is_safetensors(Path(path)):
        return False
    with _opened(Path(path)) as file:
        return "config" in (file.metadata() or {})


def read_state(path: str | Path) -> dict[str, Tensor]:
    """The state dictionary in a .safetensors or a torch file (.pth, .pt), on the CPU.

    Torch files are read with weights_only=True: no code in them runs. Their tensors stay in the file until
    they are used. A training script's wrapper around the weights is taken off. Raises Unavailable where there
    is no file, BadInput where it cannot be read as weights.
    """
    path = Path(path)
    if _is_safetensors(path):
        with _opened(path) as file:
            return {key: file.get_tensor(key) for key in file.keys()}
    loaded = _load_torch(path)
    if isinstance(loaded, Mapping):
        loaded = next((loaded[name] for name in _WRAPPERS if _is_state(loaded.get(name))), loaded)
    if not _is_state(loaded):
        raise BadInput(f"{path} is not a plain state dictionary: save model.state_dict() alone")
    return dict(loaded)


def _load_torch(path: Path) -> Any:
    try:
        is_archive = zipfile.is_zipfile(path)
        if is_archive and _n_unpacked_bytes(path) > path.stat().st_size:
            # torch stores without compressing; this could be a bomb.
            raise BadInput(f"{path} is a compressed archive and no checkpoint: unpack it first")
        with warnings.catch_warnings():
            # Of a damaged file torch wonders at length about its pickle protocol.
            warnings.simplefilter("ignore")
            # Without weights_only a checkpoint is a program that runs here.
            return torch.load(path, map_location="cpu", weights_only=True, mmap=is_archive)
    except BadInput:
        raise
    except Exception as error:  # bytes of anyone: they break the readers wherever they like
        raise BadInput(f"{path} cannot be read as weights: {_diagnosis(error)}") from error


def _n_unpacked_bytes(path: Path) -> int:
    with zipfile.ZipFile(path) as archive:
        return sum(entry.file_size for entry in archive.infolist())


def _diagnosis(error: Exception) -> str:
    """torch's page of advice, part of it dangerous, as what is the matter and what to do."""
    if "Unsupported global" in str(error) or "Unsupported class" in str(error):
        return "it holds code beside the tensors, which is never run; save model.state_dict() alone"
    if "Unsupported operand" in str(error):
        return "it is no torch file; the download may have stored a web page, so fetch it again"
    return f"it is damaged or cut off, so fetch or copy it again ({_first_line(error).split('. ')[0]})"


def _is_state(loaded: object) -> bool:
    if not isinstance(loaded, Mapping) or not loaded:
        return False
    return all(isinstance(key, str) and isinstance(value, Tensor) for key, value in loaded.items())


def load_state(model: nn.Module, state: Mapping[str, Tensor], source: str = "the checkpoint") -> None:
    """Copies `state` into `model`, strictly. Raises BadInput naming missing, unknown and mis-shaped keys."""
    check_fits(model, state, source)
    # Copies into the model's own dtype, so half precision files come back as float32.
    model.load_state_dict(state, strict=True)


def check_fits(model: nn.Module, state: Mapping[str, Tensor], source: str) -> None:
    """Raises BadInput unless `state` has the model's keys and shapes; the model may be without memory."""
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
        _listed("of the wrong shape", misshaped),
    ]
    if any(complaints):
        raise BadInput(f"{source} does not fit this architecture: {'; '.join(filter(None, complaints))}")


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


def _is_safetensors(path: Path) -> bool:
    """By name or content: a blob's name is its digest; safetensors is 8 bytes of length, then JSON."""
    if not path.is_file():
        raise Unavailable(f"no checkpoint at {path}")
    with open(path, "rb") as file:
        return path.suffix == ".safetensors" or file.read(9)[8:] == b"{"


def _listed(what: str, keys: list[str]) -> str:
    shown = ", ".join(keys[:_LISTED_KEYS])
    more = f" and {len(keys) - _LISTED_KEYS} more" if len(keys) > _LISTED_KEYS else ""
    return f"{len(keys)} {what}: {shown}{more}" if keys else ""


def _first_line(error: Exception) -> str:
    return (str(error).splitlines() or [type(error).__name__])[0]
