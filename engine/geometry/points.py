"""Where a careful annotator clicks: deep inside a region, never on its rim (SAM paper, appendix D.1)."""

import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import distance_transform_edt

from engine.errors import BadInput


def interior_point(mask: NDArray[np.bool_]) -> tuple[int, int]:
    """The pixel (x, y) of a (H, W) mask that is farthest from its border; raises BadInput if it is empty.

    The image's edge counts as border. Among equals the uppermost, then the leftmost pixel is taken.
    """
    _, x, y = _deepest(mask)
    if x < 0:
        raise BadInput("an empty mask has no interior point")
    return x, y


def error_point(truth: NDArray[np.bool_], prediction: NDArray[np.bool_]) -> tuple[int, int, int] | None:
    """The next corrective click (x, y, label) for two (H, W) masks, or None where they are equal.

    It is the centre of the largest error: the pixel deepest inside either the missed foreground (label 1) or
    the false foreground (label 0). At equal depth missed foreground goes first.
    """
    missed = _deepest(truth & ~prediction)
    false = _deepest(prediction & ~truth)
    depth, x, y = max(missed, false, key=lambda found: found[0])
    if depth == 0:
        return None
    return x, y, int(missed[0] >= false[0])


def _deepest(mask: NDArray[np.bool_]) -> tuple[float, int, int]:
    """(depth in pixels, x, y) of the deepest pixel; (0, -1, -1) for an empty mask.

    The distance transform runs on the mask's own box with one pixel of border around it.
    """
    rows, columns = np.flatnonzero(mask.any(axis=1)), np.flatnonzero(mask.any(axis=0))
    if rows.size == 0:
        return 0.0, -1, -1
    top, left = int(rows[0]), int(columns[0])
    box = np.pad(mask[top : rows[-1] + 1, left : columns[-1] + 1], 1)
    depths = distance_transform_edt(box)
    y, x = np.unravel_index(int(depths.argmax()), depths.shape)
    return float(depths[y, x]), left + int(x) - 1, top + int(y) - 1
