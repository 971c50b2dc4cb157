"""The canvas keeps one owner per pixel, and parts as seen from the front."""

import numpy as np
from numpy.typing import NDArray

from engine.synthetic.canvas import Canvas, Window

GREY = np.full(3, 0.5, np.float32)


def square(canvas: Canvas, window: Window) -> tuple[Window, NDArray[np.float32], NDArray[np.float32]]:
    return window, np.ones(window.hw, np.float32), np.broadcast_to(GREY, (*window.hw, 3))


def test_a_pixel_half_covered_belongs_to_the_layer_and_one_less_covered_does_not() -> None:
    canvas = Canvas((6, 6))
    window = Window(0, 6, 0, 6)
    coverage = np.tile(np.asarray([0, 0.49, 0.5, 0.51, 1, 1], np.float32), (6, 1))
    canvas.paint(canvas.begin("slope"), window, coverage, np.zeros((6, 6, 3), np.float32))
    (mask,) = canvas.masks()
    assert mask.mask[0].tolist() == [False, False, True, True, True, True]


def test_colour_is_blended_by_coverage() -> None:
    canvas = Canvas((4, 4))
    window = Window(1, 2, 1, 2)
    canvas.paint(
        canvas.begin("dot"), window, np.full((1, 1), 0.25, np.float32), np.ones((1, 1, 3), np.float32)
    )
    assert np.allclose(canvas.rgb[1, 1], 0.625) and np.allclose(canvas.rgb[0, 0], 0.5)


def test_what_is_painted_later_hides_what_lies_behind() -> None:
    canvas = Canvas((20, 20))
    canvas.paint(canvas.begin("back"), *square(canvas, Window(0, 10, 0, 10)))
    canvas.paint(canvas.begin("front"), *square(canvas, Window(5, 15, 5, 15)))
    back, front = canvas.masks()
    assert (back.name, back.depth, front.name, front.depth) == ("back", 0, "front", 1)
    assert back.mask.sum() == 75 and front.mask.sum() == 100


def test_a_whole_hidden_but_for_eleven_pixels_is_left_out() -> None:
    canvas = Canvas((20, 20))
    canvas.paint(canvas.begin("hidden"), *square(canvas, Window(0, 1, 0, 11)))
    canvas.paint(canvas.begin("seen"), *square(canvas, Window(2, 3, 0, 12)))
    assert [m.name for m in canvas.masks()] == ["seen"]


def test_a_later_part_takes_pixels_from_its_sibling_but_not_from_the_part_that_holds_it() -> None:
    canvas = Canvas((20, 20))
    number = canvas.begin("ladybird")
    canvas.paint(number, *square(canvas, Window(0, 20, 0, 20)))
    left = canvas.paint_part(number, *square(canvas, Window(0, 20, 0, 10)), name="left")
    canvas.paint_part(number, *square(canvas, Window(0, 20, 5, 15)), name="middle")
    canvas.paint_part(number, *square(canvas, Window(0, 4, 0, 4)), name="spot", inside=left)
    by_name = {m.name: m for m in canvas.masks()}
    assert by_name["left"].mask.sum() == 100 and by_name["middle"].mask.sum() == 200
    assert by_name["spot"].parent == 1 and by_name["spot"].mask.sum() == 16


def test_a_part_beyond_its_whole_enlarges_it() -> None:
    canvas = Canvas((20, 20))
    number = canvas.begin("cup")
    canvas.paint(number, *square(canvas, Window(0, 10, 0, 10)))
    canvas.paint_part(number, *square(canvas, Window(0, 10, 10, 14)), name="handle")
    whole, handle = canvas.masks()
    assert whole.mask.sum() == 140 and handle.mask.sum() == 40


def test_a_part_that_is_all_that_is_left_of_its_whole_is_not_named_twice() -> None:
    canvas = Canvas((20, 20))
    number = canvas.begin("cup")
    canvas.paint(number, *square(canvas, Window(0, 10, 0, 10)))
    canvas.paint_part(number, *square(canvas, Window(0, 5, 0, 10)), name="lid")
    canvas.paint(canvas.begin("cloth"), *square(canvas, Window(5, 10, 0, 10)))
    assert [m.name for m in canvas.masks()] == ["cup", "cloth"]


def test_tint_and_shadow_change_colour_but_no_owner() -> None:
    canvas = Canvas((8, 8))
    canvas.tint(Window(0, 4, 0, 4), np.ones((4, 4), np.float32), np.ones(3, np.float32))
    canvas.darken(Window(-2, 2, 6, 12), np.full((4, 6), 0.5, np.float32))
    assert np.allclose(canvas.rgb[0, 0], 1) and np.allclose(canvas.rgb[0, 7], 0.25)
    assert np.all(canvas.owner == -1)
