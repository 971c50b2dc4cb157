"""Layers that several parts of SAM share, with the official parameter names."""

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from engine.modeling.linear import Linear, is_cpu_inference

# 512 rows of ViT-B's feed-forward part are 6 MB.
_ROWS_AT_A_TIME = 512


class LayerNorm2d(nn.Module):
    """LayerNorm over the channels of (B, C, H, W); eps 1e-6 as in the official code."""

    def __init__(self, num_channels: int, eps: float = 1e-6) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(num_channels))
        self.bias = nn.Parameter(torch.zeros(num_channels))
        self.eps = eps

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, H, W) -> the same shape."""
        # One fused kernel on a view; the official mean-and-variance code makes five passes.
        channels_last = x.permute(0, 2, 3, 1)
        normed = F.layer_norm(channels_last, (x.shape[1],), self.weight, self.bias, self.eps)
        return normed.permute(0, 3, 1, 2)


class MLPBlock(nn.Module):
    """Two linear layers with an activation between them: the feed-forward part of a transformer block."""

    def __init__(self, embedding_dim: int, mlp_dim: int, act: nn.Module) -> None:
        super().__init__()
        self.lin1 = Linear(embedding_dim, mlp_dim)
        self.lin2 = Linear(mlp_dim, embedding_dim)
        self.act = act

    def forward(self, x: Tensor) -> Tensor:
        """(..., embedding_dim) -> the same shape."""
        return by_rows(self._forward, x)

    def _forward(self, x: Tensor) -> Tensor:
        hidden: Tensor = self.lin2(self.act(self.lin1(x)))
        return hidden


def by_rows(layer: Callable[[Tensor], Tensor], x: Tensor) -> Tensor:
    """`layer` of x (..., c), which knows no other axis than the last: some rows at a time where the inner,
    wider tensor then stays in a CPU's cache."""
    if not is_cpu_inference(x) or x.numel() <= _ROWS_AT_A_TIME * x.shape[-1]:
        return layer(x)
    rows = x.reshape(-1, x.shape[-1])
    return torch.cat([layer(few) for few in torch.split(rows, _ROWS_AT_A_TIME)]).view(*x.shape[:-1], -1)


class ResidualBlock(nn.Module):
    """A block whose branches are left out at random in training (stochastic depth, Huang et al. 2016)."""

    # Share of the examples that go past each branch; `set_drop_path` raises it with the block's depth.
    drop_path = 0.0

    def kept(self, branch: Tensor) -> Tensor:
        """(B, ...) with whole examples set to zero and the others scaled up; outside of training as it is."""
        if not self.training or self.drop_path == 0.0:
            return branch
        share = 1.0 - self.drop_path
        shape = (len(branch),) + (1,) * (branch.ndim - 1)
        return branch * torch.empty(shape, dtype=branch.dtype, device=branch.device).bernoulli_(share) / share


def set_drop_path(encoder: nn.Module, rate: float) -> None:
    """Sets the rates of an encoder's blocks: 0 at the first, `rate` at the last, even steps between."""
    blocks = [module for module in encoder.modules() if isinstance(module, ResidualBlock)]
    for index, block in enumerate(blocks):
        block.drop_path = rate * index / max(1, len(blocks) - 1)


def neck(in_dim: int, out_dim: int) -> nn.Sequential:
    """The encoder's last step: (B, in_dim, g, g) -> (B, out_dim, g, g)."""
    return nn.Sequential(
        nn.Conv2d(in_dim, out_dim, kernel_size=1, bias=False),
        LayerNorm2d(out_dim),
        nn.Conv2d(out_dim, out_dim, kernel_size=3, padding=1, bias=False),
        LayerNorm2d(out_dim),
    )


def window_partition(
    x: Tensor, window_size: int, padding: Tensor | None = None
) -> tuple[Tensor, tuple[int, int]]:
    """(B, H, W, C) -> windows (B * n, w, w, C) and the padded (H, W); right and below `padding` (C,) or 0."""
    batch, height, width, channels = x.shape
    # -n % w is what is missing to the next multiple of w.
    pad_bottom, pad_right = -height % window_size, -width % window_size
    padded_hw = (height + pad_bottom, width + pad_right)
    if padded_hw != (height, width) and padding is not None:
        padded = padding.to(x.dtype).expand(batch, *padded_hw, -1).clone()
        padded[:, :height, :width] = x
        x = padded
    elif padded_hw != (height, width):
        x = F.pad(x, (0, 0, 0, pad_right, 0, pad_bottom))
    rows, columns = padded_hw[0] // window_size, padded_hw[1] // window_size
    x = x.view(batch, rows, window_size, columns, window_size, channels)
    return x.transpose(2, 3).reshape(-1, window_size, window_size, channels), padded_hw


def window_unpartition(windows: Tensor, padded_hw: tuple[int, int], hw: tuple[int, int]) -> Tensor:
    """Undoes `window_partition`: (B * n, w, w, C) -> (B, H, W, C) without the padding."""
    window_size, channels = windows.shape[1], windows.shape[-1]
    rows, columns = padded_hw[0] // window_size, padded_hw[1] // window_size
    x = windows.view(-1, rows, columns, window_size, window_size, channels).transpose(2, 3)
    return x.reshape(-1, *padded_hw, channels)[:, : hw[0], : hw[1]]
