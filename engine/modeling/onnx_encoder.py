"""Export of the image encoder to ONNX, checked against torch before it leaves."""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from engine.errors import Refused, Unavailable
from engine.modeling.onnx import TOLERANCE, traced
from engine.modeling.onnx_predictor import loaded
from engine.modeling.sam import Sam

INPUTS = ("image",)
OUTPUTS = ("image_embeddings",)
# An ONNX file is one protobuf message, which ends at 2 GiB; a few MB are the graph itself.
MOST_WEIGHT_BYTES = 2**31 - 2**25


def export_encoder(sam: Sam) -> bytes:
    """One self-contained ONNX file: the input and output of `EncoderGraph`, the config in its metadata.

    Raises Refused for weights that one ONNX file cannot hold (ViT-H), Unavailable if onnxruntime's embedding
    differs from torch's by more than 1e-3 on a square image, a lying one, or a sliver.
    """
    n_bytes = sum(weight.numel() * 4 for weight in sam.image_encoder.parameters())
    if n_bytes > MOST_WEIGHT_BYTES:
        raise Refused(
            f"the image encoder of {sam.config.name} has {n_bytes / 1e9:.1f} GB of weights, and one ONNX "
            "file holds 2.1 GB: export its decoder alone (--decoder-only), and embed with Maskloop"
        )
    device, training = sam.device, sam.training
    sam.to("cpu").eval()
    try:
        onnx_model = _exported(sam)
        worst = largest_difference(sam, onnx_model)
    finally:
        sam.to(device).train(training)
    # Written so that NaN fails too.
    if not worst <= TOLERANCE:
        raise Unavailable(f"the exported image encoder differs from torch by {worst:.2g}; it was not written")
    return onnx_model


class EncoderGraph(nn.Module):
    """What is exported. Normalising and padding are inside: left to the user, they are what goes wrong."""

    def __init__(self, sam: Sam) -> None:
        super().__init__()
        self.sam = sam

    def forward(self, image: Tensor) -> Tensor:
        """(h, w, 3) uint8 RGB, already resized to long side S, at most S each -> (1, C, g, g)."""
        pixels = image.permute(2, 0, 1)[None].to(torch.float32)
        embedding: Tensor = self.sam.image_encoder(self.sam.preprocess(pixels))
        return embedding


def largest_difference(sam: Sam, onnx_model: bytes, seed: int = 0) -> float:
    """Largest absolute difference from torch, over three random images: square, lying, and a sliver."""
    session = loaded(onnx_model, 1, "image encoder")
    side, rng = sam.config.img_size, np.random.default_rng(seed)
    differences = []
    for hw in ((side, side), (side * 2 // 3, side), (side, 1)):
        image = rng.integers(0, 256, (*hw, 3), dtype=np.uint8)
        (ours,) = session.run(list(OUTPUTS), {INPUTS[0]: image})
        differences.append(np.abs(ours - _torch_answer(sam, image)).max())
    return float(np.max(differences))


def _exported(sam: Sam) -> bytes:
    side = sam.config.img_size
    sizes = {axis: torch.export.Dim(name, min=1, max=side) for axis, name in enumerate(("height", "width"))}
    # Neither side as in the padded picture: the exporter would take an equal size for a fixed one.
    example = torch.zeros(side * 3 // 4, side * 5 // 8, 3, dtype=torch.uint8)
    return traced(EncoderGraph(sam), (example,), (INPUTS, OUTPUTS), (sizes,), sam.config)


@torch.inference_mode()
def _torch_answer(sam: Sam, image: NDArray[np.uint8]) -> NDArray[np.float32]:
    answer: NDArray[np.float32] = EncoderGraph(sam)(torch.as_tensor(image)).numpy()
    return answer
