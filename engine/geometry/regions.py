"""Masks as the rectangle that holds their foreground: most cover a few percent of their image.

A region keeps its pixels column by column, the order in which COCO's runs read an image. Counting, boxing,
encoding and cleaning a mask then cost its own size and not the image's.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from engine.geometry.quality import connected_components
from engine.geometry.rle import bbox_of_runs
from engine.geometry.runs import Runs, foreground_spans


@dataclass(frozen=True)
class Region:
    """`columns` (width, height) are the pixels from column x0 and row y0 on; around them is background."""

    columns: NDArray[np.bool_]
    x0: int
    y0: int

    @property
    def area(self) -> int:
        """Number of foreground pixels."""
        return int(np.count_nonzero(self.columns))

    def box_xyxy(self) -> NDArray[np.int64]:
        """(4,) first and last column and row with foreground; nothing at all: x0, y0 twice."""
        x, y = np.flatnonzero(self.columns.any(axis=1)), np.flatnonzero(self.columns.any(axis=0))
        corners = (x[0], y[0], x[-1], y[-1]) if x.size else (0, 0, 0, 0)
        return np.array(corners, np.int64) + np.array([self.x0, self.y0, self.x0, self.y0], np.int64)


def region_runs(region: Region, hw: tuple[int, int]) -> Runs:
    """Canonical run lengths of the region in an image of (H, W), without drawing that image."""
    # One pixel of background after each column, so that no run crosses from one into the next.
    padded = np.pad(region.columns, ((0, 0), (0, 1))).reshape(-1).view(np.int8)
    column, row = np.divmod(np.flatnonzero(np.diff(padded, prepend=np.int8(0))), region.columns.shape[1] + 1)
    edges = (region.x0 + column) * hw[0] + region.y0 + row
    return _runs_between(edges, hw[0] * hw[1])


def _runs_between(edges: NDArray[np.int64], n_pixels: int) -> Runs:
    """Runs from the sorted positions where foreground begins and ends in turn."""
    # A run that reaches the bottom and goes on at the top of the next column ends where that one begins.
    joined = np.flatnonzero(edges[1:] == edges[:-1])
    edges = np.delete(edges, np.concatenate([joined, joined + 1]))
    runs: Runs = np.diff(edges, prepend=0, append=n_pixels)
    return runs if runs[-1] or runs.size == 1 else runs[:-1]


def runs_region(runs: Runs, hw: tuple[int, int], frame_xyxy: tuple[int, int, int, int]) -> Region:
    """The pixels of a frame (x1, y1 exclusive) that holds all foreground of these runs."""
    x0, y0, x1, y1 = frame_xyxy
    steps = np.zeros((x1 - x0) * hw[0] + 1, np.int8)
    starts, ends = foreground_spans(runs)
    # Two steps: no two spans begin, and no two end, at one place.
    steps[starts - x0 * hw[0]] += 1
    steps[ends - x0 * hw[0]] -= 1
    whole_columns = np.cumsum(steps[:-1], dtype=np.int8).view(np.bool_).reshape(x1 - x0, hw[0])
    return Region(whole_columns[:, y0:y1], x0, y0)


def fill_small_holes(mask: NDArray[np.bool_], min_area: int) -> tuple[NDArray[np.bool_], bool]:
    """The (H, W) mask with every background part under `min_area` px filled, and whether there was one.

    Corners connect. Background cut off at the image's border counts as a hole too, as in the official code.
    """
    labels, areas = connected_components(~mask)
    small = areas < min_area
    if not small.any():
        return mask, False
    return np.concatenate([[True], small])[labels], True


def drop_small_islands(
    mask: NDArray[np.bool_], min_area: int, *, keep_largest: bool = True
) -> tuple[NDArray[np.bool_], bool]:
    """The (H, W) mask without its parts under `min_area` px, and whether there was one; corners connect.

    Where all parts are small the largest stays (the official code), or, without `keep_largest`, none (SAM
    paper, appendix B).
    """
    labels, areas = connected_components(mask)
    kept = areas >= min_area
    if kept.all():
        return mask, False
    if keep_largest and not kept.any():
        kept[areas.argmax()] = True
    return np.concatenate([[False], kept])[labels], True


def clean_runs(
    runs: Runs, hw: tuple[int, int], min_area: int, *, keep_largest: bool = True
) -> tuple[Runs, bool]:
    """Small holes filled, then small islands dropped: the new runs, and whether anything changed."""
    x0, y0, x1, y1 = _cleaning_frame(runs, hw, min_area)
    mask = runs_region(runs, hw, (x0, y0, x1, y1)).columns.T
    mask, filled = fill_small_holes(mask, min_area)
    mask, dropped = drop_small_islands(mask, min_area, keep_largest=keep_largest)
    if not (filled or dropped):
        return runs, False
    return region_runs(Region(np.ascontiguousarray(mask.T), x0, y0), hw), True


def _cleaning_frame(runs: Runs, hw: tuple[int, int], min_area: int) -> tuple[int, int, int, int]:
    """The mask's box, wide enough that what it cuts off of the background is never a small hole.

    Each side gets a strip that alone has `min_area` pixels, so parts that go on outside are large already.
    """
    x, y, width, height = bbox_of_runs(runs, hw[0])
    x_px, y_px = math.ceil(min_area / max(height, 1)), math.ceil(min_area / max(width, 1))
    right, bottom = min(x + width + x_px, hw[1]), min(y + height + y_px, hw[0])
    return max(x - x_px, 0), max(y - y_px, 0), right, bottom
