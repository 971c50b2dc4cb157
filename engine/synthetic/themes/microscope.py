"""Microscope: many touching bodies, glowing on black or dark on light, blurred and unevenly lit.

Bodies that touch share a border by one rule: a pixel goes to the body it lies deepest in. Colour follows from
the label map, so it is painted for all bodies at once; the lens blurs it afterwards, never the masks.
"""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.random import Generator
from numpy.typing import NDArray
from scipy import ndimage

from engine.synthetic.canvas import Canvas
from engine.synthetic.colours import mixed
from engine.synthetic.fields import Plane, clamp
from engine.synthetic.shapes import Form, Frame, blob, disc, distance_px
from engine.synthetic.textures import NoiseBank

MAX_BODIES = 240
# Deeper than nothing: where no body reaches.
FAR = 1e3


@dataclass(frozen=True)
class Specimen:
    """The label map's companions, all (H, W): depth in radii (0 at the rim, 1 deep inside), core."""

    canvas: Canvas
    rng: Generator
    bank: NoiseBank
    depth: Plane
    core: NDArray[np.bool_]
    radius_px: float

    def per_body(self, low: float, high: float) -> Plane:
        """(H, W) of one random value per body, 0 outside."""
        levels = np.zeros(len(self.canvas.names) + 1, np.float32)
        levels[:-1] = self.rng.uniform(low, high, len(self.canvas.names))
        return levels[self.canvas.owner]

    @property
    def inside(self) -> Plane:
        """(H, W) 1 where a body is."""
        return (self.canvas.owner >= 0).astype(np.float32)

    def noise(self, which: str) -> Plane:
        """(H, W) of the bank's noise, another one each time."""
        return self.bank.patch(self.rng, self.canvas.hw, which)


def paint(canvas: Canvas, rng: Generator) -> None:
    """Choose a method of microscopy, lay the bodies out, and colour them."""
    looks: tuple[Callable[[Canvas, Generator], None], ...] = (fluorescence, stain, brightfield, tissue, smear)
    looks[int(rng.choice(5, p=(0.4, 0.2, 0.14, 0.13, 0.13)))](canvas, rng)


def fluorescence(canvas: Canvas, rng: Generator) -> None:
    """Nuclei glow on black, each with its own brightness; grey or one dye's colour."""
    specimen = _lay_out(canvas, rng, "bright", "nucleus", wobble=(0.0, 0.1), core_share=0.0)
    glow = specimen.per_body(0.25 + 0.3 * rng.random(), 1)
    glow *= np.float32(rng.uniform(0.4, 0.9)) + np.float32(0.4) * specimen.depth
    glow *= 1 + np.float32(rng.uniform(0, 0.3)) * specimen.noise("fine")
    glow = _lens(specimen, glow)
    haze = ndimage.gaussian_filter(glow[::4, ::4], max(specimen.radius_px / 4, 1))
    haze = np.repeat(np.repeat(haze, 4, 0), 4, 1)[: canvas.hw[0], : canvas.hw[1]]
    floor = np.float32(rng.uniform(0.005, 0.12)) * (1 + np.float32(0.4) * specimen.noise("broad"))
    light = floor + np.float32(rng.uniform(0.25, 1)) * (glow + np.float32(rng.uniform(0, 0.35)) * haze)
    dyes = ((1, 1, 1), (1, 1, 1), (0.25, 0.4, 1.2), (0.2, 1.1, 0.35), (1.1, 0.25, 0.2), (0.2, 0.9, 1.0))
    dye = np.asarray(dyes[int(rng.integers(len(dyes)))], np.float32)
    canvas.rgb[:] = light[..., None] * dye


def stain(canvas: Canvas, rng: Generator) -> None:
    """A stained section: dark nuclei in a pink or brown ground with pale gaps."""
    specimen = _lay_out(canvas, rng, "dark", "nucleus", wobble=(0.02, 0.16), core_share=0.0, stretch=0.55)
    clouds = np.float32(0.35) * specimen.noise("broad") + np.float32(0.2) * specimen.noise("fine")
    ground = clamp(clouds + np.float32(0.5), 0, 1.4)
    rim = np.float32(0.3) * (1 - specimen.depth) * specimen.inside
    density = specimen.per_body(0.55, 1.3) * (1 + np.float32(0.25) * specimen.noise("fine")) + rim
    dense = _lens(specimen, density)
    # Beer and Lambert: each dye takes its share of each colour of light.
    eosin: Plane = np.asarray((0.08, 0.75, 0.35), np.float32) * np.float32(rng.uniform(0.2, 1.0))
    dyes = ((1.0, 1.25, 0.5), (0.9, 1.0, 0.35), (0.6, 1.0, 1.4), (1.1, 1.1, 1.0))
    nuclear = np.asarray(dyes[int(rng.integers(len(dyes)))], np.float32)
    eosin *= rng.uniform(0.7, 1.3, 3).astype(np.float32)
    absorbed = ground[..., None] * eosin + dense[..., None] * nuclear
    canvas.rgb[:] = np.float32(0.95) * np.exp(-absorbed)


def brightfield(canvas: Canvas, rng: Generator) -> None:
    """Unstained cells: hardly darker than the ground, a dark rim and a bright halo, a granular core."""
    specimen = _lay_out(canvas, rng, "translucent", "cell", wobble=(0.02, 0.2), core_share=0.6)
    ring = np.exp(-(((specimen.depth - np.float32(0.05)) / np.float32(0.12)) ** 2)) * specimen.inside
    halo = ndimage.gaussian_filter(specimen.inside, max(0.12 * specimen.radius_px, 1.0))
    halo *= 1 - specimen.inside
    body = specimen.per_body(-0.12, 0.12) + specimen.inside * (np.float32(0.05) * specimen.noise("fine"))
    body -= np.float32(rng.uniform(0.08, 0.3)) * ring
    body += np.float32(rng.uniform(0, 0.35)) * halo - np.float32(rng.uniform(0.03, 0.15)) * specimen.core
    light = np.float32(0.04) * specimen.noise("broad") + _lens(specimen, body)
    light += np.float32(rng.uniform(0.45, 0.8))
    canvas.rgb[:] = light[..., None] * rng.uniform(0.92, 1.05, 3).astype(np.float32)


def tissue(canvas: Canvas, rng: Generator) -> None:
    """A sheet of cells side by side, membranes bright or dark, most with a nucleus."""
    specimen = _lay_out(canvas, rng, "packed", "cell", wobble=(0.0, 0.12), core_share=0.75, crowd=2.2)
    membrane = np.exp(-specimen.depth / np.float32(rng.uniform(0.08, 0.2))) * specimen.inside
    body = specimen.per_body(0.25, 0.45) + np.float32(0.06) * specimen.noise("fine")
    field = _lens(specimen, body + np.float32(rng.uniform(0.3, 0.9)) * membrane)
    core = _lens(specimen, specimen.core * (np.float32(0.6) + np.float32(0.15) * specimen.noise("fine")))
    low, rim, centre = rng.uniform(0, 0.2, 3), rng.uniform(0.3, 1.1, 3), rng.uniform(0.2, 1, 3)
    light = low + field[..., None] * rim + core[..., None] * centre
    canvas.rgb[:] = 1 - clamp(light) if rng.random() < 0.5 else light


def smear(canvas: Canvas, rng: Generator) -> None:
    """A blood smear: rose discs with a paler middle, some dark-cored ones among them."""
    specimen = _lay_out(canvas, rng, "rose", "cell", wobble=(0.0, 0.05), core_share=0.15)
    dip = np.float32(rng.uniform(0.1, 0.5)) * specimen.depth**2
    body = _lens(specimen, specimen.per_body(0.6, 1) * (1 - dip))
    core = _lens(specimen, specimen.core * (1 + np.float32(0.2) * specimen.noise("fine")))
    paper = rng.uniform((0.8, 0.78, 0.72), (0.97, 0.96, 0.97)).astype(np.float32)
    rose = paper * rng.uniform((0.72, 0.4, 0.4), (0.95, 0.7, 0.8)).astype(np.float32)
    violet = rng.uniform((0.25, 0.1, 0.4), (0.45, 0.3, 0.65)).astype(np.float32)
    rgb = mixed(paper, rose, body) * (1 + np.float32(0.03) * specimen.noise("broad"))[..., None]
    canvas.rgb[:] = rgb + clamp(core)[..., None] * (violet - rgb)


def _lens(specimen: Specimen, field: Plane) -> Plane:
    """The microscope's blur: never sharper than the pixel, at most a small part of a body."""
    sharpest = 0.45
    sigma = float(specimen.rng.uniform(sharpest, max(sharpest, min(0.1 * specimen.radius_px, 2.5))))
    blurred: Plane = ndimage.gaussian_filter(field.astype(np.float32), sigma, truncate=3)
    return blurred


def _lay_out(
    canvas: Canvas,
    rng: Generator,
    look: str,
    noun: str,
    *,
    wobble: tuple[float, float],
    core_share: float,
    stretch: float = 0.35,
    crowd: float = 1.0,
) -> Specimen:
    """Give pixels to bodies of one median size; `crowd` above 1 packs them until they fill the picture."""
    h, w = canvas.hw
    side = (h * w) ** 0.5
    # A packed sheet must not run out of bodies before it runs out of room.
    smallest = 0.03 if crowd > 1 else 0.011
    median_px = float(max(side * np.exp(rng.uniform(np.log(smallest), np.log(0.085))), 3.0))
    fill = crowd * rng.uniform(0.08 if crowd == 1 else 0.5, 0.75)
    n_bodies = int(np.clip(fill * h * w / (np.pi * median_px**2), 4, MAX_BODIES))
    radii = median_px * np.exp(rng.normal(0, rng.uniform(0.05, 0.35), n_bodies))
    centres = _centres(rng, canvas.hw, radii, 0.6 if crowd > 1 else float(rng.uniform(0.55, 1.0)))
    # How deep each pixel lies in its own body and in the next one: the smallest is the deepest.
    nearest = np.full(canvas.hw, FAR, np.float32)
    rival = np.full(canvas.hw, FAR, np.float32)
    core = np.zeros(canvas.hw, np.bool_)
    unevenness = rng.uniform(*wobble)
    frames: list[Frame] = []
    for centre, radius in zip(centres, radii, strict=False):
        squeeze = float(1 - stretch * rng.beta(1.2, 1.5))
        reach = float(radius) * (1.45 if crowd > 1 else 1.0)
        frame = Frame.stand(canvas.hw, centre, reach, float(rng.uniform(0, np.pi)), squeeze, 1.15)
        if not frame.window.empty:
            name = f"{look} {_word(squeeze, unevenness)} {noun}"
            _claim(canvas, rng, frame, (nearest, rival), unevenness, name)
            frames.append(frame)
    for number, frame in enumerate(frames):
        if rng.random() < core_share:
            _add_core(canvas, rng, number, frame, core)
    # A border shared with a neighbour is a border too.
    margin = np.minimum(-nearest, rival - nearest)
    depth = clamp(np.where(canvas.owner >= 0, margin, np.float32(0)))
    return Specimen(canvas, rng, NoiseBank.draw(rng, canvas.hw), depth, core, median_px)


def _word(squeeze: float, unevenness: float) -> str:
    if unevenness > 0.13:
        return "irregular"
    return "round" if squeeze > 0.85 else "oval"


def _claim(
    canvas: Canvas, rng: Generator, frame: Frame, fields: tuple[Plane, Plane], unevenness: float, name: str
) -> None:
    """A new body takes every pixel of its own that lies deeper in it than in any before."""
    form = Form(blob(rng, frame.p, frame.q, unevenness, 4))
    distance = distance_px(form, frame.radius_px)
    relative = np.maximum(form.f, distance / np.float32(frame.radius_px))
    nearest, rival = (field[frame.window.cut] for field in fields)
    inside = distance <= 0
    bits = inside & (relative < nearest)
    rival[inside] = np.minimum(rival, np.maximum(nearest, relative))[inside]
    nearest[bits] = relative[bits]
    canvas.owner[frame.window.cut][bits] = canvas.begin(name)


def _add_core(canvas: Canvas, rng: Generator, number: int, frame: Frame, core: NDArray[np.bool_]) -> None:
    """A nucleus inside a cell, off the centre, cut to the cell's own pixels."""
    off_p, off_q = rng.normal(0, 0.15, 2).astype(np.float32)
    f = disc(frame.p - off_p, frame.q - off_q, float(rng.uniform(0.25, 0.5)))
    bits = (f <= 0) & (canvas.owner[frame.window.cut] == number)
    core[frame.window.cut] |= bits
    canvas.mark_part(number, frame.window, bits, "nucleus")


def _centres(
    rng: Generator, hw: tuple[int, int], radii: NDArray[np.float64], spacing: float
) -> list[tuple[float, float]]:
    """(x, y) per radius that finds room, `spacing` times the sum of radii apart, often in colonies."""
    h, w = hw
    n_colonies = int(rng.integers(1, 7)) if rng.random() < 0.35 else 0
    colonies = rng.uniform(0.1, 0.9, (max(n_colonies, 1), 2)) * (w, h)
    kept = np.zeros((len(radii), 2))
    n_kept = 0
    for radius in radii:
        if n_colonies:
            middle = colonies[rng.integers(n_colonies)]
            tries = rng.normal(middle, 0.14 * (h * w) ** 0.5, (12, 2))
        else:
            tries = rng.uniform((0, 0), (w, h), (12, 2))
        gaps = np.hypot(*(tries[:, None] - kept[None, :n_kept]).transpose(2, 0, 1))
        free = np.all(gaps >= spacing * (radius + radii[:n_kept]), axis=1)
        if free.any():
            kept[n_kept] = tries[np.argmax(free)]
            radii[n_kept] = radius
            n_kept += 1
    return [(float(x), float(y)) for x, y in kept[:n_kept]]
