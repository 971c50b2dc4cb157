"""One matrix per axis equals the two interpolations of the official postprocessing."""

import numpy as np
import pytest
import torch

from engine.modeling import Sam
from engine.modeling.upscale import bilinear_matrix, upscale_logits


@pytest.mark.parametrize("hw", [(321, 481), (128, 128), (600, 90), (33, 50), (1, 7), (1501, 997)])
def test_upscaled_logits_equal_two_torch_interpolations(small_sam: Sam, hw: tuple[int, int]) -> None:
    low_res = 10 * np.random.default_rng(0).standard_normal((3, 32, 32)).astype(np.float32)
    ours = upscale_logits(low_res, hw, small_sam.config)
    theirs = small_sam.postprocess_masks(torch.from_numpy(low_res)[None], small_sam.config.input_hw(hw), hw)[
        0
    ]
    assert ours.shape == (3, *hw) and ours.dtype == np.float32
    assert np.abs(ours - theirs.numpy()).max() < 1e-4


def test_every_output_pixel_is_an_average() -> None:
    for n_in, n_out in ((64, 256), (256, 321), (300, 100), (1, 5)):
        matrix = bilinear_matrix(n_in, n_out)
        assert np.allclose(matrix.sum(axis=1), 1) and matrix.min() >= 0
