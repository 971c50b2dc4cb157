"""Points, boxes and masks become embeddings (paper section 3, appendix A)."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from engine.modeling.layers import LayerNorm2d


class PromptEncoder(nn.Module):
    """Sparse embeddings for points and boxes, a dense one for a mask; coordinates in model-frame pixels."""

    def __init__(self, embed_dim: int, grid: int, img_size: int, mask_in_chans: int) -> None:
        super().__init__()
        self.embed_dim = embed_dim
        self.image_embedding_size = (grid, grid)
        self.mask_input_size = (4 * grid, 4 * grid)
        self.img_size = img_size
        self.pe_layer = PositionEmbeddingRandom(embed_dim // 2)
        # Background, foreground, top-left corner, bottom-right corner: the labels 0 to 3.
        # One table per label, and not one table of four, because the checkpoints have it so.
        self.point_embeddings = nn.ModuleList(nn.Embedding(1, embed_dim) for _ in range(4))
        self.not_a_point_embed = nn.Embedding(1, embed_dim)
        self.mask_downscaling = _mask_downscaling(embed_dim, mask_in_chans)
        self.no_mask_embed = nn.Embedding(1, embed_dim)

    def get_dense_pe(self) -> Tensor:
        """Positional encoding of the embedding grid: (1, embed_dim, g, g)."""
        grid: Tensor = self.pe_layer(self.image_embedding_size)
        return grid.unsqueeze(0)

    def forward(
        self, points: tuple[Tensor, Tensor] | None, boxes: Tensor | None, masks: Tensor | None
    ) -> tuple[Tensor, Tensor]:
        """Points ((B, N, 2), labels (B, N)), boxes (B, 4) xyxy, masks (B, 1, 4g, 4g) logits; any may be None.

        Returns sparse (B, n, C) and dense (B, C, g, g). Without a box one padding point is added, as in the
        official code; n is 0 where neither points nor boxes are given.
        """
        batch = _batch_size(points, boxes, masks)
        coords, labels = self._gather_points(points, boxes, batch)
        return self.embed_points(coords, labels), self._embed_masks(masks, batch)

    def embed_points(self, coords: Tensor, labels: Tensor) -> Tensor:
        """(B, N, 2) px and labels (B, N) of -1 (padding), 0, 1, 2, 3 -> (B, N, C). Exported as is."""
        labels = labels.unsqueeze(-1)
        # Clicks name pixels; the encoding wants their centres.
        encoded = self.pe_layer.encode_points(coords + 0.5, self.img_size)
        # Padding has no place: its position is replaced, not added to.
        encoded = torch.where(labels == -1, self.not_a_point_embed.weight, encoded)
        for label, embedding in enumerate(self.point_embeddings):
            # Adding through `where` keeps one graph for every mix of labels.
            encoded = torch.where(labels == label, encoded + _weight(embedding), encoded)
        return encoded

    def embed_mask(self, masks: Tensor) -> Tensor:
        """(B, 1, 4g, 4g) logits -> (B, C, g, g)."""
        dense: Tensor = self.mask_downscaling(masks)
        return dense

    def _embed_masks(self, masks: Tensor | None, batch: int) -> Tensor:
        if masks is not None:
            return self.embed_mask(masks)
        # A learned "no mask" everywhere, as a view: no memory until it is added.
        return self.no_mask_embed.weight.reshape(1, -1, 1, 1).expand(batch, -1, *self.image_embedding_size)

    def _gather_points(
        self, points: tuple[Tensor, Tensor] | None, boxes: Tensor | None, batch: int
    ) -> tuple[Tensor, Tensor]:
        """Everything sparse as one list of labelled points: (B, n, 2) and (B, n)."""
        device = self.no_mask_embed.weight.device
        coords, labels = torch.zeros(batch, 0, 2, device=device), torch.zeros(batch, 0, device=device)
        if points is not None:
            coords, labels = points
            # The official code pads points only where no box follows; the count of tokens matters.
            if boxes is None:
                coords = torch.cat([coords, coords.new_zeros(batch, 1, 2)], dim=1)
                labels = torch.cat([labels, labels.new_full((batch, 1), -1)], dim=1)
        if boxes is not None:
            corners = torch.tensor([2.0, 3.0], device=device).to(labels.dtype).expand(batch, 2)
            coords = torch.cat([coords, boxes.reshape(-1, 2, 2)], dim=1)
            labels = torch.cat([labels, corners], dim=1)
        return coords, labels


class PositionEmbeddingRandom(nn.Module):
    """Random Fourier features of a position (Tancik et al. 2020)."""

    positional_encoding_gaussian_matrix: Tensor

    def __init__(self, num_pos_feats: int, scale: float = 1.0) -> None:
        super().__init__()
        matrix = scale * torch.randn(2, num_pos_feats)
        self.register_buffer("positional_encoding_gaussian_matrix", matrix)

    def forward(self, size_hw: tuple[int, int]) -> Tensor:
        """Encoding of every cell centre: (C, h, w)."""
        height, width = size_hw
        # The matrix is drawn once and stored: another draw is another model.
        like = self.positional_encoding_gaussian_matrix
        y = (torch.arange(height, device=like.device, dtype=like.dtype) + 0.5) / height
        x = (torch.arange(width, device=like.device, dtype=like.dtype) + 0.5) / width
        rows, columns = torch.meshgrid(y, x, indexing="ij")
        return self._encode(torch.stack([columns, rows], dim=-1)).permute(2, 0, 1)

    def encode_points(self, coords: Tensor, img_size: int) -> Tensor:
        """(B, N, 2) px in a square of `img_size` -> (B, N, C)."""
        return self._encode(coords.to(self.positional_encoding_gaussian_matrix.dtype) / img_size)

    def _encode(self, unit_coords: Tensor) -> Tensor:
        # From 0..1 to -1..1, then to random frequencies.
        phase = 2 * math.pi * ((2 * unit_coords - 1) @ self.positional_encoding_gaussian_matrix)
        return torch.cat([phase.sin(), phase.cos()], dim=-1)


def _mask_downscaling(embed_dim: int, mask_in_chans: int) -> nn.Sequential:
    return nn.Sequential(
        nn.Conv2d(1, mask_in_chans // 4, kernel_size=2, stride=2),
        LayerNorm2d(mask_in_chans // 4),
        nn.GELU(),
        nn.Conv2d(mask_in_chans // 4, mask_in_chans, kernel_size=2, stride=2),
        LayerNorm2d(mask_in_chans),
        nn.GELU(),
        nn.Conv2d(mask_in_chans, embed_dim, kernel_size=1),
    )


def _batch_size(points: tuple[Tensor, Tensor] | None, boxes: Tensor | None, masks: Tensor | None) -> int:
    if points is not None:
        return points[0].shape[0]
    first = boxes if boxes is not None else masks
    return 1 if first is None else first.shape[0]


def _weight(embedding: nn.Module) -> Tensor:
    assert isinstance(embedding, nn.Embedding)
    return embedding.weight
