"""Silhouettes: right areas, honest distances, windows that stay on the canvas."""

import numpy as np
import pytest

from engine.synthetic import shapes
from engine.synthetic.shapes import Form, Frame

CENTRED = Frame.stand((200, 200), (100.0, 100.0), 60.0, 0.4)


def area_px(f: shapes.Plane) -> float:
    return float(shapes.coverage_of(shapes.distance_px(Form(f), CENTRED.radius_px)).sum())


@pytest.mark.parametrize(
    ("f", "area"),
    [
        (shapes.disc(CENTRED.p, CENTRED.q, 0.9), np.pi * 0.81),
        (shapes.ring(CENTRED.p, CENTRED.q, 0.6, 0.1), np.pi * (0.49 - 0.25)),
        (shapes.slab(CENTRED.p, CENTRED.q, 0.5, 0.3), 0.6),
        (shapes.bar(CENTRED.p, CENTRED.q, (-0.5, 0.0), (0.5, 0.0), 0.05), 0.1 + np.pi * 0.0025),
        (shapes.convex(CENTRED.p, CENTRED.q, np.asarray([(-0.5, -0.5), (0.5, -0.5), (0.0, 0.5)])), 0.5),
    ],
)
def test_coverage_sums_to_the_area_of_the_figure(f: shapes.Plane, area: float) -> None:
    assert area_px(f) == pytest.approx(area * CENTRED.radius_px**2, rel=0.02)


def test_distance_is_in_pixels_of_the_canvas_even_when_squeezed() -> None:
    frame = Frame.stand((200, 200), (100.0, 100.0), 60.0, 0.0, 0.5)
    distance = shapes.distance_px(Form(shapes.disc(frame.p, frame.q)), frame.radius_px)
    column = distance[:, 100 - frame.window.x0]
    # The squeezed disc ends 30 px below the centre; pixel 132 has its centre 2.5 px beyond.
    assert column[132 - frame.window.y0] == pytest.approx(2.5, abs=0.25)


def test_a_half_ball_is_as_high_as_its_radius() -> None:
    height = shapes.height_of(Form(shapes.disc(CENTRED.p, CENTRED.q)), CENTRED.radius_px)
    assert height.max() == pytest.approx(60, rel=0.01) and height.min() == 0


@pytest.mark.parametrize("centre_xy", [(-500.0, 10.0), (10.0, 900.0), (199.0, 0.0)])
def test_a_window_never_leaves_the_canvas(centre_xy: tuple[float, float]) -> None:
    frame = Frame.stand((200, 200), centre_xy, 40.0)
    y0, y1, x0, x1 = frame.window
    assert frame.window.empty or (0 <= y0 < y1 <= 200 and 0 <= x0 < x1 <= 200)
