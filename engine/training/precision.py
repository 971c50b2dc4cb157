"""Computing in bfloat16 where the machine does: half the memory, on tensor cores a multiple of the speed."""

from pathlib import Path

import torch

_CPU_FLAGS = frozenset({"avx512_bf16", "amx_bf16"})
_CPU_INFO = Path("/proc/cpuinfo")


def has_bfloat16(device: torch.device) -> bool:
    """Whether that device computes in bfloat16. A CPU without the instructions emulates it, many times slower
    than float32, and counts as one that does not."""
    if device.type == "cuda":
        return bool(torch.cuda.is_bf16_supported(including_emulation=False))
    return device.type == "cpu" and bool(_CPU_FLAGS & _cpu_flags())


def _cpu_flags() -> frozenset[str]:
    if not _CPU_INFO.is_file():
        return frozenset()
    for line in _CPU_INFO.read_text("ascii", "replace").splitlines():
        if line.startswith("flags"):
            return frozenset(line.partition(":")[2].split())
    return frozenset()


def autocast(device: torch.device, bfloat16: bool) -> torch.autocast:
    """A context in which layers that may compute in bfloat16 do, if `bfloat16`; sums and norms do not."""
    return torch.autocast(device.type, torch.bfloat16, enabled=bfloat16)
