"""The one array type of this package, float32 in fact, and its clamp."""

from typing import Any

import numpy as np
from numpy.typing import NDArray

Plane = NDArray[np.floating[Any]]


def clamp(field: Plane, low: float = 0.0, high: float = 1.0) -> Plane:
    """The field cut to [low, high], any shape, same precision."""
    return np.minimum(np.maximum(field, field.dtype.type(low)), field.dtype.type(high))
