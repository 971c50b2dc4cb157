"""What a simulated annotator has in mind: the true masks of each picture. Held in memory, never stored."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import PurePosixPath

import numpy as np
from numpy.typing import NDArray

from engine.errors import NotFound
from engine.geometry.rle import Rle, area, bbox_xywh, decode


@dataclass(frozen=True)
class Truth:
    """True masks by the name of their picture's file."""

    masks: Mapping[str, Sequence[Rle]]

    def of(self, name: str) -> Sequence[Rle]:
        """The masks of the picture imported under this name, or whose last part it is; maybe none."""
        return self.masks.get(name) or self.masks.get(PurePosixPath(name).name) or ()

    def check_covers(self, names: Mapping[int, str]) -> None:
        """Raises NotFound when not one of these pictures (id -> name) is in the file."""
        if not any(self.of(name) for name in names.values()):
            raise NotFound("the truth file names no picture of this dataset: give the file they came with")


def draw_masks(
    truth: Truth, names: Mapping[int, str], *, n_masks: int, min_area_px: int, seed: int
) -> dict[int, list[Rle]]:
    """At most `n_masks` true masks of at least that size on these pictures (id -> name), drawn by `seed`.

    The same arguments give the same masks, so that model versions can be compared on them.
    """
    found = [(id, rle) for id in sorted(names) for rle in truth.of(names[id]) if area(rle) >= min_area_px]
    rng = np.random.default_rng(seed)
    kept = sorted(rng.choice(len(found), min(n_masks, len(found)), replace=False)) if found else []
    drawn: dict[int, list[Rle]] = {}
    for position in kept:
        image_id, rle = found[int(position)]
        drawn.setdefault(image_id, []).append(rle)
    return drawn


def by_prominence(pixels: NDArray[np.uint8], rles: Sequence[Rle]) -> list[int]:
    """Numbers of the masks of a picture (H, W, 3), what stands out most first: size x contrast.

    The paper's annotators work "in order of prominence" (section 4).
    """
    scores = [area(rle) * _contrast(pixels, rle) for rle in rles]
    return sorted(range(len(rles)), key=lambda number: -scores[number])


def _contrast(pixels: NDArray[np.uint8], rle: Rle) -> float:
    """How far the mask's mean colour is from that of its surroundings: its box, a quarter wider each way."""
    x, y, width, height = bbox_xywh(rle)
    wider, taller = width // 4 + 2, height // 4 + 2
    around = slice(max(0, y - taller), y + height + taller), slice(max(0, x - wider), x + width + wider)
    mask, colours = decode(rle)[around], pixels[around].astype(float)
    if mask.all() or not mask.any():
        return 0.0
    return float(np.abs(colours[mask].mean(axis=0) - colours[~mask].mean(axis=0)).mean())
