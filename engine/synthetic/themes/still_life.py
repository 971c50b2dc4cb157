"""Still life: things of every size on a table, a wall, cloth or wood."""

import numpy as np
from numpy.random import Generator
from numpy.typing import NDArray

from engine.synthetic.bodies import KINDS, Kind
from engine.synthetic.canvas import Canvas
from engine.synthetic.colours import draw_finish, mixed
from engine.synthetic.easel import Easel
from engine.synthetic.fields import Plane
from engine.synthetic.shapes import Frame
from engine.synthetic.textures import PATTERNS, Surface

GROUNDS = (
    "graded", "striped", "wavy", "checkered", "wooden", "marbled", "mottled", "grainy", "woven", "speckled",
    "rough", "rough", "tufted", "rippled",
)  # fmt: skip
# Share of the picture: log-normal about 0.8 %, cut to what the brief of the engine asks for.
MEDIAN_SHARE, SPREAD = 0.007, 1.35
MIN_SHARE, MAX_SHARE = 0.0002, 0.3
# Above this sum of shares the table is full.
FULL_TABLE = 1.1


def paint(canvas: Canvas, rng: Generator) -> None:
    """Paint background and 5 to 60 bodies, large ones mostly behind."""
    easel = Easel.set_up(canvas, rng)
    canvas.rgb[:] = background(easel)
    n_bodies = int(np.clip(np.exp(rng.normal(np.log(24), 0.7)), 5, 60))
    for kind, frame in layout(easel, n_bodies):
        if not frame.window.empty:
            kind.paint(easel, frame)


def background(easel: Easel) -> Plane:
    """(H, W, 3): one surface, or a wall above a table, unevenly lit."""
    h, w = easel.canvas.hw
    rgb = _ground(easel)
    if easel.rng.random() < 0.35:
        top = int(h * easel.rng.uniform(0.15, 0.6))
        rgb[:top] = _ground(easel)[:top]
    glow = 1 + np.float32(easel.rng.uniform(0, 0.25)) * easel.noise.patch(easel.rng, (h, w), "broad")
    return rgb * glow[..., None]


def _ground(easel: Easel) -> Plane:
    """A textured plane: the contrast of its two colours is mostly low."""
    h, w = easel.canvas.hw
    finish = draw_finish(easel.rng, easel.palette, GROUNDS)
    contrast = np.float32(easel.rng.beta(1.3, 1.8))
    unit = np.float32(2 / (h * w) ** 0.5 * np.exp(easel.rng.uniform(-0.3, 1.6)))
    angle = easel.rng.uniform(0, np.pi) if easel.rng.random() < 0.5 else 0.0
    x, y = np.arange(w, dtype=np.float32)[None, :] * unit, np.arange(h, dtype=np.float32)[:, None] * unit
    c, s = np.float32(np.cos(angle)), np.float32(np.sin(angle))
    surface = Surface(c * x + s * y, c * y - s * x, float(1 / unit), easel.noise)
    return mixed(finish.base, finish.other, contrast * PATTERNS[finish.pattern](easel.rng, surface))


def layout(easel: Easel, n_bodies: int) -> list[tuple[Kind, Frame]]:
    """Kinds and frames, back to front: scattered, heaped about a centre, or many of one kind."""
    rng, (h, w) = easel.rng, easel.canvas.hw
    weights = np.asarray([kind.weight for kind in KINDS])
    if rng.random() < 0.25:
        # A still life of few kinds: a bowl of fruit, a box of buttons.
        weights = weights * (rng.random(len(KINDS)) < 0.15) + 1e-9
    kinds = rng.choice(len(KINDS), n_bodies, p=weights / weights.sum())
    median = MEDIAN_SHARE * np.exp(rng.normal(0, 0.5))
    shares = np.clip(median * np.exp(rng.normal(0, SPREAD, n_bodies)), MIN_SHARE, MAX_SHARE)
    shares = shares[np.cumsum(shares) <= max(FULL_TABLE, float(shares[0]))]
    # Large ones first, with exceptions, so that small ones are seen and large ones still hide some.
    shares = shares[np.argsort(-np.log(shares) + rng.normal(0, 0.7, len(shares)))]
    spots = _spots(rng, len(shares)) * np.asarray((w, h))
    return [
        (KINDS[kind], _stand(easel, KINDS[kind], (float(x), float(y)), float(share)))
        for kind, (x, y), share in zip(kinds, spots, shares, strict=False)
    ]


def _spots(rng: Generator, n: int) -> NDArray[np.float64]:
    """(n, 2) centres in 0..1."""
    if rng.random() < 0.3:
        return np.clip(rng.normal(rng.uniform(0.3, 0.7, 2), rng.uniform(0.12, 0.25), (n, 2)), 0.02, 0.98)
    return rng.uniform(0.02, 0.98, (n, 2))


def _stand(easel: Easel, kind: Kind, centre_xy: tuple[float, float], share: float) -> Frame:
    """A frame whose disc would cover `share` of the picture (thin things cover less)."""
    h, w = easel.canvas.hw
    radius = max(float((1.6 * share * h * w / np.pi) ** 0.5), 3.0)
    lean = 0.12 if kind.upright else np.pi
    squeeze = float(easel.rng.uniform(kind.flat, 1))
    return Frame.stand(easel.canvas.hw, centre_xy, radius, float(easel.rng.normal(0, lean)), squeeze, 1.15)
