"""The easel: puts one shaded, textured, shadow-casting piece of a body onto the canvas."""

from dataclasses import dataclass

import numpy as np
from numpy.random import Generator

from engine.synthetic.canvas import Canvas, Window
from engine.synthetic.colours import Finish, Palette, mixed
from engine.synthetic.fields import Plane
from engine.synthetic.lighting import Light, shade, shadow_of
from engine.synthetic.shapes import Form, Frame, coverage_of, distance_px, height_of
from engine.synthetic.textures import PATTERNS, NoiseBank, Surface


@dataclass(frozen=True)
class Easel:
    """What every painter of a scene shares."""

    canvas: Canvas
    rng: Generator
    light: Light
    noise: NoiseBank
    palette: Palette

    @staticmethod
    def set_up(canvas: Canvas, rng: Generator) -> "Easel":
        """A random lamp, palette and noise for this canvas."""
        return Easel(canvas, rng, Light.draw(rng), NoiseBank.draw(rng, canvas.hw), Palette.draw(rng))

    def colour(self, finish: Finish, frame: Frame, form: Form) -> Plane:
        """(h, w, 3) lit colour of a surface of this form and finish."""
        surface = Surface(frame.p, frame.q, frame.radius_px, self.noise)
        albedo = mixed(finish.base, finish.other, PATTERNS[finish.pattern](self.rng, surface))
        height = height_of(form, frame.radius_px)
        if finish.roughness_px > 0:
            height += np.float32(finish.roughness_px) * self.noise.patch(self.rng, height.shape, "fine")
        return shade(albedo, height, self.light, finish.gloss)

    def shadow(self, frame: Frame, distance: Plane, lift: float = 0.35) -> None:
        """The soft shadow of a silhouette that stands `lift` radii over what lies behind it."""
        reach = lift * frame.radius_px
        lx, ly, lz = self.light.towards
        shift_x, shift_y = round(-lx / lz * reach), round(-ly / lz * reach)
        y0, y1, x0, x1 = frame.window
        window = Window(y0 + shift_y, y1 + shift_y, x0 + shift_x, x1 + shift_x)
        softness = 0.8 + self.light.softness * reach
        self.canvas.darken(window, shadow_of(distance, softness, self.light.shadow))

    def solid(self, number: int, frame: Frame, form: Form, finish: Finish, lift: float = 0.35) -> Plane:
        """Paint a body with its shadow (`lift` 0: none); returns its coverage (h, w)."""
        if frame.window.empty:
            return np.zeros((0, 0), np.float32)
        distance = distance_px(form, frame.radius_px)
        if lift > 0:
            self.shadow(frame, distance, lift)
        coverage = coverage_of(distance)
        self.canvas.paint(number, frame.window, coverage, self.colour(finish, frame, form))
        return coverage

    def part(
        self,
        number: int,
        frame: Frame,
        form: Form,
        finish: Finish,
        name: str,
        *,
        on: Plane | None = None,
        inside: int | None = None,
        lift: float = 0.0,
    ) -> int:
        """Paint a part; `on` (h, w) is the coverage it may not leave. Returns its handle, -1 if unseen."""
        if frame.window.empty:
            return -1
        distance = distance_px(form, frame.radius_px)
        if lift > 0:
            self.shadow(frame, distance, lift)
        coverage = coverage_of(distance)
        if on is not None:
            coverage = coverage * on
        rgb = self.colour(finish, frame, form)
        return self.canvas.paint_part(number, frame.window, coverage, rgb, name, inside)
