"""Matrix products of inference on a CPU: by oneDNN where torch has it, since torch itself asks MKL.

MKL keeps AVX-512 to its own make of processor: on others oneDNN is up to 2.4 times as fast, elsewhere the two
are about equal. Their sums are rounded in another order, by some 1e-7 of the largest term.
"""

import functools

import torch
import torch.nn.functional as F
from torch import Tensor, nn

# Below so many rows the product costs less than finding the kernel for it.
_FEWEST_ROWS = 64


class Linear(nn.Linear):
    """nn.Linear, the same parameters and names; in inference on a CPU the faster product."""

    def forward(self, x: Tensor) -> Tensor:
        """(..., in_features) -> (..., out_features)."""
        return product(x, self.weight, self.bias)


def product(x: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    """x (..., k) and weight (n, k) -> x @ weight.T + bias (n,)."""
    # The size is asked last: an exporter that follows it would take it for fixed.
    if not (has_onednn() and is_cpu_inference(x)) or x.numel() < _FEWEST_ROWS * x.shape[-1]:
        return F.linear(x, weight, bias)
    multiplied: Tensor = torch.ops.mkldnn._linear_pointwise(x, weight, bias, "none", [], "")
    return multiplied


def is_cpu_inference(x: Tensor) -> bool:
    """Whether x is float32 on a CPU and nothing that is computed from it will be differentiated or traced."""
    followed = torch.is_grad_enabled() or torch.is_autocast_enabled("cpu") or torch.compiler.is_compiling()
    return x.device.type == "cpu" and x.dtype == torch.float32 and not followed


@functools.cache
def has_onednn() -> bool:
    """Whether torch was built with oneDNN for an x86 processor; its operator is not part of torch's promises,
    so a torch without it is served by `F.linear`."""
    known = hasattr(torch.ops.mkldnn, "_linear_pointwise")
    return known and vector_instructions() in ("AVX2", "AVX512")


@functools.cache
def vector_instructions() -> str:
    """What the processor computes with, by torch's name: AVX512, AVX2, or another."""
    return str(torch.backends.cpu.get_cpu_capability())
