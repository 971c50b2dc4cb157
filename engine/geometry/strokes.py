"""A person's strokes on a mask: brush, eraser, lasso, and pixels filled or removed at once.

The page paints by the same rule (annotator_ui/web/src/core/strokes.ts). Both work in whole tenths of a pixel,
so they agree to the pixel, and a saved mask can be replayed: what its prompts give (without prompts the mask
that it corrects, or nothing), with the strokes laid over it in their order.

Whole coordinates are pixel centres, as in prompts. A brush or eraser of `size` px covers each pixel whose
centre lies within size / 2 of the path; a lasso each pixel whose centre its closed path winds around.
`fill_holes` and `remove_specks` name their pixels as COCO counts.
"""

import math
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from engine.errors import BadInput
from engine.geometry.rle import MAX_RUNS, Rle, bbox_xywh, decode, validate

MAX_STROKES = 1000
MAX_POINTS = 50_000  # of all strokes of one mask together
MAX_SIZE_PX = 500
MAX_OUTSIDE_PX = 1000  # how far a path may leave the image
# Rows of all path pieces together, which is what painting costs; a brush of 500 px takes 500 for each point.
_MAX_ROWS = 10_000_000
_ROWS_AT_ONCE = 200_000
_TENTHS = 10
# Beyond every column, on either side.
_FAR = 1 << 40
_BY_PATH = ("brush", "erase", "lasso")
_BY_PIXELS = ("fill_holes", "remove_specks")

Stroke = Mapping[str, Any]
Path = NDArray[np.int64]


class Cover(NamedTuple):
    """The pixels (h, w) that a stroke covers, from column x and row y on."""

    x: int
    y: int
    pixels: NDArray[np.bool_]


def paint(mask: NDArray[np.bool_], strokes: Sequence[Stroke]) -> NDArray[np.bool_]:
    """The (H, W) mask with checked strokes laid over it in their order, later over earlier; `mask` stays."""
    painted = mask.copy()
    for stroke in strokes:
        x, y, pixels = cover_of(stroke, (mask.shape[0], mask.shape[1]))
        here = painted[y : y + pixels.shape[0], x : x + pixels.shape[1]]
        here[pixels] = adds(stroke)
    return painted


def adds(stroke: Stroke) -> bool:
    """Whether the stroke adds its pixels to the mask or takes them away."""
    return stroke["kind"] in ("brush", "fill_holes") or stroke.get("label") == 1


def cover_of(stroke: Stroke, hw: tuple[int, int]) -> Cover:
    """The pixels that a checked stroke covers in an image of (H, W)."""
    if stroke["kind"] in _BY_PIXELS:
        return _named_pixels(stroke, hw)
    path = _path(stroke)
    if stroke["kind"] == "lasso":
        return _within(path, hw)
    return _along(path, int(stroke["size"]) * _TENTHS // 2, hw)


def check_strokes(strokes: Sequence[object], hw: tuple[int, int], *, max_runs: int = MAX_RUNS) -> None:
    """Raises BadInput with the first stroke of an image of (H, W) that cannot be painted, and why."""
    if len(strokes) > MAX_STROKES:
        raise BadInput(f"at most {MAX_STROKES} strokes make one mask: accept it, then correct it")
    n_points = n_rows = 0
    for number, stroke in enumerate(strokes, start=1):
        complaint = _complaint(stroke, hw)
        if complaint or not isinstance(stroke, Mapping):
            raise BadInput(f"stroke {number} cannot be painted: {complaint}")
        if stroke["kind"] in _BY_PIXELS:
            validate({"size": list(hw), "counts": stroke["counts"]}, hw, max_runs=max_runs)
            continue
        n_points += len(stroke["points"]) // 2
        n_rows += _n_rows(_path(stroke), stroke.get("size", 1))
    if n_points > MAX_POINTS:
        raise BadInput(
            f"the strokes of one mask have at most {MAX_POINTS} points: accept it, then correct it"
        )
    if n_rows > _MAX_ROWS:
        raise BadInput("these strokes are too long and wide to be painted: accept the mask, then correct it")


def _complaint(stroke: object, hw: tuple[int, int]) -> str:
    if not isinstance(stroke, Mapping) or stroke.get("kind") not in _BY_PATH + _BY_PIXELS:
        return f"kind must be one of {', '.join(_BY_PATH + _BY_PIXELS)}"
    if stroke["kind"] in _BY_PIXELS:
        return "" if isinstance(stroke.get("counts"), str) else "counts must be a text of compressed runs"
    if stroke["kind"] == "lasso" and stroke.get("label") not in (0, 1):
        return "label must be 1 (add) or 0 (take away)"
    size = stroke.get("size")
    if stroke["kind"] != "lasso" and not (type(size) is int and 1 <= size <= MAX_SIZE_PX):
        return f"size must be a whole number of pixels from 1 to {MAX_SIZE_PX}"
    return _path_complaint(stroke.get("points"), hw)


def _path_complaint(points: object, hw: tuple[int, int]) -> str:
    if not isinstance(points, list) or not points or len(points) % 2:
        return "points must be [x, y, x, y, ...], at least one pair"
    if len(points) > 2 * MAX_POINTS:
        return f"it has more than {MAX_POINTS} points"
    if not all(type(value) in (int, float) and math.isfinite(value) for value in points):
        return "points must be finite numbers"
    xs, ys, far = points[::2], points[1::2], MAX_OUTSIDE_PX
    if min(xs) < -far or max(xs) > hw[1] + far or min(ys) < -far or max(ys) > hw[0] + far:
        return f"it leaves the image of {hw[1]} x {hw[0]} px by more than {far} px"
    return ""


def _path(stroke: Stroke) -> Path:
    """Corners (N, 2) x y in whole tenths of a pixel; halves go up, as Math.round does in the page."""
    points = np.asarray(stroke["points"], np.float64).reshape(-1, 2)
    return np.floor(points * _TENTHS + 0.5).astype(np.int64)


def _n_rows(path: Path, size: int) -> int:
    """How many image rows the pieces of the path reach into, all together."""
    return int(np.abs(np.diff(path[:, 1], append=path[:1, 1])).sum()) // _TENTHS + len(path) * (size + 2)


def _named_pixels(stroke: Stroke, hw: tuple[int, int]) -> Cover:
    rle = Rle(size=list(hw), counts=stroke["counts"])
    x, y, width, height = bbox_xywh(rle)
    return Cover(x, y, decode(rle)[y : y + height, x : x + width])


def _frame(path: Path, reach: int, hw: tuple[int, int]) -> tuple[int, int, int, int]:
    """First and last column and row (x0, y0, x1, y1) of the image within `reach` tenths of the path."""
    low = np.maximum(-(-(path.min(axis=0) - reach) // _TENTHS), 0)
    high = np.minimum((path.max(axis=0) + reach) // _TENTHS, [hw[1] - 1, hw[0] - 1])
    return int(low[0]), int(low[1]), int(high[0]), int(high[1])


def _along(path: Path, radius: int, hw: tuple[int, int]) -> Cover:
    """Pixels whose centre lies within `radius` tenths of the path: in each row one stretch for each piece."""
    x0, y0, x1, y1 = _frame(path, radius, hw)
    if x1 < x0 or y1 < y0:
        return Cover(0, 0, np.zeros((0, 0), bool))
    a, b = (path[:-1], path[1:]) if len(path) > 1 else (path, path)
    tops = np.maximum(_ceil(np.minimum(a[:, 1], b[:, 1]) - radius, _TENTHS), y0)
    bottoms = np.minimum((np.maximum(a[:, 1], b[:, 1]) + radius) // _TENTHS, y1)
    steps = np.zeros((y1 - y0 + 1, x1 - x0 + 2), np.int32)
    for rows, piece in _rows_of(tops, bottoms):
        low, high = _stretches(a[piece].T, b[piece].T, radius, rows)
        low, high = np.maximum(low, x0), np.minimum(high, x1)
        full = low <= high
        np.add.at(steps, (rows[full] - y0, low[full] - x0), 1)
        np.add.at(steps, (rows[full] - y0, high[full] - x0 + 1), -1)
    return Cover(x0, y0, np.cumsum(steps, axis=1)[:, :-1] > 0)


def _within(path: Path, hw: tuple[int, int]) -> Cover:
    """Pixels whose centre the closed path winds around; on the path itself, left and upper sides count."""
    x0, y0, x1, y1 = _frame(path, 0, hw)
    if x1 < x0 or y1 < y0:
        return Cover(0, 0, np.zeros((0, 0), bool))
    ends = np.roll(path, -1, axis=0)
    falls = path[:, 1] < ends[:, 1]
    upper, lower = np.where(falls[:, None], path, ends), np.where(falls[:, None], ends, path)
    # Rows with upper <= 10 y < lower; a level piece has none.
    tops = np.maximum(_ceil(upper[:, 1], _TENTHS), y0)
    bottoms = np.minimum(_ceil(lower[:, 1], _TENTHS) - 1, y1)
    turns = np.zeros((y1 - y0 + 1, x1 - x0 + 2), np.int32)
    for rows, piece in _rows_of(tops, bottoms):
        (x, y), (dx, dy) = upper[piece].T, (lower - upper)[piece].T
        # The columns with 10 x left of where the piece crosses the row.
        n_left = np.clip(_ceil(x * dy + (rows * _TENTHS - y) * dx, _TENTHS * dy), x0, x1 + 1)
        turn = np.where(falls[piece], 1, -1)
        np.add.at(turns, (rows - y0, np.zeros_like(rows)), turn)
        np.add.at(turns, (rows - y0, n_left - x0), -turn)
    return Cover(x0, y0, np.cumsum(turns, axis=1)[:, :-1] != 0)


def _rows_of(tops: Path, bottoms: Path) -> Iterator[tuple[Path, Path]]:
    """Every row from top to bottom of every piece, as rows (R,) and the pieces' numbers (R,), in portions."""
    n_rows = np.maximum(bottoms - tops + 1, 0)
    portion = (np.cumsum(n_rows) // _ROWS_AT_ONCE).astype(np.int64)
    for pieces in np.split(np.arange(len(tops)), np.flatnonzero(np.diff(portion)) + 1):
        piece = np.repeat(pieces, n_rows[pieces])
        begins = np.cumsum(n_rows[pieces]) - n_rows[pieces]
        yield tops[piece] + np.arange(len(piece)) - np.repeat(begins, n_rows[pieces]), piece


def _stretches(a: Path, b: Path, radius: int, rows: Path) -> tuple[Path, Path]:
    """First and last column (R,) within `radius` of the pieces a b (2, R); first > last where there is none.

    A piece's surroundings are convex, two discs and the slab between, so their stretches join to one.
    """
    low, high = _disc(a, radius, rows)
    for first, last in (_disc(b, radius, rows), _slab(a, b, radius, rows)):
        low = np.where(first <= last, np.minimum(low, first), low)
        high = np.where(first <= last, np.maximum(high, last), high)
    return low, high


def _disc(centre: Path, radius: int, rows: Path) -> tuple[Path, Path]:
    rest = radius * radius - (rows * _TENTHS - centre[1]) ** 2
    half = _root(np.maximum(rest, 0))
    low, high = _ceil(centre[0] - half, _TENTHS), (centre[0] + half) // _TENTHS
    return np.where(rest >= 0, low, _FAR), np.where(rest >= 0, high, -_FAR)


def _slab(a: Path, b: Path, radius: int, rows: Path) -> tuple[Path, Path]:
    """Where the foot on the line a b lies between both ends and is no further than `radius`."""
    dx, dy = b - a
    length_2 = dx * dx + dy * dy
    across = _root(radius * radius * length_2)
    down = rows * _TENTHS - a[1]
    # With u = 10 x - ax: 0 <= u dx + down dy <= length_2 and |u dy - down dx| <= across.
    along = _between(dx, -down * dy, length_2 - down * dy, a[0])
    beside = _between(dy, down * dx - across, down * dx + across, a[0])
    low, high = np.maximum(along[0], beside[0]), np.minimum(along[1], beside[1])
    return np.where(length_2 > 0, low, _FAR), np.where(length_2 > 0, high, -_FAR)


def _between(factor: Path, least: Path, most: Path, offset: Path) -> tuple[Path, Path]:
    """First and last whole x with least <= (10 x - offset) factor <= most; without a factor, all or none."""
    least, most = np.where(factor < 0, -most, least), np.where(factor < 0, -least, most)
    factor = np.abs(factor)
    scale = np.maximum(_TENTHS * factor, 1)
    fits = (least <= 0) & (most >= 0)
    low = np.where(factor > 0, _ceil(least + offset * factor, scale), np.where(fits, -_FAR, _FAR))
    high = np.where(factor > 0, (most + offset * factor) // scale, np.where(fits, _FAR, -_FAR))
    return low, high


def _ceil(numerator: Path, denominator: Path | int) -> Path:
    quotient: Path = -(-numerator // denominator)
    return quotient


def _root(square: Path) -> Path:
    """The whole part of the square root, exact to 2**62: floating point may be off by one."""
    root = np.sqrt(square.astype(np.float64)).astype(np.int64)
    root -= root * root > square
    exact: Path = root + ((root + 1) * (root + 1) <= square)
    return exact
