"""The camera: what happens between the light of a scene and the bytes of a photograph."""

from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from numpy.random import Generator
from numpy.typing import NDArray
from scipy import ndimage

from engine.synthetic.fields import Plane, clamp


@dataclass(frozen=True)
class Camera:
    """Strength of each flaw, as the widest value a scene may draw (0 switches it off)."""

    colour_cast: float = 0.10
    fade: float = 0.6
    gamma: float = 0.25
    vignette: float = 0.35
    blur_px: float = 1.2
    noise: float = 0.035
    jpeg: float = 0.5


# The demo's pictures: clean, but not sterile.
GENTLE = Camera(colour_cast=0.03, fade=0.1, gamma=0.06, vignette=0.2, blur_px=0.0, noise=0.008, jpeg=0.0)


def develop(rgb: Plane, rng: Generator, camera: Camera) -> NDArray[np.uint8]:
    """(H, W, 3) uint8 photograph of a float picture; `rgb` is used up."""
    gains = np.exp(rng.normal(0, camera.colour_cast, 3)).astype(np.float32)
    gains *= np.float32(np.exp(rng.normal(0, camera.colour_cast)))
    rgb = _optics(rgb, rng, camera)
    rgb *= gains
    _fade(rgb, rng, camera.fade)
    _darken_corners(rgb, float(rng.uniform(0, camera.vignette)))
    _add_noise(rgb, rng, camera.noise)
    out = _tone(rgb, float(np.exp(rng.uniform(-camera.gamma, camera.gamma))))
    if rng.random() < camera.jpeg:
        out = _compress(out, float(np.exp(rng.uniform(np.log(4), np.log(40)))))
    return out


def _optics(rgb: Plane, rng: Generator, camera: Camera) -> Plane:
    """A three-tap lens for every picture; a real blur for a third of them."""
    if rng.random() < 0.35 and camera.blur_px > 0.5:
        sigma = float(rng.uniform(0.5, camera.blur_px))
        blurred: Plane = ndimage.gaussian_filter(rgb, (sigma, sigma, 0), truncate=2.5)
        return blurred
    side = np.float32(rng.uniform(0.03, 0.12))
    for axis in (0, 1):
        rows = np.moveaxis(rgb, axis, 0)
        middle = rows[1:-1] * (1 - 2 * side) + side * (rows[2:] + rows[:-2])
        rows[1:-1] = middle
    return rgb


def _fade(rgb: Plane, rng: Generator, strongest: float) -> None:
    """Pull colours towards grey: a little mostly, wholly in one picture of twelve where the camera may."""
    amount = float(rng.uniform(0, strongest)) if rng.random() > strongest / 7 else 1.0
    grey = rgb @ np.asarray((0.3, 0.59, 0.11), np.float32)
    rgb *= 1 - amount
    rgb += (grey * amount)[..., None]


def _darken_corners(rgb: Plane, strength: float) -> None:
    h, w = rgb.shape[:2]
    y = np.linspace(-1, 1, h, dtype=np.float32)[:, None] ** 2
    x = np.linspace(-1, 1, w, dtype=np.float32)[None, :] ** 2
    rgb *= (1 - np.float32(0.5 * strength) * (x + y))[..., None]


def _add_noise(rgb: Plane, rng: Generator, strongest: float) -> None:
    """Grey noise, of every pixel or of small clumps, plus a weaker noise of colour."""
    amount = np.float32(strongest * rng.random() ** 2)
    h, w = rgb.shape[:2]
    grey = rng.standard_normal((h, w), np.float32)
    if rng.random() < 0.3:
        grey[1:] = np.float32(0.7) * (grey[1:] + grey[:-1])
    rgb += (amount * grey)[..., None]
    if rng.random() < 0.5:
        rgb += np.float32(0.6) * amount * rng.standard_normal((h, w, 3), np.float32)


def _tone(rgb: Plane, gamma: float) -> NDArray[np.uint8]:
    """Gamma and rounding through a table: no power per pixel."""
    steps = 2048
    curve = np.linspace(0, 1, steps + 1) ** gamma
    table = np.rint(curve * 255).astype(np.uint8)
    rgb *= np.float32(steps)
    return table[clamp(rgb, 0, steps).astype(np.int32)]


@lru_cache(maxsize=1)
def _cosines() -> Plane:
    """The orthonormal 8 x 8 DCT matrix of JPEG."""
    k, n = np.arange(8)[:, None], np.arange(8)[None, :]
    basis = np.cos((2 * n + 1) * k * np.pi / 16) * 0.5
    basis[0] *= 0.5**0.5
    return basis.astype(np.float32)


def _compress(image: NDArray[np.uint8], coarseness: float) -> NDArray[np.uint8]:
    """Round the 8 x 8 cosine coefficients of luma and chroma, as JPEG does, and come back."""
    h, w = image.shape[:2]
    padded = np.pad(image, ((0, -h % 8), (0, -w % 8), (0, 0)), mode="edge").astype(np.float32)
    mix = np.asarray([[0.299, 0.587, 0.114], [-0.169, -0.331, 0.5], [0.5, -0.419, -0.081]], np.float32)
    k = np.arange(8, dtype=np.float32)
    luma = np.float32(coarseness) * (1 + np.float32(0.35) * (k[:, None] + k[None, :]))
    planes = np.ascontiguousarray((padded @ mix.T).transpose(2, 0, 1))
    for plane, steps in zip(planes, (luma, 2 * luma, 2 * luma), strict=True):
        spectrum = _transform(plane, _cosines())
        blocks = spectrum.reshape(plane.shape[0] // 8, 8, plane.shape[1] // 8, 8)
        step = steps[None, :, None, :]
        plane[:] = _transform((np.rint(blocks / step) * step).reshape(plane.shape), _cosines().T)
    rgb = planes[:, :h, :w].transpose(1, 2, 0) @ np.linalg.inv(mix).T.astype(np.float32)
    return clamp(np.rint(rgb), 0, 255).astype(np.uint8)


def _transform(plane: Plane, basis: Plane) -> Plane:
    """Apply an 8 x 8 basis to the rows and columns of every block of an (H, W) plane; H, W multiples of 8."""
    h, w = plane.shape
    along: Plane = plane.reshape(h * w // 8, 8) @ basis.T
    return (basis @ along.reshape(h // 8, 8, w)).reshape(h, w)
