"""The paper's image encoder (appendix A): a ViT with windowed attention, four global blocks and a neck."""

import torch
from torch import Tensor, nn

from engine.modeling.layers import MLPBlock, ResidualBlock, neck, window_partition, window_unpartition
from engine.modeling.sam_config import STRIDE_PX, VitConfig


class ImageEncoderViT(nn.Module):
    """(B, 3, S, S) normalised and padded pixels -> (B, out_dim, S / 16, S / 16)."""

    def __init__(self, config: VitConfig, img_size: int, out_dim: int) -> None:
        super().__init__()
        grid = img_size // STRIDE_PX
        self.img_size = img_size
        self.patch_embed = PatchEmbed(config.embed_dim)
        self.pos_embed = nn.Parameter(torch.zeros(1, grid, grid, config.embed_dim))
        self.blocks = nn.ModuleList(
            Block(
                config.embed_dim,
                config.num_heads,
                # Four global blocks carry information between the windows (appendix A).
                window_size=0 if index in config.global_attn_indexes else config.window_size,
                grid=grid,
            )
            for index in range(config.depth)
        )
        self.neck = neck(config.embed_dim, out_dim)

    def forward(self, x: Tensor) -> Tensor:
        """See the class."""
        x = self.patch_embed(x) + self.pos_embed
        for block in self.blocks:
            x = block(x)
        embedding: Tensor = self.neck(x.permute(0, 3, 1, 2))
        return embedding


class PatchEmbed(nn.Module):
    """Image to patch embeddings, channels last."""

    def __init__(self, embed_dim: int) -> None:
        super().__init__()
        self.proj = nn.Conv2d(3, embed_dim, kernel_size=STRIDE_PX, stride=STRIDE_PX)

    def forward(self, x: Tensor) -> Tensor:
        """(B, 3, S, S) -> (B, g, g, embed_dim)."""
        patches: Tensor = self.proj(x)
        return patches.permute(0, 2, 3, 1)


class Block(ResidualBlock):
    """A transformer block; `window_size` 0 attends over the whole grid."""

    def __init__(self, dim: int, num_heads: int, window_size: int, grid: int) -> None:
        super().__init__()
        # 1e-6 here and 1e-5 in the decoder: the wrong one moves logits by up to 1e-3.
        self.norm1 = nn.LayerNorm(dim, eps=1e-6)
        self.attn = Attention(dim, num_heads, window_size or grid)
        self.norm2 = nn.LayerNorm(dim, eps=1e-6)
        self.mlp = MLPBlock(dim, 4 * dim, nn.GELU())
        self.window_size = window_size

    def forward(self, x: Tensor) -> Tensor:
        """(B, g, g, dim) -> the same shape."""
        x = x + self.kept(self._attend(self.norm1(x)))
        mixed: Tensor = x + self.kept(self.mlp(self.norm2(x)))
        return mixed

    def _attend(self, x: Tensor) -> Tensor:
        if self.window_size == 0:
            attended: Tensor = self.attn(x)
            return attended
        # Padding comes after norm1, so it enters attention as zeros, as in the official code.
        windows, padded_hw = window_partition(x, self.window_size)
        return window_unpartition(self.attn(windows), padded_hw, (x.shape[1], x.shape[2]))


class Attention(nn.Module):
    """Multi-head attention over a square, with decomposed relative positions."""

    def __init__(self, dim: int, num_heads: int, side: int) -> None:
        super().__init__()
        self.num_heads = num_heads
        head_dim = dim // num_heads
        self.scale = head_dim**-0.5
        self.qkv = nn.Linear(dim, dim * 3)
        self.proj = nn.Linear(dim, dim)
        self.rel_pos_h = nn.Parameter(torch.zeros(2 * side - 1, head_dim))
        self.rel_pos_w = nn.Parameter(torch.zeros(2 * side - 1, head_dim))

    def forward(self, x: Tensor) -> Tensor:
        """(B, side, side, dim) -> the same shape."""
        batch, height, width, dim = x.shape
        # (3, B, heads, h * w, c): q, k and v one after the other, unlike TinyViT.
        qkv = self.qkv(x).reshape(batch, height * width, 3, self.num_heads, -1).permute(2, 0, 3, 1, 4)
        q, k, v = qkv.reshape(3, batch * self.num_heads, height * width, -1).unbind(0)
        scores = (q * self.scale) @ k.transpose(-2, -1)
        # The bias takes the unscaled query.
        scores = scores + relative_bias(q, self.rel_pos_h, self.rel_pos_w, (height, width))
        heads = (scores.softmax(dim=-1) @ v).view(batch, self.num_heads, height, width, -1)
        attended: Tensor = self.proj(heads.permute(0, 2, 3, 1, 4).reshape(batch, height, width, dim))
        return attended


def relative_bias(q: Tensor, rel_pos_h: Tensor, rel_pos_w: Tensor, hw: tuple[int, int]) -> Tensor:
    """Decomposed relative positions (MViTv2): q (B, h * w, c) -> bias (B, h * w, h * w)."""
    height, width = hw
    per_row, per_column = rel_pos_h[_offsets(height, q)], rel_pos_w[_offsets(width, q)]
    q_grid = q.reshape(-1, height, width, q.shape[-1])
    # Heights and widths apart: 2 (2s - 1) vectors instead of (2s - 1) squared.
    rows = torch.einsum("bhwc,hkc->bhwk", q_grid, per_row)
    columns = torch.einsum("bhwc,wkc->bhwk", q_grid, per_column)
    bias = rows[:, :, :, :, None] + columns[:, :, :, None, :]
    return bias.reshape(-1, height * width, height * width)


def _offsets(side: int, like: Tensor) -> Tensor:
    # Row i, column j holds i - j shifted to start at 0.
    positions = torch.arange(side, device=like.device)
    return positions[:, None] - positions[None, :] + (side - 1)
