"""Models kept loaded between jobs of one process."""

from functools import lru_cache
from pathlib import Path

from engine.modeling.registry import build_sam
from engine.modeling.sam import Sam


@lru_cache(maxsize=2)
def load_model(weights: Path) -> Sam:
    """The model of a weights blob, ready to evaluate; the file's name is its digest, so it is never stale."""
    return build_sam(checkpoint=weights)
