"""SAM: the three parts together, and the way of pixels in and masks out (paper section 3)."""

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
