"""SAM in torch, our own code. Names are resolved on first use: importing this package loads no torch."""

from importlib import import_module
from typing import Any

_HOME = {
    "AutomaticMaskGenerator": "automatic",
    "Predictor": "predictor",
    "ResizeLongestSide": "transforms",
    "Sam": "sam",
    "SamConfig": "sam_config",
    "build_sam": "registry",
    "encode_image": "predictor",
    "sam_model_registry": "registry",
    "SamAutomaticMaskGenerator": "automatic",
    "SamPredictor": "predictor",
    "load_state": "checkpoint",
    "read_header": "checkpoint",
    "read_state": "checkpoint",
    "save_checkpoint": "checkpoint",
}
__all__ = sorted(_HOME)


def __getattr__(name: str) -> Any:
    """PEP 562: imports the module that holds `name`."""
    if name not in _HOME:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_HOME[name]}"), name)
