"""Mosaic: stuff that tiles the whole picture, as land, fields or patches, with things standing on it.

Every pixel of the ground belongs to a region. Neighbours are often close in colour, so that borders must be
found in texture; some regions are divided again, and their pieces are parts.
"""

from collections.abc import Callable

import numpy as np
from numpy.random import Generator
from numpy.typing import NDArray
from scipy import ndimage

from engine.synthetic import landmarks
from engine.synthetic.bodies import KINDS, Kind
from engine.synthetic.canvas import Canvas, Window
from engine.synthetic.colours import NAMED, Finish, Palette, draw_finish, mixed
from engine.synthetic.easel import Easel
from engine.synthetic.fields import Plane, clamp
from engine.synthetic.shapes import Frame
from engine.synthetic.textures import PATTERNS, Surface, smooth_noise

Labels = NDArray[np.int64]

STUFF = (
    "graded", "striped", "wavy", "wooden", "marbled", "mottled", "speckled", "grainy", "woven", "tufted",
    "rippled", "rough", "rough",
)  # fmt: skip
NATURAL = (
    "green",
    "olive",
    "brown",
    "tan",
    "grey",
    "sky blue",
    "cream",
    "charcoal",
    "teal",
    "white",
    "orange",
)
MIN_REGION_SHARE = 0.0004


def paint(canvas: Canvas, rng: Generator) -> None:
    """Divide the picture, colour its regions, cast uneven light over them, then place 0 to 25 things."""
    easel = Easel.set_up(canvas, rng)
    divide: tuple[Callable[[Generator, tuple[int, int]], Labels], ...] = (bands, cells, patches)
    labels = divide[int(rng.choice(3, p=(0.4, 0.35, 0.25)))](rng, canvas.hw)
    palette = Palette(tuple(rng.choice(NATURAL, 5))) if rng.random() < 0.7 else easel.palette
    colour_regions(easel, labels, palette)
    canvas.rgb *= (1 + np.float32(rng.uniform(0, 0.22)) * easel.noise.patch(rng, canvas.hw, "broad"))[
        ..., None
    ]
    _place_things(easel)


def bands(rng: Generator, hw: tuple[int, int]) -> Labels:
    """(H, W) labels of sky, hills and fields one under another; lower borders are rougher."""
    h, w = hw
    labels = np.zeros(hw, np.int64)
    y = np.arange(h, dtype=np.float32)[:, None]
    for border in np.sort(rng.uniform(0.1, 0.95, int(rng.integers(2, 7)))):
        slope = rng.normal(0, 0.12) * np.linspace(-1, 1, w)
        swell = rng.uniform(0.005, 0.07) * smooth_noise(rng, (2, w), (1, int(rng.integers(2, 9))))[0]
        rough = rng.choice((0.0, 0.004, 0.012)) * smooth_noise(rng, (2, w), (1, max(2, w // 6)))[0]
        labels += y > h * (border + slope + swell + rough)[None, :]
    return labels


def cells(rng: Generator, hw: tuple[int, int]) -> Labels:
    """(H, W) labels of warped Voronoi cells, from straight-edged fields to winding shapes."""
    n_seeds = int(rng.integers(4, 26))
    h, w = hw
    warp = np.float32(rng.uniform(0, 0.09) * (h * w) ** 0.5)
    n_waves = int(rng.integers(3, 12))
    y = np.arange(h, dtype=np.float32)[:, None] + warp * smooth_noise(rng, hw, (n_waves, n_waves))
    x = np.arange(w, dtype=np.float32)[None, :] + warp * smooth_noise(rng, hw, (n_waves, n_waves))
    nearest = np.full(hw, np.inf, np.float32)
    labels = np.zeros(hw, np.int64)
    for number, (sy, sx) in enumerate(rng.uniform((0, 0), hw, (n_seeds, 2))):
        # The common x squared plus y squared of every seed's distance is left out.
        distance = (sy * sy + sx * sx) - 2 * float(sy) * y - 2 * float(sx) * x
        closer = distance < nearest
        nearest[closer] = distance[closer]
        labels[closer] = number
    return labels


def patches(rng: Generator, hw: tuple[int, int]) -> Labels:
    """(H, W) labels of the connected level sets of smooth noise: lakes, clearings, stains, one in another."""
    n_hills = int(rng.integers(2, 6))
    field = smooth_noise(rng, hw, (n_hills, n_hills)) + 0.3 * smooth_noise(
        rng, hw, (4 * n_hills, 4 * n_hills)
    )
    levels = np.searchsorted(np.sort(rng.normal(0, 0.8, int(rng.integers(1, 4)))), field)
    labels = np.zeros(hw, np.int64)
    for level in range(int(levels.max()) + 1):
        pieces, n_pieces = ndimage.label(levels == level)
        labels += np.where(pieces > 0, pieces + int(labels.max()), 0)
    return labels


def colour_regions(easel: Easel, labels: Labels, palette: Palette) -> None:
    """Paint every connected region worth naming as an object; specks stay unnamed."""
    rng = easel.rng
    shy = rng.random() < 0.5
    first = draw_finish(rng, palette, STUFF)
    n_px = labels.size
    easel.canvas.rgb[:] = first.base
    for number, box in enumerate(ndimage.find_objects(labels + 1)):
        if box is None:
            continue
        bits = labels[box] == number
        if np.count_nonzero(bits) < MIN_REGION_SHARE * n_px:
            continue
        window = Window(box[0].start, box[0].stop, box[1].start, box[1].stop)
        finish = draw_finish(rng, palette, STUFF)
        if shy:
            finish = _nearly(rng, first, finish.pattern)
        _fill(easel, window, bits, finish)


def _nearly(rng: Generator, like: Finish, pattern: str) -> Finish:
    """A finish whose colours stay close to another's: only texture and a shade tell them apart."""
    shift = rng.normal(0, 0.06, 3).astype(np.float32)
    base, other = clamp(like.base + shift, 0.02, 0.98), clamp(like.other + shift, 0.02, 0.98)
    nearest = min(NAMED, key=lambda name: float(np.abs(np.asarray(NAMED[name]) - base).sum()))
    return Finish(nearest, base, other, pattern)


def _fill(easel: Easel, window: Window, bits: NDArray[np.bool_], finish: Finish) -> None:
    """One region in its texture; a third of the large ones are divided once more into parts."""
    rng = easel.rng
    number = easel.canvas.begin(f"{finish.title} region")
    easel.canvas.paint(number, window, bits.astype(np.float32), stuff(easel, window, finish))
    if rng.random() > 0.3 or np.count_nonzero(bits) < 0.04 * easel.canvas.owner.size or min(window.hw) < 16:
        return
    pieces = patches(rng, window.hw) if rng.random() < 0.6 else cells(rng, window.hw)
    for piece in rng.permutation(np.unique(pieces))[:4]:
        inner = bits & (pieces == piece)
        tone = _nearly(rng, finish, finish.pattern).toned(float(rng.uniform(0.75, 1.25)))
        rgb = stuff(easel, window, tone)
        easel.canvas.paint_part(number, window, inner.astype(np.float32), rgb, f"{tone.title} patch")


def stuff(easel: Easel, window: Window, finish: Finish) -> Plane:
    """(h, w, 3) texture of a region over its window, at a random scale and turn."""
    rng = easel.rng
    unit = 2 / easel.canvas.owner.size**0.5 * float(np.exp(rng.uniform(0, 1.8)))
    angle = float(rng.uniform(0, np.pi))
    x = np.arange(window.x0, window.x1, dtype=np.float32)[None, :] * unit
    y = np.arange(window.y0, window.y1, dtype=np.float32)[:, None] * unit
    c, s = float(np.cos(angle)), float(np.sin(angle))
    surface = Surface(c * x + s * y, c * y - s * x, 1 / unit, easel.noise)
    contrast = np.float32(rng.uniform(0.15, 0.8))
    return mixed(finish.base, finish.other, contrast * PATTERNS[finish.pattern](rng, surface))


def _place_things(easel: Easel) -> None:
    """Landmarks and still-life bodies, higher in the picture means farther and smaller."""
    rng, (h, w) = easel.rng, easel.canvas.hw
    n_things = int(rng.integers(0, 26))
    kinds = landmarks.KINDS if rng.random() < 0.7 else landmarks.KINDS + KINDS
    weights = np.asarray([kind.weight for kind in kinds])
    scale = np.exp(rng.normal(-2.9, 0.45))
    for y in np.sort(rng.uniform(0.08, 1.0, n_things)):
        kind: Kind = kinds[int(rng.choice(len(kinds), p=weights / weights.sum()))]
        radius = max(float((h * w) ** 0.5 * scale * (0.35 + 1.3 * y) * np.exp(rng.normal(0, 0.4))), 3.0)
        angle = float(rng.normal(0, 0.06 if kind.upright else 1.5))
        flip = float(rng.choice((-1, 1)))
        frame = Frame.stand(
            easel.canvas.hw, (float(rng.uniform(0, w)), float(y * h)), radius, angle, 1.0, 1.3
        )
        if not frame.window.empty:
            kind.paint(easel, Frame(frame.window, frame.p * flip, frame.q, radius))
