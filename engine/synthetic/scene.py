"""A generated scene: one picture and every visible region in it, the same for the same seed."""

import zlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np
from numpy.random import Generator
from numpy.typing import NDArray

from engine.errors import BadInput
from engine.synthetic.camera import GENTLE, Camera, develop
from engine.synthetic.canvas import Canvas, SceneMask
from engine.synthetic.themes import garden, microscope, mosaic, still_life

MIN_SIDE_PX = 32


@dataclass(frozen=True)
class Scene:
    """`image` (H, W, 3) uint8 RGB; `masks`: each whole followed by its parts, farthest whole first."""

    image: NDArray[np.uint8]
    masks: list[SceneMask]


@dataclass(frozen=True)
class _Theme:
    paint: Callable[[Canvas, Generator], None]
    camera: Camera


_BY_NAME: dict[str, _Theme] = {
    "still_life": _Theme(still_life.paint, Camera()),
    "mosaic": _Theme(mosaic.paint, Camera()),
    "microscope": _Theme(microscope.paint, Camera(fade=0.3, vignette=0.25, gamma=0.15, jpeg=0.3)),
    "garden": _Theme(garden.paint, GENTLE),
}
THEMES: tuple[str, ...] = tuple(_BY_NAME)


def draw_scene(seed: int, *, size_hw: tuple[int, int] = (512, 512), theme: str = "still_life") -> Scene:
    """Draw the scene of this seed, size and theme.

    Raises BadInput for an unknown theme, a negative seed or a side under 32 px.
    """
    if theme not in _BY_NAME:
        raise BadInput(f"no theme called {theme!r}: choose one of {', '.join(THEMES)}")
    if seed < 0 or min(size_hw) < MIN_SIDE_PX:
        raise BadInput(f"a scene needs a seed of at least 0 and sides of at least {MIN_SIDE_PX} px")
    rng = np.random.default_rng([seed, zlib.crc32(theme.encode())])
    canvas = Canvas(size_hw)
    _BY_NAME[theme].paint(canvas, rng)
    return Scene(develop(canvas.rgb, rng, _BY_NAME[theme].camera), canvas.masks())


def scene_seed(seed: int, index: int) -> int:
    """The seed of picture `index` of data set `seed`: any picture can be drawn without those before it."""
    return int(np.random.SeedSequence([seed, index]).generate_state(1, np.uint64)[0])


def draw_dataset(
    seed: int,
    n: int,
    *,
    size_hw: tuple[int, int] = (512, 512),
    themes: tuple[str, ...] = ("still_life",),
    start: int = 0,
) -> Iterator[Scene]:
    """Pictures `start` to `start + n - 1` of data set `seed`, the themes taking turns."""
    for index in range(start, start + n):
        yield draw_scene(scene_seed(seed, index), size_hw=size_hw, theme=themes[index % len(themes)])
