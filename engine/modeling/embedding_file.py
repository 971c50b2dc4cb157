"""An image embedding as a safetensors file that says whose it is. No torch: the web process reads it."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save

from engine.errors import BadInput, Unavailable

_NAME = "image_embedding"


def pack_embedding(
    image_embedding: NDArray[np.float32], dtype: str, *, image_sha256: str, weights_sha256: str
) -> bytes:
    """(C, g, g) as `dtype`, with the digests of the pixels and the weights it was made of in the header."""
    stored = np.ascontiguousarray(image_embedding.astype(np.dtype(dtype)))
    return save({_NAME: stored}, metadata={"image_sha256": image_sha256, "weights_sha256": weights_sha256})


def parents_of(content: bytes) -> tuple[str | None, str | None]:
    """(pixels, weights): the digests in the header of an embedding's bytes. BadInput for anything else."""
    length = int.from_bytes(content[:8], "little")
    try:
        made_of = dict(json.loads(content[8 : 8 + length])["__metadata__"])
    except (ValueError, KeyError, TypeError):
        raise BadInput("the embedding is no safetensors file that says whose it is") from None
    return made_of.get("image_sha256"), made_of.get("weights_sha256")


def read_embedding(path: Path, *, weights_sha256: str) -> NDArray[np.float32]:
    """(C, g, g) float32. Raises Unavailable for a broken file or one of other weights: masks would lie."""
    try:
        with safe_open(path, framework="numpy") as file:
            made_with = (file.metadata() or {}).get("weights_sha256")
            image_embedding = file.get_tensor(_NAME)
    except (SafetensorError, OSError) as error:
        raise Unavailable(f"the embedding {path.name} cannot be read: embed the image again") from error
    if made_with != weights_sha256:
        raise Unavailable(f"the embedding {path.name} was made by another model: embed the image again")
    return np.asarray(image_embedding, dtype=np.float32)
