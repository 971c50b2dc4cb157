"""SAM: the three parts together, and the way of pixels in and masks out (paper section 3)."""

from collections.abc import Mapping, Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from engine.modeling.image_encoder import ImageEncoderViT
from engine.modeling.mask_decoder import MaskDecoder
from engine.modeling.prompt_encoder import PromptEncoder
from engine.modeling.sam_config import SamConfig, VitConfig
from engine.modeling.tiny_vit import TinyViT
from engine.modeling.transformer import TwoWayTransformer


class Sam(nn.Module):
    """Encode an image once, prompt it many times."""

    mask_threshold: float = 0.0
    image_format: str = "RGB"
    pixel_mean: Tensor
    pixel_std: Tensor

    def __init__(
        self,
        config: SamConfig,
        image_encoder: nn.Module,
        prompt_encoder: PromptEncoder,
        mask_decoder: MaskDecoder,
    ) -> None:
        super().__init__()
        self.config = config
        self.image_encoder = image_encoder
        self.prompt_encoder = prompt_encoder
        self.mask_decoder = mask_decoder
        # Not persistent: official checkpoints do not hold them.
        self.register_buffer("pixel_mean", torch.tensor(config.pixel_mean).view(-1, 1, 1), persistent=False)
        self.register_buffer("pixel_std", torch.tensor(config.pixel_std).view(-1, 1, 1), persistent=False)

    @property
    def device(self) -> torch.device:
        """Where the weights are."""
        return self.pixel_mean.device

    @torch.no_grad()
    def forward(
        self, batched_input: Sequence[Mapping[str, Any]], multimask_output: bool
    ) -> list[dict[str, Tensor]]:
        """Images and their prompts at once, by the official names; one answer per image.

        An image's entries: image (3, h, w) of 0 to 255, resized to long side `img_size`, and original_size
        (H, W). Each of the others may be left out, and is in pixels of the resized image: point_coords
        (B, N, 2) with point_labels (B, N), boxes (B, 4), mask_inputs (B, 1, 4g, 4g). An answer's: masks
        (B, 3 | 1, H, W) bool, iou_predictions (B, 3 | 1), low_res_logits (B, 3 | 1, 4g, 4g).
        """
        images = torch.stack([self.preprocess(entry["image"]) for entry in batched_input])
        embeddings = self.image_encoder(images)
        return [
            self._answer(embeddings[index : index + 1], entry, multimask_output)
            for index, entry in enumerate(batched_input)
        ]

    def _answer(
        self, embedding: Tensor, entry: Mapping[str, Any], multimask_output: bool
    ) -> dict[str, Tensor]:
        points = (entry["point_coords"], entry["point_labels"]) if "point_coords" in entry else None
        boxes, mask_inputs = entry.get("boxes"), entry.get("mask_inputs")
        low_res_logits, scores = decode(self, embedding, points, boxes, mask_inputs, multimask_output)
        input_hw = (entry["image"].shape[-2], entry["image"].shape[-1])
        masks = self.postprocess_masks(low_res_logits, input_hw, entry["original_size"])
        return {
            "masks": masks > self.mask_threshold,
            "iou_predictions": scores,
            "low_res_logits": low_res_logits,
        }

    def preprocess(self, x: Tensor) -> Tensor:
        """Pixels (..., 3, h, w), 0 to 255, long side `img_size` -> normalised, zero-padded (..., 3, S, S)."""
        # Padding follows normalisation, so padding is mean grey.
        x = (x - self.pixel_mean) / self.pixel_std
        height, width = x.shape[-2:]
        return F.pad(x, (0, self.config.img_size - width, 0, self.config.img_size - height))

    def postprocess_masks(
        self, masks: Tensor, input_size: tuple[int, int], original_size: tuple[int, int]
    ) -> Tensor:
        """Low resolution logits (B, n, 4g, 4g) -> logits (B, n, H, W) of the original image; sizes (h, w)."""
        side = self.config.img_size
        masks = F.interpolate(masks, (side, side), mode="bilinear", align_corners=False)
        # The padding right and below is cut away before the second step.
        masks = masks[..., : input_size[0], : input_size[1]]
        return F.interpolate(masks, original_size, mode="bilinear", align_corners=False)


def decode(
    sam: Sam,
    image_embeddings: Tensor,
    points: tuple[Tensor, Tensor] | None,
    boxes: Tensor | None,
    mask_input: Tensor | None,
    multimask_output: bool,
) -> tuple[Tensor, Tensor]:
    """Prompts in the model frame -> low_res_logits (B, 3 | 1, 4g, 4g) and iou_predictions (B, 3 | 1)."""
    sparse, dense = sam.prompt_encoder(points=points, boxes=boxes, masks=mask_input)
    logits, iou_predictions = sam.mask_decoder(
        image_embeddings=image_embeddings,
        image_pe=sam.prompt_encoder.get_dense_pe(),
        sparse_prompt_embeddings=sparse,
        dense_prompt_embeddings=dense,
        multimask_output=multimask_output,
    )
    return logits, iou_predictions


def assemble(config: SamConfig) -> Sam:
    """A Sam of these sizes with random weights, drawn from torch's current generator."""
    dim = config.prompt_dim
    transformer = TwoWayTransformer(config.decoder_depth, dim, config.decoder_heads, config.mlp_dim)
    return Sam(
        config,
        _image_encoder(config),
        PromptEncoder(dim, config.embedding_grid, config.img_size, config.mask_in_chans),
        MaskDecoder(
            dim,
            transformer,
            config.num_multimask_outputs,
            config.iou_hidden,
            detail_channels=config.detail_channels,
        ),
    )


def _image_encoder(config: SamConfig) -> nn.Module:
    if isinstance(config.encoder, VitConfig):
        return ImageEncoderViT(config.encoder, config.img_size, config.prompt_dim)
    return TinyViT(config.encoder, config.img_size, config.prompt_dim, config.detail_channels)
