"""Polygons become the masks pycocotools draws."""

import numpy as np
from pycocotools import mask as coco_mask

from engine.geometry.polygons import polygon_to_rle
from engine.geometry.rle import area, bbox_xywh, decode


def test_a_rectangle_fills_its_pixels() -> None:
    rle = polygon_to_rle([[2, 3, 7, 3, 7, 8, 2, 8]], (20, 30))
    assert rle["size"] == [20, 30] and area(rle) == 25 and bbox_xywh(rle) == (2, 3, 5, 5)


def test_a_polygon_is_drawn_as_the_reference_draws_it() -> None:
    random = np.random.default_rng(4)
    for _ in range(40):
        outlines = [(random.random(2 * random.integers(3, 12)) * 60).round(2).tolist() for _ in range(2)]
        drawn = coco_mask.merge(coco_mask.frPyObjects(outlines, 50, 60))
        inside = [[min(number, (60, 50)[place % 2]) for place, number in enumerate(one)] for one in outlines]
        if inside == outlines:
            assert np.array_equal(decode(polygon_to_rle(outlines, (50, 60))), coco_mask.decode(drawn))


def test_a_corner_just_outside_is_moved_to_the_edge() -> None:
    assert polygon_to_rle([[-1.5, -1, 31, -1, 31, 21, -1.5, 21]], (20, 30)) == polygon_to_rle(
        [[0, 0, 30, 0, 30, 20, 0, 20]], (20, 30)
    )
    assert area(polygon_to_rle([[-1, -1, 31, -1, 31, 21, -1, 21]], (20, 30))) == 600


def test_overlapping_outlines_are_one_region() -> None:
    twice = polygon_to_rle([[0, 0, 5, 0, 5, 5, 0, 5], [3, 0, 8, 0, 8, 5, 3, 5]], (9, 9))
    assert area(twice) == 40
