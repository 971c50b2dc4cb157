"""Low resolution logits to the size of the original image: one small matrix per axis. numpy only."""

from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

from engine.modeling.sam_config import SamConfig

Floats = NDArray[np.float32]


def upscale_logits(low_res_logits: Floats, original_hw: tuple[int, int], config: SamConfig) -> Floats:
    """(n, 4g, 4g) -> (n, H, W), equal to the official postprocessing (two bilinear steps) to 1e-4.

    Both steps are linear and separable, so their weights are multiplied once per image size and kept.
    """
    input_hw = config.input_hw(original_hw)
    rows = composed_matrix(config.logits_size, config.img_size, input_hw[0], original_hw[0])
    columns = composed_matrix(config.logits_size, config.img_size, input_hw[1], original_hw[1])
    # Columns first: the intermediate stays small for wide images.
    upscaled: Floats = rows @ (np.asarray(low_res_logits, np.float32) @ columns.T)
    return upscaled


@lru_cache(maxsize=32)
def composed_matrix(n_low: int, n_model: int, n_input: int, n_original: int) -> Floats:
    """(n_original, n_low): low resolution to model frame, cut to the unpadded part, then to the original."""
    to_model = bilinear_matrix(n_low, n_model)[:n_input]
    composed = bilinear_matrix(n_input, n_original) @ to_model
    composed.setflags(write=False)
    return composed.astype(np.float32)


def bilinear_matrix(n_in: int, n_out: int) -> NDArray[np.float64]:
    """(n_out, n_in) weights of torch's bilinear interpolation with align_corners=False, no antialiasing."""
    # Positions in float32 like torch: in float64 some would fall a hair on the other side of a pixel.
    scale = np.float32(n_in) / np.float32(n_out)
    source = np.maximum(scale * (np.arange(n_out, dtype=np.float32) + np.float32(0.5)) - np.float32(0.5), 0)
    left = np.minimum(source.astype(np.intp), n_in - 1)
    right = np.minimum(left + 1, n_in - 1)
    fraction = np.clip(source - left, 0, 1).astype(np.float64)
    matrix = np.zeros((n_out, n_in))
    every = np.arange(n_out)
    # add.at, since left and right coincide at the border.
    np.add.at(matrix, (every, left), 1.0 - fraction)
    np.add.at(matrix, (every, right), fraction)
    return matrix
