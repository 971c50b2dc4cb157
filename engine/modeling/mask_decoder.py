"""The mask decoder (paper section 3, appendix A): image and prompt embeddings in, masks and their IoU out."""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from engine.modeling.layers import LayerNorm2d
from engine.modeling.sam_config import UPSCALING
from engine.modeling.transformer import TwoWayTransformer


class MaskDecoder(nn.Module):
    """Mask token 0 answers several prompts, tokens 1 to 3 are the three readings of an ambiguous one."""

    def __init__(
        self,
        transformer_dim: int,
        transformer: TwoWayTransformer,
        num_multimask_outputs: int,
        iou_head_hidden_dim: int,
        iou_head_depth: int = 3,
        detail_channels: int = 0,
    ) -> None:
        super().__init__()
        self.transformer = transformer
        self.num_mask_tokens = num_multimask_outputs + 1
        self.iou_token = nn.Embedding(1, transformer_dim)
        self.mask_tokens = nn.Embedding(self.num_mask_tokens, transformer_dim)
        self.output_upscaling = _output_upscaling(transformer_dim)
        width = transformer_dim // 8
        self.detail_reading = nn.Conv2d(detail_channels, width, 1) if detail_channels else None
        self.output_hypernetworks_mlps = nn.ModuleList(
            MLP(transformer_dim, transformer_dim, transformer_dim // 8, 3)
            for _ in range(self.num_mask_tokens)
        )
        self.iou_prediction_head = MLP(
            transformer_dim, iou_head_hidden_dim, self.num_mask_tokens, iou_head_depth
        )

    def forward(
        self,
        image_embeddings: Tensor,
        image_pe: Tensor,
        sparse_prompt_embeddings: Tensor,
        dense_prompt_embeddings: Tensor,
        multimask_output: bool,
    ) -> tuple[Tensor, Tensor]:
        """As `predict_masks`, cut to three masks or to the single one: (B, 3 | 1, 4g, 4g) and (B, 3 | 1)."""
        masks, iou_predictions = self.predict_masks(
            image_embeddings, image_pe, sparse_prompt_embeddings, dense_prompt_embeddings
        )
        # Token 0 is trained on several prompts, 1 to 3 on a single one.
        kept = slice(1, None) if multimask_output else slice(0, 1)
        return masks[:, kept], iou_predictions[:, kept]

    def predict_masks(
        self,
        image_embeddings: Tensor,
        image_pe: Tensor,
        sparse_prompt_embeddings: Tensor,
        dense_prompt_embeddings: Tensor,
    ) -> tuple[Tensor, Tensor]:
        """All four tokens: low resolution logits (B, 4, 4g, 4g) and iou_predictions (B, 4).

        image_embeddings is (1, C, g, g), shared by the B prompts, or (B, C, g, g), one for each, with the
        detail's channels after those C where the model has them; image_pe (1, C, g, g); sparse (B, n, C);
        dense (B, C, g, g).
        """
        image_embeddings, detail = image_embeddings.tensor_split([dense_prompt_embeddings.shape[1]], dim=1)
        batch = sparse_prompt_embeddings.shape[0]
        # Order of the tokens: IoU, four masks, prompts.
        output_tokens = torch.cat([self.iou_token.weight, self.mask_tokens.weight], dim=0)
        tokens = torch.cat([output_tokens.expand(batch, -1, -1), sparse_prompt_embeddings], dim=1)
        # Broadcasting where the official code repeats: the same numbers without the copy.
        hidden, image = self.transformer(image_embeddings + dense_prompt_embeddings, image_pe, tokens)
        grid = image.transpose(1, 2).reshape(batch, -1, *image_embeddings.shape[2:])
        upscaled = self._upscale(grid, detail)
        # A mask is a dot product: one small vector per token against every upscaled pixel.
        weights = [mlp(hidden[:, 1 + index]) for index, mlp in enumerate(self.output_hypernetworks_mlps)]
        masks = (torch.stack(weights, dim=1) @ upscaled.flatten(2)).reshape(batch, -1, *upscaled.shape[2:])
        return masks, self.iou_prediction_head(hidden[:, 0])

    def _upscale(self, image: Tensor, detail: Tensor) -> Tensor:
        """(B, C, g, g) -> (B, C / 8, 4g, 4g), the detail added before the last activation."""
        *learned, activation = self.output_upscaling
        for layer in learned:
            image = layer(image)
        if self.detail_reading is not None:
            image = image + self.detail_reading(F.pixel_shuffle(detail, UPSCALING))
        upscaled: Tensor = activation(image)
        return upscaled


class MLP(nn.Module):
    """Linear layers with ReLU between them."""

    def __init__(self, input_dim: int, hidden_dim: int, output_dim: int, num_layers: int) -> None:
        super().__init__()
        widths = [input_dim] + [hidden_dim] * (num_layers - 1) + [output_dim]
        self.layers = nn.ModuleList(nn.Linear(n, k) for n, k in zip(widths[:-1], widths[1:], strict=True))

    def forward(self, x: Tensor) -> Tensor:
        """(..., input_dim) -> (..., output_dim)."""
        for index, layer in enumerate(self.layers):
            x = layer(x if index == 0 else F.relu(x))
        return x


def _output_upscaling(dim: int) -> nn.Sequential:
    return nn.Sequential(
        nn.ConvTranspose2d(dim, dim // 4, kernel_size=2, stride=2),
        LayerNorm2d(dim // 4),
        nn.GELU(),
        nn.ConvTranspose2d(dim // 4, dim // 8, kernel_size=2, stride=2),
        nn.GELU(),
    )
