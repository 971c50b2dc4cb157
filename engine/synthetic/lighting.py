"""Light: normals from a height field, Lambert and Blinn-Phong shading, soft shadows from distances."""

from dataclasses import dataclass

import numpy as np
from numpy.random import Generator

from engine.synthetic.fields import Plane, clamp


@dataclass(frozen=True)
class Light:
    """One distant lamp and an even sky. `towards` is the unit vector to the lamp (x right, y down, z out)."""

    towards: tuple[float, float, float]
    key: Plane
    sky: Plane
    shadow: float
    softness: float

    @staticmethod
    def draw(rng: Generator) -> "Light":
        """A lamp at 30 to 75 degrees over the table, from any side but mostly from above in the picture."""
        azimuth = rng.normal(-np.pi / 2, 0.9)
        height = np.radians(rng.uniform(30, 75))
        flat = np.cos(height)
        towards = (float(np.cos(azimuth) * flat), float(np.sin(azimuth) * flat), float(np.sin(height)))
        warmth = rng.normal(0, 0.05)
        share = rng.uniform(0.45, 0.8)
        key = np.asarray((1 + warmth, 1, 1 - warmth), np.float32) * np.float32(1.15 * share)
        sky = np.asarray((1 - warmth, 1, 1 + warmth), np.float32) * np.float32(1.05 - 0.75 * share)
        return Light(towards, key, sky, float(rng.uniform(0.15, 0.65)), float(rng.uniform(0.05, 0.5)))


def slopes(height_px: Plane) -> tuple[Plane, Plane]:
    """Central differences (d/dy, d/dx) of an (h, w) field, one-sided at the rim."""
    dy, dx = np.empty_like(height_px), np.empty_like(height_px)
    for out, field in ((dy, height_px), (dx.T, height_px.T)):
        if field.shape[0] < 2:
            out[:] = 0
            continue
        np.subtract(field[2:], field[:-2], out=out[1:-1])
        out[1:-1] *= np.float32(0.5)
        out[0], out[-1] = field[1] - field[0], field[-1] - field[-2]
    return dy, dx


def shade(albedo: Plane, height_px: Plane, light: Light, gloss: float) -> Plane:
    """(h, w, 3) colour of a surface with this albedo (h, w, 3) and height (h, w, pixels towards the eye)."""
    dy, dx = slopes(height_px)
    lx, ly, lz = (np.float32(part) for part in light.towards)
    upright = 1 / np.sqrt(1 + dx * dx + dy * dy)
    facing = (lz - lx * dx - ly * dy) * upright
    sky = np.float32(0.55) + np.float32(0.45) * upright
    lit = np.maximum(facing, 0)
    shine = _highlight(upright, dx, dy, light, gloss) if gloss > 0.05 else np.float32(0)
    rgb = np.empty_like(albedo)
    for channel in range(3):
        glow = lit * light.key[channel] + sky * light.sky[channel]
        rgb[..., channel] = albedo[..., channel] * glow + shine
    return rgb


def _highlight(upright: Plane, dx: Plane, dy: Plane, light: Light, gloss: float) -> Plane:
    """Blinn-Phong with the eye straight above; the exponent is a power of two, so it is squaring only."""
    lx, ly, lz = light.towards
    half = np.asarray((lx, ly, lz + 1), np.float32)
    half /= np.float32(np.linalg.norm(half))
    mirror = np.maximum((half[2] - half[0] * dx - half[1] * dy) * upright, 0)
    for _ in range(3 + round(3 * gloss)):
        mirror *= mirror
    shine: Plane = mirror * (0.7 * gloss)
    return shine


def shadow_of(distance_px: Plane, softness_px: float, strength: float) -> Plane:
    """(h, w) darkness of a shadow, from the signed distance of what casts it: full inside, fading outside."""
    t = clamp(np.float32(0.5) - distance_px / np.float32(2 * softness_px))
    return np.float32(strength) * t * t * (3 - 2 * t)
