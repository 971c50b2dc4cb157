"""COCO run-length masks. `validate` is the only way in for a segmentation that somebody else wrote.

pycocotools reads past its buffers, divides by zero or returns uninitialised memory on malformed input, so
nothing reaches it here before our own parser has read the string to its end and found that the runs fill the
image.
"""

from collections.abc import Iterable, Sequence
from typing import Any, TypedDict

import numpy as np
from numpy.typing import NDArray
from pycocotools import mask as coco_mask

from engine.errors import BadInput
from engine.geometry.runs import (
    Runs,
    check_total,
    foreground_spans,
    format_runs,
    mask_to_runs,
    parse_runs,
    runs_to_mask,
)

MAX_SIDE_PX = 32_768
MAX_PIXELS = 50_000_000
MAX_RUNS = 200_000
_MOST_PIXELS = 2**29 - 1  # what the compressed string can say in six characters a run


class Rle(TypedDict):
    """A compressed mask: `size` is [height, width], `counts` an ASCII string."""

    size: list[int]
    counts: str


def encode(mask: NDArray[Any]) -> Rle:
    """The RLE of a (H, W) mask of any number type; every value but 0 is foreground."""
    if mask.ndim != 2 or mask.size == 0:
        raise BadInput(f"a mask has two dimensions, both at least 1; this one has shape {mask.shape}")
    return _from_runs(mask_to_runs(mask != 0), (mask.shape[0], mask.shape[1]))


def decode(rle: Rle) -> NDArray[np.bool_]:
    """The (H, W) mask of an RLE, in column-major memory; raises BadInput on malformed runs."""
    return runs_to_mask(runs_of(rle), _hw(rle))


def decode_by_pycocotools(rle: Rle) -> NDArray[np.bool_]:
    """The same by the reference's C code, once our parser accepted the string: `verify`'s second way."""
    runs_of(rle)
    pixels = coco_mask.decode({"size": list(rle["size"]), "counts": rle["counts"].encode("ascii")})
    return np.asarray(pixels, np.uint8).view(np.bool_)


def area(rle: Rle) -> int:
    """Number of foreground pixels."""
    return int(runs_of(rle)[1::2].sum())


def bbox_xywh(rle: Rle) -> tuple[int, int, int, int]:
    """Box of the foreground in COCO's convention: one pixel has width 1. Empty: (0, 0, 0, 0)."""
    return bbox_of_runs(runs_of(rle), rle["size"][0])


def bbox_sa1b(rle: Rle) -> tuple[int, int, int, int]:
    """Box in SA-1B's convention, right minus left without the + 1: one pixel has width 0."""
    return sa1b_from_coco(bbox_xywh(rle))


def sa1b_from_coco(bbox: tuple[int, int, int, int]) -> tuple[int, int, int, int]:
    """The same box, one pixel narrower and lower; an empty one stays (0, 0, 0, 0)."""
    x, y, width, height = bbox
    return (x, y, max(width - 1, 0), max(height - 1, 0))


def bbox_of_runs(runs: Runs, height: int) -> tuple[int, int, int, int]:
    """(x, y, width, height) of the foreground runs of an image of that height, + 1 convention."""
    starts, ends = foreground_spans(runs)
    if starts.size == 0:
        return (0, 0, 0, 0)
    lasts = ends - 1
    left, right = int(starts[0] // height), int(lasts[-1] // height)
    if (starts // height != lasts // height).any():  # a run that turns the corner touches bottom and top
        return (left, 0, right - left + 1, height)
    top, bottom = int((starts % height).min()), int((lasts % height).max())
    return (left, top, right - left + 1, bottom - top + 1)


def iou(first: Rle, second: Rle) -> float:
    """Intersection over union of two masks of one size; two empty masks are equal, so 1.0."""
    _same_size([first, second])
    runs = [runs_of(first), runs_of(second)]
    lengths, depths = _layers(runs)
    intersection, union = int(lengths[depths == 2].sum()), int(lengths[depths > 0].sum())
    return intersection / union if union else 1.0


def merge(rles: Sequence[Rle], *, intersect: bool = False) -> Rle:
    """Union (or intersection) of at least one mask, all of one size; the string is canonical."""
    _same_size(rles)
    lengths, depths = _layers([runs_of(rle) for rle in rles])
    inside = depths == len(rles) if intersect else depths > 0
    return _from_runs(_canonical(lengths, inside), _hw(rles[0]))


def from_uncompressed(
    counts: Iterable[int], hw: tuple[int, int], *, max_runs: int = MAX_RUNS, max_pixels: int = MAX_PIXELS
) -> Rle:
    """The RLE of a list of run lengths, as COCO's crowd annotations write them; raises BadInput."""
    hw = check_size(list(hw), None, max_pixels)
    numbers = list(counts)
    if not 1 <= len(numbers) <= max_runs:
        raise BadInput(f"counts has {len(numbers)} runs; between 1 and {max_runs} are allowed")
    limit = hw[0] * hw[1]
    for position, number in enumerate(numbers):
        if type(number) is not int:
            raise BadInput(f"counts[{position}] is {type(number).__name__}: run lengths are whole numbers")
        if not 0 <= number <= limit:
            raise BadInput(f"counts[{position}] is {number}: a run lies between 0 and the {limit} pixels")
    runs = np.array(numbers, np.int64)
    check_total(runs, hw)
    return _from_runs(runs, hw)


def validate(
    segmentation: object,
    hw: tuple[int, int] | None,
    *,
    max_runs: int = MAX_RUNS,
    max_pixels: int = MAX_PIXELS,
) -> Rle:
    """A segmentation that somebody else wrote, as an RLE that is safe to use; raises BadInput.

    `hw` is the image's height and width where they are known. A compressed string is kept byte for byte, also
    when it is valid but not canonical; a list of run lengths is compressed. Polygons: `polygon_to_rle`.
    """
    if not isinstance(segmentation, dict) or not {"size", "counts"} <= segmentation.keys():
        raise BadInput('a segmentation is {"size": [height, width], "counts": ...}')
    size = check_size(segmentation["size"], hw, max_pixels)
    counts = segmentation["counts"]
    if isinstance(counts, list):
        return from_uncompressed(counts, size, max_runs=max_runs, max_pixels=max_pixels)
    if isinstance(counts, bytes):
        counts = counts.decode("latin-1")  # any byte outside ASCII is then refused by the parser
    if not isinstance(counts, str):
        raise BadInput(f"counts is {type(counts).__name__}: give a compressed string or a list of numbers")
    check_total(parse_runs(counts, max_runs=max_runs), size)
    return {"size": list(size), "counts": counts}


def runs_of(rle: Rle) -> Runs:
    """The run lengths of an RLE, checked again: they are the image's pixels, exactly."""
    runs = parse_runs(rle["counts"])
    check_total(runs, check_size(rle["size"], None, _MOST_PIXELS))
    return runs


def check_size(size: object, hw: tuple[int, int] | None, max_pixels: int) -> tuple[int, int]:
    """`size` as (height, width); raises BadInput unless it is one an image can have, and `hw` where given."""
    if not isinstance(size, list | tuple) or len(size) != 2 or any(type(side) is not int for side in size):
        raise BadInput("size is [height, width], two whole numbers")
    height, width = size
    if not (1 <= height <= MAX_SIDE_PX and 1 <= width <= MAX_SIDE_PX):
        raise BadInput(f"size is {height} x {width}: each side lies between 1 and {MAX_SIDE_PX}")
    if height * width > min(max_pixels, _MOST_PIXELS):
        raise BadInput(f"size is {height} x {width}, more than the {max_pixels} pixels allowed")
    if hw is not None and (height, width) != tuple(hw):
        raise BadInput(f"size is {height} x {width}, but the image is {hw[0]} x {hw[1]}")
    return height, width


def _hw(rle: Rle) -> tuple[int, int]:
    return rle["size"][0], rle["size"][1]


def _from_runs(runs: Runs, hw: tuple[int, int]) -> Rle:
    return {"size": [int(hw[0]), int(hw[1])], "counts": format_runs(runs)}


def _same_size(rles: Sequence[Rle]) -> None:
    if not rles:
        raise BadInput("there is no mask to merge: give at least one")
    if any(_hw(rle) != _hw(rles[0]) for rle in rles):
        raise BadInput("these masks are of different sizes: give masks of one image")


def _layers(all_runs: Sequence[Runs]) -> tuple[Runs, Runs]:
    """Cuts the image where any mask changes: lengths (K,) of the pieces, and how many masks cover each."""
    spans = [foreground_spans(runs) for runs in all_runs]
    starts = np.concatenate([start for start, _ in spans])
    ends = np.concatenate([end for _, end in spans])
    n_pixels = int(all_runs[0].sum())
    places = np.concatenate([starts, ends, [0]])
    steps = np.concatenate([np.ones_like(starts), -np.ones_like(ends), [0]])
    order = np.argsort(places, kind="stable")
    lengths = np.diff(places[order], append=n_pixels)
    return lengths, np.cumsum(steps[order])


def _canonical(lengths: Runs, inside: NDArray[np.bool_]) -> Runs:
    """Run lengths of pieces, neighbours of one kind joined and empty ones dropped."""
    lengths, inside = lengths[lengths > 0], inside[lengths > 0]
    first = np.flatnonzero(np.diff(inside, prepend=not inside[0]))
    runs = np.add.reduceat(lengths, first)
    return np.concatenate([[0], runs]) if inside[0] else runs
