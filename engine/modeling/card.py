"""The card inside a weights file: config and free metadata from the safetensors header. Imports no torch."""

from __future__ import annotations

import json

from engine.errors import BadInput
from engine.modeling.sam_config import SamConfig

_LENGTH_BYTES = 8
_LONGEST_HEADER = 100_000_000


def read_card(content: bytes) -> tuple[SamConfig, dict[str, str]]:
    """Config and metadata of a checkpoint that `save_checkpoint` wrote, from its bytes or their beginning.

    The header is 8 bytes of little-endian length and that much JSON (safetensors format page). Raises
    BadInput for anything else.
    """
    length = int.from_bytes(content[:_LENGTH_BYTES], "little")
    if len(content) < _LENGTH_BYTES or not 2 <= length <= min(_LONGEST_HEADER, len(content) - _LENGTH_BYTES):
        raise BadInput("the weights are not a whole safetensors file: export or copy them again")
    try:
        header = json.loads(content[_LENGTH_BYTES : _LENGTH_BYTES + length])
        metadata = dict(header.get("__metadata__") or {})
        config = SamConfig.from_dict(json.loads(metadata.pop("config")))
    except (ValueError, KeyError, AttributeError):
        raise BadInput("the weights carry no model config: import a checkpoint that Maskloop wrote") from None
    metadata.pop("format", None)
    return config, metadata
