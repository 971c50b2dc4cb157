"""The two-way transformer: tokens attend to the image and the image to the tokens (paper appendix A)."""

import math

import torch
from torch import Tensor, nn

from engine.modeling.layers import MLPBlock
from engine.modeling.linear import Linear


class TwoWayTransformer(nn.Module):
    """`depth` two-way blocks, then one last attention from tokens to image."""

    def __init__(self, depth: int, embedding_dim: int, num_heads: int, mlp_dim: int) -> None:
        super().__init__()
        self.layers = nn.ModuleList(
            TwoWayAttentionBlock(embedding_dim, num_heads, mlp_dim, skip_first_layer_pe=index == 0)
            for index in range(depth)
        )
        self.final_attn_token_to_image = Attention(embedding_dim, num_heads, downsample_rate=2)
        self.norm_final_attn = nn.LayerNorm(embedding_dim)

    def forward(
        self, image_embedding: Tensor, image_pe: Tensor, point_embedding: Tensor
    ) -> tuple[Tensor, Tensor]:
        """(B, C, g, g) twice (the second may have batch 1), tokens (B, n, C) -> (B, n, C), (B, g * g, C)."""
        keys = image_embedding.flatten(2).transpose(1, 2)
        key_pe = image_pe.flatten(2).transpose(1, 2)
        # Prompts are also their own positions: added again at every attention.
        queries = point_embedding
        for layer in self.layers:
            queries, keys = layer(queries, keys, point_embedding, key_pe)
        attended = self.final_attn_token_to_image.read(queries + point_embedding, keys + key_pe, keys)
        return self.norm_final_attn(queries + attended), keys


class TwoWayAttentionBlock(nn.Module):
    """Tokens to tokens, tokens to image, feed-forward on tokens, image to tokens."""

    def __init__(self, embedding_dim: int, num_heads: int, mlp_dim: int, skip_first_layer_pe: bool) -> None:
        super().__init__()
        self.self_attn = Attention(embedding_dim, num_heads)
        self.norm1 = nn.LayerNorm(embedding_dim)
        self.cross_attn_token_to_image = Attention(embedding_dim, num_heads, downsample_rate=2)
        self.norm2 = nn.LayerNorm(embedding_dim)
        self.mlp = MLPBlock(embedding_dim, mlp_dim, nn.ReLU())
        self.norm3 = nn.LayerNorm(embedding_dim)
        self.norm4 = nn.LayerNorm(embedding_dim)
        self.cross_attn_image_to_token = Attention(embedding_dim, num_heads, downsample_rate=2)
        self.skip_first_layer_pe = skip_first_layer_pe

    def forward(
        self, queries: Tensor, keys: Tensor, query_pe: Tensor, key_pe: Tensor
    ) -> tuple[Tensor, Tensor]:
        """Tokens (B, n, C) and image (B, g * g, C) with their positions -> both, updated."""
        # In the first block queries still are the positions.
        if self.skip_first_layer_pe:
            queries = self.self_attn(queries, queries, queries)
        else:
            placed = queries + query_pe
            queries = queries + self.self_attn(placed, placed, queries)
        queries = self.norm1(queries)
        # Used twice below, so added once.
        placed_keys = keys + key_pe
        attended = self.cross_attn_token_to_image.read(queries + query_pe, placed_keys, keys)
        queries = self.norm2(queries + attended)
        queries = self.norm3(queries + self.mlp(queries))
        answered = self.cross_attn_image_to_token.tell(placed_keys, queries + query_pe, queries)
        return queries, self.norm4(keys + answered)


class Attention(nn.Module):
    """Attention whose inner width is `embedding_dim / downsample_rate`."""

    def __init__(self, embedding_dim: int, num_heads: int, downsample_rate: int = 1) -> None:
        super().__init__()
        self.num_heads = num_heads
        # Cross attention at half the width: the image side is what costs.
        internal_dim = embedding_dim // downsample_rate
        self.q_proj = Linear(embedding_dim, internal_dim)
        self.k_proj = Linear(embedding_dim, internal_dim)
        self.v_proj = Linear(embedding_dim, internal_dim)
        self.out_proj = Linear(internal_dim, embedding_dim)

    def forward(self, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        """(B, n, C), (B, m, C), (B, m, C) -> (B, n, C)."""
        q, k, v = self._heads(self.q_proj(q)), self._heads(self.k_proj(k)), self._heads(self.v_proj(v))
        scores = q @ k.transpose(-2, -1) / math.sqrt(q.shape[-1])
        mixed = (scores.softmax(dim=-1) @ v).transpose(1, 2).flatten(2)
        projected: Tensor = self.out_proj(mixed)
        return projected

    def read(self, tokens: Tensor, keys: Tensor, values: Tensor) -> Tensor:
        """`forward` for few queries (B, n, C) and many keys and values (B, m, C): (B, n, C).

        q (W k) is computed as (q W) k, so that the weights meet the tokens and not the image: half the work.
        """
        if self._has_many(tokens):
            return self.forward(tokens, keys, values)
        # What the keys' bias adds is the same for all keys of a query; softmax takes it away again.
        asked = self._scaled(self.q_proj(tokens)) @ self._by_head(self.k_proj)
        scores = asked.flatten(1, 2) @ keys.transpose(1, 2)
        mixed = (scores.softmax(dim=-1) @ values).reshape(asked.shape)
        heads = mixed @ self._by_head(self.v_proj).transpose(1, 2)
        projected: Tensor = self.out_proj(heads.transpose(1, 2).flatten(2) + self.v_proj.bias)
        return projected

    def tell(self, image: Tensor, keys: Tensor, values: Tensor) -> Tensor:
        """`forward` for many queries (B, m, C) and few keys and values (B, n, C): (B, m, C)."""
        if self._has_many(keys):
            return self.forward(image, keys, values)
        k = self._scaled(self.k_proj(keys))
        offered = (k @ self._by_head(self.q_proj)).flatten(1, 2)
        offset = (k @ self.q_proj.bias.view(self.num_heads, -1, 1)).flatten(1)
        scores = image @ offered.transpose(1, 2) + offset[:, None]
        weights = scores.view(*scores.shape[:2], *k.shape[1:3]).softmax(dim=-1).flatten(2)
        out = self.out_proj.weight.t().view(self.num_heads, k.shape[-1], -1)
        told = (self._heads(self.v_proj(values)) @ out).flatten(1, 2)
        mixed: Tensor = weights @ told + self.out_proj.bias
        return mixed

    def _has_many(self, tokens: Tensor) -> bool:
        """Whether there are so many tokens that projecting the image is less work. An exported graph serves
        any number, and is made for few."""
        return (
            not torch.compiler.is_compiling() and tokens.shape[1] * self.num_heads > self.q_proj.out_features
        )

    def _scaled(self, x: Tensor) -> Tensor:
        heads = self._heads(x)
        return heads / math.sqrt(heads.shape[-1])

    def _by_head(self, layer: nn.Linear) -> Tensor:
        """Weights of an inner projection, (heads, width of one, C)."""
        return layer.weight.view(self.num_heads, -1, layer.in_features)

    def _heads(self, x: Tensor) -> Tensor:
        batch, length, width = x.shape
        return x.reshape(batch, length, self.num_heads, width // self.num_heads).transpose(1, 2)
