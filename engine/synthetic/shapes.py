"""Silhouettes as implicit functions, rasterised inside the shape's own window only.

A shape function takes coordinates (p, q) in units of the shape's radius, q downwards, and returns a `Form`:
`f` (h, w), negative inside, with a slope near one per radius; and `bevel`, how far from the rim, in radii,
the surface goes on rising (1 makes a disc a ball, 0.1 makes it a coin). `swell`, where given, replaces `f` in
the height: a bottle is round across and straight along.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.random import Generator

from engine.synthetic.canvas import Window
from engine.synthetic.fields import Plane, clamp
from engine.synthetic.lighting import slopes

Points = Plane


@dataclass(frozen=True)
class Form:
    """An implicit silhouette and how it swells."""

    f: Plane
    bevel: float = 1.0
    swell: Plane | None = None


@dataclass(frozen=True)
class Frame:
    """Where a shape stands: its window on the canvas and, at each pixel centre, coordinates in radii."""

    window: Window
    p: Plane
    q: Plane
    radius_px: float

    @staticmethod
    def stand(
        canvas_hw: tuple[int, int],
        centre_xy: tuple[float, float],
        radius_px: float,
        angle: float = 0.0,
        squeeze: float = 1.0,
        reach: float = 1.0,
    ) -> "Frame":
        """The frame of a shape reaching `reach` radii, turned by `angle`, flattened along q by `squeeze`.

        The window is cut to the canvas and may be empty.
        """
        h, w = canvas_hw
        cx, cy = centre_xy
        margin = radius_px * reach + 3
        top, left = max(0, int(cy - margin)), max(0, int(cx - margin))
        window = Window(top, min(h, int(cy + margin) + 1), left, min(w, int(cx + margin) + 1))
        x = (np.arange(window.x0, max(window.x1, window.x0)) + (0.5 - cx)).astype(np.float32)[None, :]
        y = (np.arange(window.y0, max(window.y1, window.y0)) + (0.5 - cy)).astype(np.float32)[:, None]
        along, across = np.float32(np.cos(angle) / radius_px), np.float32(np.sin(angle) / radius_px)
        return Frame(
            window, x * along + y * across, (y * along - x * across) / np.float32(squeeze), radius_px
        )

    def sub(self, window: Window) -> "Frame":
        """The same coordinates over a smaller window."""
        cut = window.within(self.window)
        return Frame(window, self.p[cut], self.q[cut], self.radius_px)


def distance_px(form: Form, radius_px: float) -> Plane:
    """(h, w) signed distance to the outline in pixels, first order: f over its own slope."""
    dy, dx = slopes(form.f)
    slope = np.sqrt(dx * dx + dy * dy)
    return form.f / np.maximum(slope, np.float32(0.15 / radius_px))


def coverage_of(distance: Plane) -> Plane:
    """(h, w) share of each pixel inside a straight outline at this signed distance in pixels."""
    return clamp(np.float32(0.5) - distance)


def height_of(form: Form, radius_px: float) -> Plane:
    """(h, w) height in pixels: a quarter circle of `bevel` radii from the rim, then level."""
    depth = form.f if form.swell is None else form.swell
    rise = clamp(1 + depth / np.float32(form.bevel))
    return np.float32(form.bevel * radius_px) * np.sqrt(1 - rise * rise)


def disc(p: Plane, q: Plane, radius: float = 1.0) -> Plane:
    """A circle about the origin."""
    return np.sqrt(p * p + q * q) - np.float32(radius)


def ring(p: Plane, q: Plane, radius: float, half_width: float) -> Plane:
    """A closed ring; the hole shows what lies behind."""
    return np.abs(disc(p, q, radius)) - np.float32(half_width)


def slab(p: Plane, q: Plane, half_p: float, half_q: float, corner: float = 0.0) -> Plane:
    """A rectangle with rounded corners."""
    dp = np.abs(p) - np.float32(half_p - corner)
    dq = np.abs(q) - np.float32(half_q - corner)
    outside = np.sqrt(np.maximum(dp, 0) ** 2 + np.maximum(dq, 0) ** 2)
    f: Plane = outside + np.minimum(np.maximum(dp, dq), 0) - corner
    return f


def bar(p: Plane, q: Plane, start: Sequence[float], end: Sequence[float], half_width: float) -> Plane:
    """A straight rod with round ends from `start` to `end`, each (p, q)."""
    (p0, q0), (p1, q1) = start, end
    dp, dq = np.float32(p1 - p0), np.float32(q1 - q0)
    along = (p - np.float32(p0)) * dp + (q - np.float32(q0)) * dq
    t = clamp(along / np.float32(dp * dp + dq * dq + 1e-9))
    return disc(p - np.float32(p0) - t * dp, q - np.float32(q0) - t * dq, half_width)


def arc(p: Plane, q: Plane, radius: float, half_width: float, opening: float) -> Plane:
    """A ring cut open: `opening` is half the missing angle (radians), about the positive p axis."""
    body = ring(p, q, radius, half_width)
    end_p, end_q = np.float32(radius * np.cos(opening)), np.float32(radius * np.sin(opening))
    tip = disc(p - end_p, np.abs(q) - end_q, half_width)
    slope_p, slope_q = np.float32(np.sin(opening)), np.float32(np.cos(opening))
    in_gap = np.abs(q) * slope_q < p * slope_p
    return np.where(in_gap, tip, body)


def convex(p: Plane, q: Plane, corners: Points) -> Plane:
    """A convex polygon; `corners` (n, 2) clockwise as seen on screen (q downwards)."""
    f = np.full_like(p, -1e3)
    for (p0, q0), (p1, q1) in zip(corners, np.roll(corners, -1, axis=0), strict=True):
        length = float(np.hypot(p1 - p0, q1 - q0)) + 1e-9
        normal_p, normal_q = np.float32((q1 - q0) / length), np.float32((p0 - p1) / length)
        f = np.maximum(f, normal_p * (p - np.float32(p0)) + normal_q * (q - np.float32(q0)))
    return f


def star(p: Plane, q: Plane, n_tips: int, inner: float, roundness: float = 0.05) -> Plane:
    """A star with tips at radius 1 and notches at radius `inner`; many tips and a large `inner`: a gear."""
    sector = np.float32(2 * np.pi / n_tips)
    angle = np.arctan2(q, p)
    folded = np.abs(angle - sector * np.rint(angle / sector))
    radius = np.sqrt(p * p + q * q)
    a, b = radius * np.cos(folded), radius * np.sin(folded)
    tip = np.asarray((1 - roundness, 0.0))
    notch = (inner - roundness) * np.asarray((np.cos(sector / 2), np.sin(sector / 2)))
    edge = notch - tip
    normal = (np.asarray((edge[1], -edge[0])) / np.hypot(*edge)).astype(np.float32)
    past_edge: Plane = normal[0] * a + normal[1] * b
    return past_edge - (float(normal @ tip) + roundness)


def blob(rng: Generator, p: Plane, q: Plane, wobble: float, n_waves: int = 5) -> Plane:
    """An irregular round body; `wobble` 0 is a disc, 0.5 is a splash."""
    angle = np.arctan2(q, p)
    # By recurrence: one sine and one cosine however many waves.
    turn_re, turn_im = np.cos(angle), np.sin(angle)
    re, im = turn_re, turn_im
    outline = np.full_like(p, 0.8)
    for wave in range(2, n_waves + 2):
        re, im = re * turn_re - im * turn_im, re * turn_im + im * turn_re
        a, b = rng.normal(0, wobble / wave, 2).astype(np.float32)
        outline += a * re + b * im
    return np.sqrt(p * p + q * q) - clamp(outline, 0.25, 1.15)


def leaf(p: Plane, q: Plane, width: float, tail: float = 1.0) -> Plane:
    """A pointed leaf from p = -1 to p = 1; `tail` above 1 moves the widest place towards the stem."""
    along = clamp((p + 1) / 2) ** np.float32(1 / tail)
    half = np.float32(width) * np.sin(np.pi * along) + np.float32(0.004)
    f: Plane = np.maximum(np.abs(q) - half, np.abs(p) - 1)
    return f


def lathe(p: Plane, q: Plane, at: Sequence[float], half_widths: Sequence[float]) -> Form:
    """A turned body upright along q: `half_widths` at heights `at` (ascending q), joined smoothly."""
    t = np.interp(q, at, np.arange(len(at))).astype(np.float32)
    cell = np.minimum(t.astype(np.int64), len(at) - 2)
    s = t - cell
    s = s * s * (3 - 2 * s)
    widths = np.asarray(half_widths, np.float32)
    half = widths[cell] + s * (widths[cell + 1] - widths[cell])
    middle, reach = np.float32((at[0] + at[-1]) / 2), np.float32((at[-1] - at[0]) / 2)
    across = np.abs(p) - half
    # Round across whatever the width here: one half width from rim to axis.
    swell = across / np.maximum(half, np.float32(0.02)) * widths.max()
    return Form(np.maximum(across, np.abs(q - middle) - reach), float(widths.max()), swell)


def wave(p: Plane, q: Plane, swing: float, n_turns: float, half_width: float) -> Plane:
    """A wire winding along p from -1 to 1."""
    k = np.float32(np.pi * n_turns)
    slope = np.float32(swing) * k * np.cos(k * p)
    off = np.abs(q - np.float32(swing) * np.sin(k * p)) / np.sqrt(1 + slope * slope)
    f: Plane = np.maximum(off, np.abs(p) - (1 - half_width)) - half_width
    return f


def crescent(p: Plane, q: Plane, bite: float) -> Plane:
    """A moon or a banana: a disc without another disc shifted by `bite`."""
    return np.maximum(disc(p, q), -disc(p, q + np.float32(bite), 1.0))


def heart(p: Plane, q: Plane) -> Plane:
    """A heart, tip downwards."""
    side = np.abs(p)
    top = disc(side - np.float32(0.45), q + np.float32(0.3), 0.52)
    corners = np.asarray([(-1.0, -0.15), (0.0, -0.6), (0.9, -0.02), (0.0, 0.98)], np.float32)
    return np.minimum(top, convex(side, q, corners))
