"""Named colours, palettes, and the finish of an object: what a caption says and what a painter needs."""

from dataclasses import dataclass, replace

import numpy as np
from numpy.random import Generator

from engine.synthetic.fields import Plane, clamp

Rgb = Plane

NAMED: dict[str, tuple[float, float, float]] = {
    "red": (0.78, 0.13, 0.12), "orange": (0.92, 0.48, 0.10), "yellow": (0.93, 0.79, 0.20),
    "green": (0.22, 0.55, 0.22), "olive": (0.45, 0.46, 0.18), "teal": (0.10, 0.50, 0.50),
    "blue": (0.16, 0.33, 0.72), "navy": (0.10, 0.14, 0.34), "sky blue": (0.50, 0.72, 0.90),
    "purple": (0.46, 0.22, 0.60), "pink": (0.92, 0.55, 0.66), "brown": (0.42, 0.26, 0.15),
    "tan": (0.76, 0.62, 0.44), "cream": (0.93, 0.88, 0.75), "white": (0.92, 0.92, 0.91),
    "grey": (0.52, 0.52, 0.53), "charcoal": (0.20, 0.20, 0.22), "black": (0.07, 0.07, 0.08),
}  # fmt: skip
COLOURS = tuple(NAMED)


def jittered(rng: Generator, name: str, spread: float = 0.05) -> Rgb:
    """A near neighbour (3,) of a named colour; the name still fits."""
    brightness = np.float32(rng.uniform(0.85, 1.12))
    shift = rng.normal(0, spread, 3)
    return np.clip(np.asarray(NAMED[name]) * brightness + shift, 0.02, 0.98).astype(np.float32)


@dataclass(frozen=True)
class Palette:
    """The colours a scene draws from: few in a quiet scene, all of them in a loud one."""

    names: tuple[str, ...]

    @staticmethod
    def draw(rng: Generator) -> "Palette":
        """Between two and all of the named colours."""
        n_colours = len(COLOURS) if rng.random() < 0.4 else int(rng.integers(2, 8))
        return Palette(tuple(str(name) for name in rng.choice(COLOURS, n_colours, replace=False)))

    def pick(self, rng: Generator) -> str:
        """One colour name."""
        return self.names[int(rng.integers(len(self.names)))]


@dataclass(frozen=True)
class Finish:
    """Colour, second colour (both (3,)), pattern name, gloss 0..1 and roughness in px of height."""

    colour: str
    base: Rgb
    other: Rgb
    pattern: str = "plain"
    gloss: float = 0.3
    roughness_px: float = 0.0

    def toned(self, factor: float) -> "Finish":
        """The same finish, lighter or darker."""
        return replace(self, base=self.base * np.float32(factor), other=self.other * np.float32(factor))

    @property
    def title(self) -> str:
        """The words a caption begins with, such as `striped red`."""
        return self.colour if self.pattern == "plain" else f"{self.pattern} {self.colour}"


def draw_finish(rng: Generator, palette: Palette, patterns: tuple[str, ...]) -> Finish:
    """A random finish: a third plain, the rest with a pattern in a second colour, near or far."""
    colour = palette.pick(rng)
    base = jittered(rng, colour)
    other = jittered(rng, palette.pick(rng))
    if rng.random() < 0.5:
        other = clamp(base * np.float32(rng.uniform(0.45, 1.6)), 0.02, 0.98)
    pattern = "plain" if rng.random() < 0.35 else str(rng.choice(patterns))
    roughness = float(rng.uniform(0, 0.6)) if rng.random() < 0.4 else 0.0
    return Finish(colour, base, other, pattern, float(rng.beta(1.2, 1.8)), roughness)


def mixed(base: Rgb, other: Rgb, field: Rgb) -> Rgb:
    """(h, w, 3): `base` where the (h, w) field is 0, `other` where it is 1."""
    rgb = np.empty((*field.shape, 3), np.float32)
    # Channel by channel: numpy is several times slower over a last axis of three.
    for channel in range(3):
        np.multiply(field, other[channel] - base[channel], out=rgb[..., channel], casting="same_kind")
        rgb[..., channel] += base[channel]
    return rgb
