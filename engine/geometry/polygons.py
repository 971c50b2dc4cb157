"""COCO polygons as masks: a region is a list of outlines, each flat [x0, y0, x1, y1, ...] in pixels."""

import math
from collections.abc import Sequence

from pycocotools import mask as coco_mask

from engine.errors import BadInput
from engine.geometry.rle import MAX_PIXELS, Rle, check_size, merge, validate

# Published files overshoot the image by rounding; anything farther out was drawn on another image.
TOLERANCE_PX = 2.0
MAX_VERTICES = 100_000
# pycocotools spends about 100 bytes on each pixel of outline, so its length is the real size of the input.
MAX_OUTLINE_PX = 1_000_000


def polygon_to_rle(polygons: object, hw: tuple[int, int], *, max_pixels: int = MAX_PIXELS) -> Rle:
    """The union of outlines as the mask pycocotools draws; raises BadInput before it sees anything odd.

    Coordinates are finite and inside the image of height and width `hw`, or at most TOLERANCE_PX outside,
    which is clipped. A polygon has at least three corners.
    """
    height, width = check_size(list(hw), None, max_pixels)
    if not isinstance(polygons, list) or not polygons:
        raise BadInput("a polygon segmentation is a list of at least one [x0, y0, x1, y1, x2, y2, ...]")
    outlines = [_outline(polygon, position, (height, width)) for position, polygon in enumerate(polygons)]
    _check_extent(outlines)
    drawn = coco_mask.frPyObjects(outlines, height, width)
    return merge([validate(rle, (height, width), max_pixels=max_pixels) for rle in drawn])


def _outline(polygon: object, position: int, hw: tuple[int, int]) -> list[float]:
    if not isinstance(polygon, list) or len(polygon) < 6 or len(polygon) % 2:
        raise BadInput(f"polygon {position} needs at least three corners, x and y of each")
    if len(polygon) > 2 * MAX_VERTICES:
        raise BadInput(f"polygon {position} has more than {MAX_VERTICES} corners: simplify it")
    limits = (hw[1], hw[0])
    return [_coordinate(number, limits[place % 2], position) for place, number in enumerate(polygon)]


def _coordinate(number: object, limit: int, position: int) -> float:
    if isinstance(number, bool) or not isinstance(number, int | float) or not _is_finite(number):
        raise BadInput(f"polygon {position} has a coordinate that is not a finite number")
    value = float(number)
    if not -TOLERANCE_PX <= value <= limit + TOLERANCE_PX:
        raise BadInput(f"polygon {position} leaves the image: coordinate {value:g} of {limit} pixels")
    return min(max(value, 0.0), float(limit))


def _is_finite(number: float) -> bool:
    """False also for a whole number too large to be a float."""
    return abs(number) < 1e300


def _check_extent(outlines: Sequence[Sequence[float]]) -> None:
    if sum(len(outline) for outline in outlines) > 2 * MAX_VERTICES:
        raise BadInput(f"the polygons have more than {MAX_VERTICES} corners together: simplify them")
    if sum(_length(outline) for outline in outlines) > MAX_OUTLINE_PX:
        raise BadInput(f"the polygons' outlines are longer than {MAX_OUTLINE_PX} pixels: simplify them")


def _length(outline: Sequence[float]) -> float:
    """Length of the closed outline in pixels."""
    corners = list(zip(outline[0::2], outline[1::2], strict=True))
    return sum(math.dist(one, other) for one, other in zip(corners, corners[1:] + corners[:1], strict=True))
