"""TinyViT as MobileSAM uses it: convolutions first, then windowed attention; sizes come from the config."""

from collections.abc import Sequence
from itertools import pairwise

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from engine.modeling.layers import ResidualBlock, by_rows, neck, window_partition, window_unpartition
from engine.modeling.linear import Linear
from engine.modeling.sam_config import UPSCALING, TinyVitConfig


class TinyViT(nn.Module):
    """(B, 3, S, S) normalised and padded pixels -> (B, out_dim, S / 16, S / 16).

    With `detail_channels` d, 16 * d channels follow: d features at stride 4, folded, for the decoder's last
    step. Small objects and borders are there for the reading, which a small model learns late otherwise.
    """

    def __init__(self, config: TinyVitConfig, img_size: int, out_dim: int, detail_channels: int = 0) -> None:
        super().__init__()
        self.img_size = img_size
        self.patch_embed = PatchEmbed(config.embed_dims[0])
        self.layers = nn.ModuleList(_layers(config))
        # Only so that MobileSAM's checkpoint loads strictly; nothing calls it.
        if config.n_classes:
            self.norm_head = nn.LayerNorm(config.embed_dims[-1])
            self.head = nn.Linear(config.embed_dims[-1], config.n_classes)
        self.neck = neck(config.embed_dims[-1], out_dim)
        self.detail = _detail(config.embed_dims[0], detail_channels) if detail_channels else None
        self.apply(_init_linear)

    def forward(self, x: Tensor) -> Tensor:
        """See the class. The classifier, where there is one, is never used."""
        patches = x = self.patch_embed(x)
        for layer in self.layers:
            x = layer(x)
        embedding: Tensor = self.neck(x)
        if self.detail is None:
            return embedding
        # Four rows and columns at stride 4 lie under one cell at stride 16.
        return torch.cat([embedding, F.pixel_unshuffle(self.detail(patches), UPSCALING)], dim=1)


def _detail(dim: int, channels: int) -> nn.Sequential:
    return nn.Sequential(ConvNorm(dim, dim, 3), nn.GELU(), nn.Conv2d(dim, channels, kernel_size=1))


def _layers(config: TinyVitConfig) -> list[nn.Module]:
    """Layer 0 is convolutional. The last merge keeps the resolution: the stride ends at 16, as in SAM."""
    # Strides: 4 after the patches, 8, 16, 16.
    dims, strides = config.embed_dims, (2, 2, 1)
    merges: list[nn.Module | None] = [
        PatchMerging(dim, out_dim, stride)
        for (dim, out_dim), stride in zip(pairwise(dims), strides, strict=True)
    ]
    blocks: list[Sequence[nn.Module]] = [[MBConv(dims[0]) for _ in range(config.depths[0])]]
    for index in range(1, len(dims)):
        sizes = dims[index], config.num_heads[index], config.window_sizes[index]
        blocks.append([TinyViTBlock(*sizes) for _ in range(config.depths[index])])
    return [Layer(group, merge) for group, merge in zip(blocks, [*merges, None], strict=True)]


def _init_linear(module: nn.Module) -> None:
    if isinstance(module, nn.Linear):
        nn.init.trunc_normal_(module.weight, std=0.02)
        nn.init.zeros_(module.bias)


class ConvNorm(nn.Sequential):
    """A convolution without bias and its BatchNorm, named `c` and `bn` as in the checkpoints."""

    def __init__(self, in_dim: int, out_dim: int, kernel: int = 1, stride: int = 1, groups: int = 1) -> None:
        super().__init__()
        # BatchNorm has the bias, so the convolution needs none.
        padding = kernel // 2
        self.add_module("c", nn.Conv2d(in_dim, out_dim, kernel, stride, padding, groups=groups, bias=False))
        self.add_module("bn", nn.BatchNorm2d(out_dim))


class PatchEmbed(nn.Module):
    """(B, 3, S, S) -> (B, dim, S / 4, S / 4)."""

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.seq = nn.Sequential(ConvNorm(3, dim // 2, 3, 2), nn.GELU(), ConvNorm(dim // 2, dim, 3, 2))

    def forward(self, x: Tensor) -> Tensor:
        """See the class."""
        patches: Tensor = self.seq(x)
        return patches


class Layer(nn.Module):
    """Blocks at one resolution, then the merge to the next."""

    def __init__(self, blocks: Sequence[nn.Module], downsample: nn.Module | None) -> None:
        super().__init__()
        self.blocks = nn.ModuleList(blocks)
        self.downsample = downsample

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, H, W) -> (B, C', H', W')."""
        for block in self.blocks:
            x = block(x)
        return x if self.downsample is None else self.downsample(x)


class MBConv(ResidualBlock):
    """Inverted bottleneck with expansion 4; (B, dim, H, W) keeps its shape."""

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.conv1 = ConvNorm(dim, 4 * dim)
        self.conv2 = ConvNorm(4 * dim, 4 * dim, 3, groups=4 * dim)
        self.conv3 = ConvNorm(4 * dim, dim)

    def forward(self, x: Tensor) -> Tensor:
        """See the class."""
        # The last activation stands after the sum, unlike in MobileNet.
        hidden = F.gelu(self.conv2(F.gelu(self.conv1(x))))
        return F.gelu(x + self.kept(self.conv3(hidden)))


class PatchMerging(nn.Module):
    """(B, in_dim, H, W) -> (B, out_dim, H / stride, W / stride)."""

    def __init__(self, in_dim: int, out_dim: int, stride: int) -> None:
        super().__init__()
        self.conv1 = ConvNorm(in_dim, out_dim)
        self.conv2 = ConvNorm(out_dim, out_dim, 3, stride, groups=out_dim)
        self.conv3 = ConvNorm(out_dim, out_dim)

    def forward(self, x: Tensor) -> Tensor:
        """See the class."""
        merged: Tensor = self.conv3(F.gelu(self.conv2(F.gelu(self.conv1(x)))))
        return merged


class TinyViTBlock(ResidualBlock):
    """Windowed attention, a depthwise convolution that joins the windows, a feed-forward part."""

    def __init__(self, dim: int, num_heads: int, window_size: int) -> None:
        super().__init__()
        self.window_size = window_size
        self.attn = Attention(dim, num_heads, window_size)
        self.mlp = Mlp(dim)
        self.local_conv = ConvNorm(dim, dim, 3, groups=dim)

    def forward(self, x: Tensor) -> Tensor:
        """(B, dim, H, W) -> the same shape."""
        channels_last = x.permute(0, 2, 3, 1)
        channels_last = channels_last + self.kept(self._attend(channels_last))
        # No residual here: the convolution replaces what attention gave.
        x = self.local_conv(channels_last.permute(0, 3, 1, 2)).permute(0, 2, 3, 1)
        x = x + self.kept(self.mlp(x))
        return x.permute(0, 3, 1, 2)

    def _attend(self, x: Tensor) -> Tensor:
        """Padding joins the attention unmasked, as in the original."""
        windows, padded_hw = window_partition(x, self.window_size)
        attended = self.attn(windows.flatten(1, 2)).view_as(windows)
        return window_unpartition(attended, padded_hw, (x.shape[1], x.shape[2]))


class Mlp(nn.Module):
    """Norm, then two linear layers with expansion 4."""

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(dim)
        self.fc1 = Linear(dim, 4 * dim)
        self.fc2 = Linear(4 * dim, dim)

    def forward(self, x: Tensor) -> Tensor:
        """(..., dim) -> the same shape."""
        return by_rows(self._forward, x)

    def _forward(self, x: Tensor) -> Tensor:
        hidden: Tensor = self.fc2(F.gelu(self.fc1(self.norm(x))))
        return hidden


class Attention(nn.Module):
    """Attention inside a window with one learned bias per head and absolute offset."""

    bias_index: Tensor

    def __init__(self, dim: int, num_heads: int, window_size: int) -> None:
        super().__init__()
        self.num_heads = num_heads
        self.norm = nn.LayerNorm(dim)
        self.qkv = Linear(dim, 3 * dim)
        self.proj = Linear(dim, dim)
        self.attention_biases = nn.Parameter(torch.zeros(num_heads, window_size**2))
        self.register_buffer("bias_index", _offset_index(window_size), persistent=False)

    def forward(self, x: Tensor) -> Tensor:
        """(B, window_size ** 2, dim) -> the same shape."""
        batch, length, dim = x.shape
        # q, k and v lie side by side within each head, as in LeViT.
        qkv = self.qkv(self.norm(x)).view(batch, length, self.num_heads, 3, -1)
        q, k, v = qkv.permute(3, 0, 2, 1, 4).unbind(0)
        bias = self.attention_biases[:, self.bias_index]
        heads = F.scaled_dot_product_attention(q, k, v, attn_mask=bias)
        attended: Tensor = self.proj(heads.transpose(1, 2).reshape(batch, length, dim))
        return attended


def _offset_index(window_size: int) -> Tensor:
    """(n, n) index of the bias between two cells: |dy| * window_size + |dx|, the checkpoints' order."""
    # Built as numbers first, so that a model on the meta device still has real indices to check.
    cells = torch.arange(window_size**2)
    rows, columns = cells // window_size, cells % window_size
    return (rows[:, None] - rows).abs() * window_size + (columns[:, None] - columns).abs()
