"""A mask without logits (imported, prefilled, brushed, reloaded) as a prompt. numpy only, for every backend.

The rule. The mask counts as the model's answer to a box: the box is the mask's own, and the answer are logits
made from its pixels. So what follows looks like the second round of any session: a first prompt, a correction
and the logits of before, which is what the model was trained on (paper, appendix A), and the answer to one
correction is a single mask. The bundled model shows why the box is needed: after a lone click on what is too
much, with the logits but without a box, it takes the mask away altogether (docs/evaluation.md).

The logits. Each cell of the decoder's low-resolution grid gets the share that the mask covers of it, smoothed
over its neighbours by (1, 4, 1) / 6 along both axes, then mapped so that 0 is -14, a half is 0 and 1 is 8,
straight on either side. Those are the bundled model's own logits: their medians on cell nuclei are 4.5, 8.1
and 8.4 in the first, second and third cell inside the border and -5.4, -11 and -13 outside. The zero stays
where half a cell is covered, as the losses teach it, and a part one cell wide keeps its sign.
"""

from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import numpy as np
from numpy.typing import NDArray

from engine.errors import BadInput
from engine.modeling.prompts import Floats
from engine.modeling.sam_config import SamConfig
from engine.modeling.upscale import upscale_logits

INSIDE, OUTSIDE = 8.0, -14.0
_KERNEL = (1 / 6, 4 / 6, 1 / 6)


@dataclass(frozen=True)
class MaskPrompt:
    """What a session on an existing mask begins with: its box as the first prompt, in original pixels, and
    the low-resolution logits (4g, 4g) that stand for the answer."""

    prompt: dict[str, Any]
    low_res_logits: Floats


def mask_prompt(mask: NDArray[np.bool_], config: SamConfig) -> MaskPrompt:
    """A mask (H, W) of the original image as a prompt for `prompts.fold`. Raises BadInput if it is empty."""
    rows, columns = np.flatnonzero(mask.any(axis=1)), np.flatnonzero(mask.any(axis=0))
    if not rows.size:
        raise BadInput("an empty mask cannot be corrected: begin with a click or a box")
    box = {"x0": int(columns[0]), "y0": int(rows[0]), "x1": int(columns[-1]) + 1, "y1": int(rows[-1]) + 1}
    return MaskPrompt({"kind": "box"} | box, logits_of_share(covered_share(mask, config)))


def logits_of_share(share: Floats) -> Floats:
    """Logits (..., h, w) for the covered share of each cell, 0 to 1; the rule of this module."""
    # The border's cells stand for what lies beyond it.
    wide = np.pad(share, [(0, 0)] * (share.ndim - 2) + [(1, 1), (1, 1)], mode="edge")
    left, middle, right = _KERNEL
    smooth = left * wide[..., :-2, :] + middle * wide[..., 1:-1, :] + right * wide[..., 2:, :]
    smooth = left * smooth[..., :-2] + middle * smooth[..., 1:-1] + right * smooth[..., 2:]
    side = 2 * smooth - 1
    logits: Floats = np.where(side > 0, INSIDE * side, -OUTSIDE * side).astype(np.float32)
    return logits


def covered_share(mask: NDArray[np.bool_], config: SamConfig) -> Floats:
    """The share of each logit cell that a mask (H, W) covers, (4g, 4g); nothing covers the padding."""
    height, width = mask.shape
    input_hw = config.input_hw((height, width))
    rows = _overlap(config.logits_size, config.img_size, input_hw[0], height)
    columns = _overlap(config.logits_size, config.img_size, input_hw[1], width)
    share: Floats = rows @ mask.astype(np.float32) @ columns.T
    return share


def reachable_iou(mask: NDArray[np.bool_], config: SamConfig) -> float:
    """IoU of a mask (H, W), not empty, with what is left of it after the grid of the logits and back: no
    model of these sizes does much better."""
    # Unsmoothed: the best logits, not the likely ones.
    perfect = upscale_logits((covered_share(mask, config) - 0.5)[None], mask.shape, config)[0] > 0
    return float(np.count_nonzero(perfect & mask) / np.count_nonzero(perfect | mask))


@lru_cache(maxsize=32)
def _overlap(n_low: int, n_model: int, n_input: int, n_original: int) -> Floats:
    """(n_low, n_original): the part of each cell, along one axis, that lies in each original pixel."""
    edges = np.arange(n_low + 1) * (n_model / n_low) * (n_original / n_input)
    pixels = np.arange(n_original)
    ends = np.minimum(edges[1:, None], pixels + 1) - np.maximum(edges[:-1, None], pixels)
    overlap: Floats = (np.maximum(ends, 0) / (edges[1] - edges[0])).astype(np.float32)
    overlap.setflags(write=False)
    return overlap
