"""Models kept loaded between jobs of one process."""

from collections.abc import Iterator
from contextlib import contextmanager
from functools import lru_cache
from pathlib import Path

import torch

from engine.modeling.registry import build_sam
from engine.modeling.sam import Sam


def load_model(weights: Path, device: str = "cpu") -> Sam:
    """The model of a weights blob on a torch device, ready to evaluate; the file's name is its digest, so it
    is never stale."""
    return _loaded(weights, device)


@contextmanager
def model_on(weights: Path, device: str) -> Iterator[Sam]:
    """`load_model` for the length of one job: what it computed with is given back to the device afterwards,
    and only the weights stay. A job that finds no device free lets go of the weights as well: a training has
    taken the device and may need all of its memory."""
    if device == "cpu" and _has_used_cuda():
        _loaded.cache_clear()
    try:
        yield load_model(weights, device)
    finally:
        # torch keeps freed memory for itself unless it is told that others need it.
        if _has_used_cuda():
            torch.cuda.empty_cache()


def _has_used_cuda() -> bool:
    return bool(torch.cuda.is_initialized())  # type: ignore[no-untyped-call]


@lru_cache(maxsize=2)
def _loaded(weights: Path, device: str) -> Sam:
    return build_sam(checkpoint=weights).to(device)
