"""SAM's parts written the plain way, on the weights of ours: what the benchmark measures against.

Every formula stands as the papers have it (Segment Anything, appendix A; MViTv2 for relative positions;
TinyViT): windows are padded before anything is projected, all scores of an attention are one tensor, the
relative bias is another that is added to it, norms of maps are a mean and a variance, each prompt gets a copy
of the image, batch norms are not folded. Nothing here is slow on purpose, and nothing is clever.
"""

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from engine.modeling import Sam
from engine.modeling.image_encoder import ImageEncoderViT
from engine.modeling.mask_decoder import MaskDecoder
from engine.modeling.sam_config import UPSCALING
from engine.modeling.tiny_vit import TinyViT


def encode(encoder: nn.Module, x: Tensor) -> Tensor:
    """(B, 3, S, S) -> (B, C, g, g), as `encoder` does it."""
    return _vit(encoder, x) if isinstance(encoder, ImageEncoderViT) else _tiny_vit(encoder, x)


def norm2d(layer: nn.Module, x: Tensor) -> Tensor:
    """Normalises (B, C, H, W) over C."""
    centred = x - x.mean(1, keepdim=True)
    x = centred / torch.sqrt(centred.pow(2).mean(1, keepdim=True) + layer.eps)
    return x * layer.weight[:, None, None] + layer.bias[:, None, None]


def dense(layer: nn.Module, x: Tensor) -> Tensor:
    """One linear layer."""
    return F.linear(x, layer.weight, layer.bias)


def windows_of(x: Tensor, size: int) -> Tensor:
    """(B, H, W, C) -> (B * n, size, size, C), zeros right and below."""
    x = F.pad(x, (0, 0, 0, -x.shape[2] % size, 0, -x.shape[1] % size))
    batch, height, width, channels = x.shape
    x = x.view(batch, height // size, size, width // size, size, channels)
    return x.permute(0, 1, 3, 2, 4, 5).contiguous().view(-1, size, size, channels)


def joined(windows: Tensor, batch: int, height: int, width: int) -> Tensor:
    """The way back."""
    size, channels = windows.shape[1], windows.shape[-1]
    rows, columns = math.ceil(height / size), math.ceil(width / size)
    x = windows.view(batch, rows, columns, size, size, channels).permute(0, 1, 3, 2, 4, 5)
    return x.contiguous().view(batch, rows * size, columns * size, channels)[:, :height, :width].contiguous()


def _neck(neck: nn.Sequential, x: Tensor) -> Tensor:
    return norm2d(neck[3], neck[2](norm2d(neck[1], neck[0](x))))


def _vit(encoder: ImageEncoderViT, x: Tensor) -> Tensor:
    x = encoder.patch_embed.proj(x).permute(0, 2, 3, 1) + encoder.pos_embed
    for block in encoder.blocks:
        normed = block.norm1(x)
        size = block.attn.window_size
        if size:
            batch, height, width, _ = x.shape
            normed = joined(_vit_attention(block.attn, windows_of(normed, size)), batch, height, width)
        else:
            normed = _vit_attention(block.attn, normed)
        x = x + normed
        x = x + dense(block.mlp.lin2, F.gelu(dense(block.mlp.lin1, block.norm2(x))))
    return _neck(encoder.neck, x.permute(0, 3, 1, 2))


def _vit_attention(attention: nn.Module, x: Tensor) -> Tensor:
    batch, side, _, dim = x.shape
    n_heads = attention.num_heads
    qkv = dense(attention.qkv, x).reshape(batch, side * side, 3, n_heads, -1).permute(2, 0, 3, 1, 4)
    q, k, v = qkv.reshape(3, batch * n_heads, side * side, -1).unbind(0)
    scores = (q * q.shape[-1] ** -0.5) @ k.transpose(1, 2)
    steps = torch.arange(side)
    offsets = steps[:, None] - steps[None] + side - 1
    grid = q.view(-1, side, side, q.shape[-1])
    rows = torch.einsum("bhwc,hkc->bhwk", grid, attention.rel_pos_h[offsets])
    columns = torch.einsum("bhwc,wkc->bhwk", grid, attention.rel_pos_w[offsets])
    by_place = scores.view(-1, side, side, side, side) + rows[..., None] + columns[:, :, :, None]
    weights = by_place.view_as(scores).softmax(dim=-1)
    mixed = (weights @ v).view(batch, n_heads, side, side, -1).permute(0, 2, 3, 1, 4)
    return dense(attention.proj, mixed.reshape(batch, side, side, dim))


def _tiny_vit(encoder: TinyViT, x: Tensor) -> Tensor:
    patches = x = encoder.patch_embed(x)
    for layer in encoder.layers:
        for block in layer.blocks:
            x = _tiny_block(block, x) if hasattr(block, "attn") else block(x)
        x = x if layer.downsample is None else layer.downsample(x)
    x = _neck(encoder.neck, x)
    if encoder.detail is None:
        return x
    return torch.cat([x, F.pixel_unshuffle(encoder.detail(patches), UPSCALING)], dim=1)


def _tiny_block(block: nn.Module, x: Tensor) -> Tensor:
    batch, dim, height, width = x.shape
    x = x.permute(0, 2, 3, 1)
    windows = windows_of(x, block.window_size)
    attended = _tiny_attention(block.attn, windows.flatten(1, 2)).view_as(windows)
    x = x + joined(attended, batch, height, width)
    x = block.local_conv(x.permute(0, 3, 1, 2)).flatten(2).transpose(1, 2)
    x = x + dense(block.mlp.fc2, F.gelu(dense(block.mlp.fc1, block.mlp.norm(x))))
    return x.transpose(1, 2).reshape(batch, dim, height, width)


def _tiny_attention(attention: nn.Module, x: Tensor) -> Tensor:
    batch, length, dim = x.shape
    qkv = dense(attention.qkv, attention.norm(x)).view(batch, length, attention.num_heads, 3, -1)
    q, k, v = qkv.permute(3, 0, 2, 1, 4).unbind(0)
    scores = (q @ k.transpose(-2, -1)) * q.shape[-1] ** -0.5
    weights = (scores + attention.attention_biases[:, attention.bias_index]).softmax(dim=-1)
    return dense(attention.proj, (weights @ v).transpose(1, 2).reshape(batch, length, dim))


def decode(
    decoder: MaskDecoder, image_embedding: Tensor, image_pe: Tensor, sparse: Tensor, dense_prompt: Tensor
) -> tuple[Tensor, Tensor]:
    """(1, C, g, g), (1, c, g, g), (B, n, c), (B, c, g, g) -> logits (B, 4, 4g, 4g) and IoU (B, 4)."""
    batch, channels, grid = len(sparse), dense_prompt.shape[1], image_pe.shape[-1]
    answers = torch.cat([decoder.iou_token.weight, decoder.mask_tokens.weight])
    tokens = torch.cat([answers[None].repeat(batch, 1, 1), sparse], dim=1)
    image, detail = image_embedding[:, :channels], image_embedding[:, channels:]
    keys = (image.repeat(batch, 1, 1, 1) + dense_prompt).flatten(2).transpose(1, 2)
    positions = image_pe.repeat(batch, 1, 1, 1).flatten(2).transpose(1, 2)
    queries, keys = _two_way(decoder.transformer, tokens, keys, positions)
    upscaled = _upscale(decoder, keys.transpose(1, 2).view(batch, channels, grid, grid), detail)
    masks = []
    for index, mlp in enumerate(decoder.output_hypernetworks_mlps):
        weights = mlp(queries[:, 1 + index])[:, None]
        masks.append((weights @ upscaled.flatten(2)).view(batch, 1, *upscaled.shape[2:]))
    return torch.cat(masks, dim=1), decoder.iou_prediction_head(queries[:, 0])


def _two_way(
    transformer: nn.Module, tokens: Tensor, keys: Tensor, positions: Tensor
) -> tuple[Tensor, Tensor]:
    queries = tokens
    for index, layer in enumerate(transformer.layers):
        if index == 0:
            queries = layer.norm1(_attention(layer.self_attn, queries, queries, queries))
        else:
            placed = queries + tokens
            queries = layer.norm1(queries + _attention(layer.self_attn, placed, placed, queries))
        read = _attention(layer.cross_attn_token_to_image, queries + tokens, keys + positions, keys)
        queries = layer.norm2(queries + read)
        widened = F.relu(dense(layer.mlp.lin1, queries))
        queries = layer.norm3(queries + dense(layer.mlp.lin2, widened))
        told = _attention(layer.cross_attn_image_to_token, keys + positions, queries + tokens, queries)
        keys = layer.norm4(keys + told)
    last = _attention(transformer.final_attn_token_to_image, queries + tokens, keys + positions, keys)
    return transformer.norm_final_attn(queries + last), keys


def _attention(attention: nn.Module, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    layers = attention.q_proj, attention.k_proj, attention.v_proj
    q, k, v = (
        dense(layer, x).unflatten(2, (attention.num_heads, -1)).transpose(1, 2)
        for layer, x in zip(layers, (q, k, v), strict=True)
    )
    weights = (q @ k.transpose(-2, -1) / math.sqrt(q.shape[-1])).softmax(dim=-1)
    return dense(attention.out_proj, (weights @ v).transpose(1, 2).flatten(2))


def _upscale(decoder: MaskDecoder, image: Tensor, detail: Tensor) -> Tensor:
    first, norm, _, second, _ = decoder.output_upscaling
    image = second(F.gelu(norm2d(norm, first(image))))
    if decoder.detail_reading is not None:
        image = image + decoder.detail_reading(F.pixel_shuffle(detail, UPSCALING))
    return F.gelu(image)


class ClickGraph(nn.Module):
    """A click as the official ONNX file answers it: four masks, scaled to the picture's size in the graph."""

    def __init__(self, sam: Sam, original_hw: tuple[int, int]) -> None:
        super().__init__()
        self.sam, self.original_hw = sam, original_hw

    def forward(
        self, embedding: Tensor, coords: Tensor, labels: Tensor, mask_input: Tensor, has_mask_input: Tensor
    ) -> tuple[Tensor, Tensor, Tensor]:
        """(1, C, g, g), (1, N, 2) px of the model's frame, (1, N), (1, 1, 4g, 4g), (1,) ->
        (1, 4, H, W), (1, 4) and the logits (1, 4, 4g, 4g)."""
        prompts = self.sam.prompt_encoder
        sparse = prompts.embed_points(coords, labels)
        no_mask = prompts.no_mask_embed.weight.view(1, -1, 1, 1)
        # As officially: the mask is embedded in any case, and a factor says whether it counts.
        dense_prompt = has_mask_input * prompts.embed_mask(mask_input) + (1 - has_mask_input) * no_mask
        logits, scores = decode(
            self.sam.mask_decoder, embedding, prompts.get_dense_pe(), sparse, dense_prompt
        )
        input_hw = self.sam.config.input_hw(self.original_hw)
        return self.sam.postprocess_masks(logits, input_hw, self.original_hw), scores, logits
