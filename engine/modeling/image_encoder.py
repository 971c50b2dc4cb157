"""The paper's image encoder (appendix A): a ViT with windowed attention, four global blocks and a neck."""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from engine.modeling.attention_tiles import TILED_FROM, attend_in_tiles
from engine.modeling.layers import MLPBlock, ResidualBlock, neck, window_partition, window_unpartition
from engine.modeling.linear import Linear, is_cpu_inference
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
        self.attn = Attention(dim, num_heads, window_size, grid)
        self.norm2 = nn.LayerNorm(dim, eps=1e-6)
        self.mlp = MLPBlock(dim, 4 * dim, nn.GELU())

    def forward(self, x: Tensor) -> Tensor:
        """(B, g, g, dim) -> the same shape."""
        x = x + self.kept(self.attn(self.norm1(x)))
        mixed: Tensor = x + self.kept(self.mlp(self.norm2(x)))
        return mixed


class Attention(nn.Module):
    """Multi-head attention with decomposed relative positions, over windows or (`window_size` 0) the grid."""

    def __init__(self, dim: int, num_heads: int, window_size: int, grid: int) -> None:
        super().__init__()
        self.num_heads = num_heads
        self.window_size = window_size
        side, head_dim = window_size or grid, dim // num_heads
        self.qkv = Linear(dim, dim * 3)
        self.proj = Linear(dim, dim)
        self.rel_pos_h = nn.Parameter(torch.zeros(2 * side - 1, head_dim))
        self.rel_pos_w = nn.Parameter(torch.zeros(2 * side - 1, head_dim))

    def forward(self, x: Tensor) -> Tensor:
        """(B, g, g, dim) -> the same shape."""
        # Projected before windows are padded and after they are cut: nothing is spent on padding.
        qkv = self.qkv(x)
        attended: Tensor = self.proj(self._in_windows(qkv) if self.window_size else self._attend(qkv))
        return attended

    def _in_windows(self, qkv: Tensor) -> Tensor:
        """(B, g, g, 3 * dim) -> (B, g, g, dim)."""
        # A row of windows at a time stays in a CPU's cache; a GPU takes all of them at once.
        height = self.window_size if is_cpu_inference(qkv) else qkv.shape[1]
        strips = torch.split(qkv, -(-height // self.window_size) * self.window_size, dim=1)
        return torch.cat([self._in_strip(strip) for strip in strips], dim=1)

    def _in_strip(self, qkv: Tensor) -> Tensor:
        # The official code pads after norm1 with zeros, which qkv then turns into its bias.
        windows, padded_hw = window_partition(qkv, self.window_size, padding=self.qkv.bias)
        return window_unpartition(self._attend(windows), padded_hw, (qkv.shape[1], qkv.shape[2]))

    def _attend(self, qkv: Tensor) -> Tensor:
        """(B, side, side, 3 * dim) -> (B, side, side, dim)."""
        batch, side = qkv.shape[:2]
        # (3, B, heads, side * side, c): q, k and v one after the other, unlike TinyViT.
        q, k, v = qkv.reshape(batch, side * side, 3, self.num_heads, -1).permute(2, 0, 3, 1, 4).contiguous()
        rows, columns = relative_terms(q, self.rel_pos_h, self.rel_pos_w)
        if is_cpu_inference(q) and side * side >= TILED_FROM:
            heads = attend_in_tiles(q, k, v, rows, columns)
        else:
            bias = (rows[..., None] + columns[..., None, :]).flatten(-2)
            heads = F.scaled_dot_product_attention(q, k, v, attn_mask=bias)
        return heads.transpose(1, 2).reshape(batch, side, side, -1)


def relative_terms(q: Tensor, rel_pos_h: Tensor, rel_pos_w: Tensor) -> tuple[Tensor, Tensor]:
    """Decomposed relative positions (MViTv2): q (B, heads, side * side, c), unscaled -> two of
    (B, heads, side * side, side). The bias of a query and the key in row i, column j is rows[i] + columns[j].
    """
    # Heights and widths apart: 2 (2s - 1) vectors instead of (2s - 1) squared.
    side = (len(rel_pos_h) + 1) // 2
    positions = torch.arange(side, device=q.device)
    # Row i, column j holds i - j shifted to start at 0.
    offsets = positions[:, None] - positions[None, :] + (side - 1)
    grid = q.view(*q.shape[:2], side, side, -1)
    rows = torch.einsum("bnhwc,hkc->bnhwk", grid, rel_pos_h[offsets])
    columns = torch.einsum("bnhwc,wkc->bnhwk", grid, rel_pos_w[offsets])
    return rows.flatten(2, 3), columns.flatten(2, 3)
