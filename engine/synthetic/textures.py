"""Surface patterns, all fields in 0..1 that mix two colours, and the noise they are made of.

Noise is a random grid enlarged by a cubic B-spline. The enlargement is two small matrix products, which is
far faster than a general zoom and as smooth.
"""

from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from numpy.random import Generator

from engine.synthetic.fields import Plane, clamp


@lru_cache(maxsize=256)
def _spline(n_px: int, n_cells: int) -> Plane:
    """(n_px, n_cells + 3) cubic B-spline weights that enlarge a grid of cells to pixels."""
    at = (np.arange(n_px) + 0.5) * n_cells / n_px
    cell = np.minimum(at.astype(np.int64), n_cells - 1)
    t = at - cell
    weights = np.zeros((n_px, n_cells + 3), np.float32)
    rows = np.arange(n_px)
    weights[rows, cell] = (1 - t) ** 3 / 6
    weights[rows, cell + 1] = (3 * t**3 - 6 * t**2 + 4) / 6
    weights[rows, cell + 2] = (-3 * t**3 + 3 * t**2 + 3 * t + 1) / 6
    weights[rows, cell + 3] = t**3 / 6
    return weights


def smooth_noise(rng: Generator, hw: tuple[int, int], cells_hw: tuple[int, int]) -> Plane:
    """(H, W) noise of zero mean and roughly unit deviation, one hill or hollow per cell."""
    h, w = hw
    rows, columns = (min(max(1, n), n_px) for n, n_px in zip(cells_hw, hw, strict=True))
    grid = rng.standard_normal((rows + 3, columns + 3), np.float32)
    # 2.1 undoes the averaging of the spline.
    return np.float32(2.1) * (_spline(h, rows) @ grid @ _spline(w, columns).T)


def fractal_noise(
    rng: Generator, hw: tuple[int, int], cells: int, n_octaves: int, gain: float = 0.55
) -> Plane:
    """(H, W) sum of octaves, each twice as fine and `gain` as strong, scaled to roughly unit deviation."""
    aspect = hw[0] / hw[1]
    total = np.zeros(hw, np.float32)
    power = 0.0
    for octave in range(n_octaves):
        n = cells * 2**octave
        total += np.float32(gain**octave) * smooth_noise(rng, hw, (max(1, round(n * aspect)), n))
        power += gain ** (2 * octave)
    return total / np.float32(power**0.5)


@dataclass(frozen=True)
class NoiseBank:
    """Fields drawn once per scene; objects cut windows out of them, which costs nothing."""

    broad: Plane
    fine: Plane
    grain: Plane

    @staticmethod
    def draw(rng: Generator, hw: tuple[int, int]) -> "NoiseBank":
        """Three (H, W) fields: features of about a quarter, a fiftieth, and a few pixels of the picture."""
        return NoiseBank(
            fractal_noise(rng, hw, 4, 6),
            fractal_noise(rng, hw, 24, 3),
            rng.standard_normal(hw, np.float32),
        )

    def patch(self, rng: Generator, hw: tuple[int, int], which: str) -> Plane:
        """A random (h, w) window, mirrored at random, of the field named `broad`, `fine` or `grain`."""
        field: Plane = getattr(self, which)
        y = int(rng.integers(0, field.shape[0] - hw[0] + 1))
        x = int(rng.integers(0, field.shape[1] - hw[1] + 1))
        turn_y, turn_x = (int(sign) for sign in rng.choice((-1, 1), 2))
        return field[y : y + hw[0], x : x + hw[1]][::turn_y, ::turn_x]


@dataclass(frozen=True)
class Surface:
    """Where a pattern is drawn: coordinates in units of the object's radius, and the scene's noise."""

    p: Plane
    q: Plane
    radius_px: float
    bank: NoiseBank


def _edge(field: Plane, sharpness: float) -> Plane:
    return clamp(field * np.float32(sharpness) + np.float32(0.5))


def _turned(rng: Generator, on: Surface) -> Plane:
    angle = rng.uniform(0, np.pi)
    return np.float32(np.cos(angle)) * on.p + np.float32(np.sin(angle)) * on.q


def _repeats(rng: Generator, on: Surface) -> float:
    """Radians per radius for a repeating pattern, so coarse that one repeat spans at least 5 px."""
    return float(min(rng.uniform(5, 26), 1.25 * on.radius_px))


def plain(rng: Generator, on: Surface) -> Plane:
    """Almost one colour, a little uneven."""
    return np.float32(0.12) * on.bank.patch(rng, on.p.shape, "broad") + np.float32(0.15)


def graded(rng: Generator, on: Surface) -> Plane:
    """One colour running into the other."""
    return clamp(np.float32(0.5) + np.float32(0.5) * _turned(rng, on))


def striped(rng: Generator, on: Surface) -> Plane:
    """Straight stripes, some thin."""
    wave = np.sin(np.float32(_repeats(rng, on)) * _turned(rng, on))
    return _edge(wave - np.float32(rng.uniform(-0.6, 0.6)), 3)


def wavy(rng: Generator, on: Surface) -> Plane:
    """Stripes bent by noise."""
    bent = _turned(rng, on) + np.float32(0.18) * on.bank.patch(rng, on.p.shape, "broad")
    return _edge(np.sin(np.float32(_repeats(rng, on)) * bent), 2)


def checkered(rng: Generator, on: Surface) -> Plane:
    """A chessboard along the object's axes."""
    k = np.float32(0.6 * _repeats(rng, on))
    return _edge(np.sin(k * on.p) * np.sin(k * on.q), 5)


def spotted(rng: Generator, on: Surface) -> Plane:
    """Round dots on a slanted lattice."""
    k = np.float32(0.5 * _repeats(rng, on))
    return _edge(np.cos(k * (on.p + on.q)) + np.cos(k * (on.p - on.q)) - np.float32(rng.uniform(0.6, 1.2)), 3)


def wooden(rng: Generator, on: Surface) -> Plane:
    """Year rings seen along the board, with fibres."""
    knots = on.bank.patch(rng, on.p.shape, "broad")
    across = on.q + np.float32(0.25) * knots + np.float32(0.1) * on.p
    rings = np.sin(np.float32(0.5 * _repeats(rng, on)) * across)
    return clamp(np.float32(0.45) + np.float32(0.3) * rings + np.float32(0.1) * _grain(rng, on))


def marbled(rng: Generator, on: Surface) -> Plane:
    """Veins where the noise crosses zero."""
    return 1 - clamp(np.float32(1.6) * np.abs(on.bank.patch(rng, on.p.shape, "broad")))


def mottled(rng: Generator, on: Surface) -> Plane:
    """Soft patches."""
    return _edge(on.bank.patch(rng, on.p.shape, "fine"), 0.35)


def speckled(rng: Generator, on: Surface) -> Plane:
    """Small flecks, some sharp."""
    return _edge(on.bank.patch(rng, on.p.shape, "fine") - np.float32(rng.uniform(0.7, 1.5)), 2.5)


def grainy(rng: Generator, on: Surface) -> Plane:
    """Sand: every pixel its own."""
    return np.float32(0.4) + np.float32(0.2) * _grain(rng, on)


def woven(rng: Generator, on: Surface) -> Plane:
    """Threads over and under."""
    k = np.float32(min(2.2 * _repeats(rng, on), 1.6 * on.radius_px))
    weave: Plane = np.sin(k * on.p) ** 2 + np.sin(k * on.q) ** 2
    return clamp(np.float32(0.4) * weave + np.float32(0.08) * _grain(rng, on))


def tufted(rng: Generator, on: Surface) -> Plane:
    """Foliage, fur or gravel: fine clumps over broad ones."""
    clumps = on.bank.patch(rng, on.p.shape, "fine") + np.float32(0.5) * on.bank.patch(
        rng, on.p.shape, "broad"
    )
    return clamp(np.float32(0.35) * clumps + np.float32(0.45) + np.float32(0.1) * _grain(rng, on))


def rippled(rng: Generator, on: Surface) -> Plane:
    """Water or dunes: broken waves along one axis."""
    k = np.float32(min(3 * _repeats(rng, on), 1.2 * on.radius_px))
    shaken = on.q + np.float32(0.07) * on.bank.patch(rng, on.p.shape, "fine")
    strength = clamp(on.bank.patch(rng, on.p.shape, "broad") * np.float32(0.4) + np.float32(0.5))
    return np.float32(0.5) + np.float32(0.5) * strength * np.sin(k * shaken)


def rough(rng: Generator, on: Surface) -> Plane:
    """Stone or earth: noise of every scale."""
    mix = on.bank.patch(rng, on.p.shape, "broad") + np.float32(0.6) * on.bank.patch(rng, on.p.shape, "fine")
    return clamp(np.float32(0.28) * mix + np.float32(0.45) + np.float32(0.05) * _grain(rng, on))


def _grain(rng: Generator, on: Surface) -> Plane:
    return on.bank.patch(rng, on.p.shape, "grain")


PATTERNS: dict[str, Callable[[Generator, Surface], Plane]] = {
    "plain": plain, "graded": graded, "striped": striped, "wavy": wavy, "checkered": checkered,
    "spotted": spotted, "wooden": wooden, "marbled": marbled, "mottled": mottled, "speckled": speckled,
    "grainy": grainy, "woven": woven, "tufted": tufted, "rippled": rippled, "rough": rough,
}  # fmt: skip
