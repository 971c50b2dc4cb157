"""Prompts as arrays, by the official argument names: what a script hands to a predictor, checked."""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike, NDArray

from engine.errors import BadInput
from engine.modeling.prompts import MAX_PROMPTS


def check_arrays(
    point_coords: ArrayLike | None,
    point_labels: ArrayLike | None,
    box: ArrayLike | None,
    mask_input: ArrayLike | None,
    original_hw: tuple[int, int],
    logits_size: int,
) -> None:
    """Raises BadInput with the argument's name for prompts that have no meaning on an image of (H, W).

    As officially, a box may reach over the image's border, as detectors' boxes do; it has to overlap it.
    """
    if point_coords is None and box is None and mask_input is None:
        raise BadInput("give points with their labels, a box or a mask_input: there is nothing to follow")
    if (point_coords is None) != (point_labels is None):
        raise BadInput("point_labels must be given with point_coords, and point_coords with point_labels")
    if point_coords is not None and point_labels is not None:
        _check_points(
            _numbers(point_coords, "point_coords"), _numbers(point_labels, "point_labels"), original_hw
        )
    if box is not None:
        _check_box(_numbers(box, "box"), original_hw)
    if mask_input is not None:
        mask, wanted = _numbers(mask_input, "mask_input"), (1, logits_size, logits_size)
        if mask.shape != wanted:
            raise BadInput(
                f"mask_input takes low_res_masks of an earlier call, {wanted}, not {mask.shape}:"
                " scale a mask of your own to that size, with logits below and above 0"
            )


def check_image(image: object) -> None:
    """Raises BadInput for anything but an array of uint8 and (H, W, 3)."""
    if not isinstance(image, np.ndarray):
        raise BadInput(
            f"an image is a uint8 array of (H, W, 3), not a {type(image).__name__}: use numpy.array"
        )
    if image.dtype != np.uint8 or image.shape[2:] != (3,) or image.size == 0:
        raise BadInput(f"an image is a uint8 array of (H, W, 3), not {image.dtype} of {image.shape}")


def _check_points(coords: NDArray[np.float64], labels: NDArray[np.float64], hw: tuple[int, int]) -> None:
    if coords.ndim != 2 or coords.shape[1] != 2 or len(coords) == 0:
        raise BadInput(f"point_coords has shape (N, 2), x and y of at least one point, not {coords.shape}")
    if labels.shape != (len(coords),):
        raise BadInput(f"{len(coords)} points take {len(coords)} point_labels, not {labels.shape}")
    if len(coords) > MAX_PROMPTS:
        raise BadInput(f"at most {MAX_PROMPTS} points make one mask, not {len(coords)}")
    if not np.isin(labels, (0, 1)).all():
        raise BadInput("point_labels are 1 (foreground) or 0 (background)")
    outside = (coords < 0) | (coords > (hw[1], hw[0]))
    if outside.any():
        x, y = coords[outside.any(axis=1)][0]
        raise BadInput(f"point ({x:g}, {y:g}) lies outside the image of {hw[1]} x {hw[0]} px")


def _check_box(box: NDArray[np.float64], hw: tuple[int, int]) -> None:
    if box.size != 4:
        raise BadInput(f"box is x0, y0, x1, y1, not an array of {box.shape}: use predict_torch for several")
    x0, y0, x1, y1 = box.reshape(4)
    if not (x0 < x1 and y0 < y1):
        raise BadInput(f"a box needs x0 < x1 and y0 < y1, not {x0:g}, {y0:g}, {x1:g}, {y1:g}")
    if x1 <= 0 or y1 <= 0 or x0 >= hw[1] or y0 >= hw[0]:
        raise BadInput(f"box {x0:g}, {y0:g}, {x1:g}, {y1:g} lies outside the image of {hw[1]} x {hw[0]} px")


def _numbers(values: ArrayLike, name: str) -> NDArray[np.float64]:
    try:
        numbers = np.asarray(values, dtype=np.float64)
    except (TypeError, ValueError) as error:
        raise BadInput(f"{name} must be numbers: {error}") from error
    if not np.isfinite(numbers).all():
        raise BadInput(f"{name} must be finite numbers: it holds NaN or infinity")
    return numbers
