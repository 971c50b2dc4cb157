"""Overlapping crops of an image and grids of points in them (SAM paper, appendix B)."""

import math
from itertools import product

import numpy as np
from numpy.typing import NDArray

from engine.errors import BadInput

# A mask that ends this close to an inner crop border was probably cut by it.
EDGE_PX = 20.0


def crop_boxes(hw: tuple[int, int], n_layers: int, overlap_ratio: float) -> list[tuple[list[int], int]]:
    """(box xyxy, layer) of the whole image and of 2^i x 2^i crops in each layer i, columns first.

    Neighbours overlap by `overlap_ratio` of the short side in layer 1, half of that in layer 2, and so on.
    On an image of fewer pixels than crops the crops without a pixel are left out.
    """
    crops = [([0, 0, hw[1], hw[0]], 0)]
    for layer in range(1, n_layers + 1):
        n_per_side = 2**layer
        overlap_px = int(overlap_ratio * min(hw) * (2 / n_per_side))
        columns, rows = (_spans(side, n_per_side, overlap_px) for side in (hw[1], hw[0]))
        crops += [([x0, y0, x1, y1], layer) for (x0, x1), (y0, y1) in product(columns, rows)]
    return crops


def _spans(side: int, n_per_side: int, overlap_px: int) -> list[tuple[int, int]]:
    length = math.ceil((overlap_px * (n_per_side - 1) + side) / n_per_side)
    starts = ((length - overlap_px) * index for index in range(n_per_side))
    return [(start, min(start + length, side)) for start in starts if start < side]


def point_grid(n_per_side: int) -> NDArray[np.float64]:
    """(n * n, 2) x y in 0..1, row by row, each point in the middle of its cell."""
    offset = 1 / (2 * n_per_side)
    one_side = np.linspace(offset, 1 - offset, n_per_side)
    x, y = np.meshgrid(one_side, one_side)
    return np.stack([x, y], axis=-1).reshape(-1, 2)


def layer_point_grids(n_per_side: int, n_layers: int, downscale: float) -> list[NDArray[np.float64]]:
    """One grid for the image and for each layer of crops, its side divided by `downscale` per layer."""
    sides = [int(n_per_side / downscale**layer) for layer in range(n_layers + 1)]
    if sides[-1] < 1 or sides[0] < 1:
        raise BadInput(
            f"{n_per_side} points per side divided by {downscale} in each of {n_layers} layers leaves none: "
            "raise points_per_side or lower crop_n_points_downscale_factor"
        )
    return [point_grid(side) for side in sides]


def touches_inner_crop_edge(box_xyxy: NDArray[np.int64], crop_xyxy: list[int], hw: tuple[int, int]) -> bool:
    """Whether a box in image pixels ends at a border of its crop that is not one of the image's own."""
    near_crop = np.abs(box_xyxy - np.array(crop_xyxy)) <= EDGE_PX
    near_image = np.abs(box_xyxy - np.array([0, 0, hw[1], hw[0]])) <= EDGE_PX
    return bool((near_crop & ~near_image).any())
