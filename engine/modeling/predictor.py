"""Prompting one image with torch, by the official names: set_image once, then predict as often as needed."""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from engine.errors import BadInput
from engine.modeling.prompt_arrays import check_arrays, check_image
from engine.modeling.prompts import Floats, to_model_frame
from engine.modeling.resize import resize_long_side
from engine.modeling.sam import Sam, decode
from engine.modeling.transforms import ResizeLongestSide


@torch.inference_mode()
def encode_image(sam: Sam, image: NDArray[np.uint8]) -> Floats:
    """(H, W, 3) uint8 RGB -> image embedding (C, g, g) float32. Deterministic for one thread count."""
    embedding: Tensor = sam.image_encoder(preprocess_image(sam, image))
    return np.ascontiguousarray(embedding[0].float().cpu().numpy())


def preprocess_image(sam: Sam, image: NDArray[np.uint8]) -> Tensor:
    """(H, W, 3) uint8 RGB -> what the encoder takes: (1, 3, S, S), resized, normalised, padded."""
    resized = resize_long_side(image, sam.config.img_size)
    # Contiguous: a view in another order would pick another, slower convolution.
    # Copied: a picture decoded from a file is read-only, and torch wants memory it may write.
    pixels = torch.tensor(resized, device=sam.device).permute(2, 0, 1).contiguous()
    return sam.preprocess(pixels[None])


class Predictor:
    """Holds one image's embedding and answers prompts about it."""

    def __init__(self, sam_model: Sam) -> None:
        self.model = sam_model
        self.transform = ResizeLongestSide(sam_model.config.img_size)
        self.reset_image()

    @property
    def device(self) -> torch.device:
        """Where the model is."""
        return self.model.device

    def reset_image(self) -> None:
        """Forgets the image."""
        self.is_image_set = False
        self.features: Tensor | None = None
        self.original_size = (0, 0)
        self.input_size = (0, 0)

    # no_grad and not inference_mode, as officially: people train decoders on what comes out here.
    @torch.no_grad()
    def set_image(self, image: NDArray[np.uint8], image_format: str = "RGB") -> None:
        """Encodes (H, W, 3) uint8 in the order "RGB" or "BGR". Raises BadInput for anything else."""
        if image_format not in ("RGB", "BGR"):
            raise BadInput(f"image_format must be RGB or BGR, not {image_format}")
        check_image(image)
        if image_format != self.model.image_format:
            image = image[..., ::-1]
        self.set_embedding(self.model.image_encoder(preprocess_image(self.model, image)), image.shape[:2])

    @torch.no_grad()
    def set_torch_image(self, transformed_image: Tensor, original_image_size: tuple[int, int]) -> None:
        """Encodes pixels (1, 3, h, w) of 0 to 255 that were already resized to long side `img_size`, as
        `transform` does it; raises BadInput for another shape."""
        wanted = (1, 3, *self.model.config.input_hw(original_image_size))
        if tuple(transformed_image.shape) != wanted:
            shape = tuple(transformed_image.shape)
            raise BadInput(f"set_torch_image takes resized pixels {wanted} of that image, not {shape}")
        features = self.model.image_encoder(self.model.preprocess(transformed_image))
        self.set_embedding(features, original_image_size)

    def set_embedding(self, features: Tensor, original_size: tuple[int, ...]) -> None:
        """Takes a ready image embedding (1, C, g, g) of an image of (H, W)."""
        height, width = original_size
        self.features = features.to(self.device)
        self.original_size = (height, width)
        self.input_size = self.model.config.input_hw(self.original_size)
        self.is_image_set = True

    def get_image_embedding(self) -> Tensor:
        """(1, C, g, g) of the image that is set."""
        if self.features is None:
            raise BadInput("an image must be set with .set_image(...) first")
        return self.features

    def predict(
        self,
        point_coords: NDArray[np.float32] | None = None,
        point_labels: NDArray[np.float32] | None = None,
        box: NDArray[np.float32] | None = None,
        mask_input: NDArray[np.float32] | None = None,
        multimask_output: bool = True,
        return_logits: bool = False,
    ) -> tuple[NDArray[np.bool_] | Floats, Floats, Floats]:
        """Masks (n, H, W) bool, or logits; iou_predictions (n,); low_res_masks (n, 4g, 4g). n is 3 or 1.

        point_coords (N, 2) x y and box (4,) xyxy in original pixels; point_labels (N,) 1 or 0; mask_input
        (1, 4g, 4g), the low_res_masks of an earlier call. Raises BadInput for prompts without a meaning.
        """
        # Says "set an image first" before anything about the prompts.
        self.get_image_embedding()
        side = self.model.config.logits_size
        check_arrays(point_coords, point_labels, box, mask_input, self.original_size, side)
        masks, iou_predictions, low_res_masks = self.predict_torch(
            self._in_model_frame(point_coords, (1, -1, 2)),
            None if point_labels is None else self._tensor(point_labels)[None],
            self._in_model_frame(box, (1, -1, 2)),
            None if mask_input is None else self._tensor(mask_input)[None],
            multimask_output,
            return_logits,
        )
        return masks[0].cpu().numpy(), iou_predictions[0].cpu().numpy(), low_res_masks[0].cpu().numpy()

    @torch.no_grad()
    def predict_torch(
        self,
        point_coords: Tensor | None,
        point_labels: Tensor | None,
        boxes: Tensor | None = None,
        mask_input: Tensor | None = None,
        multimask_output: bool = True,
        return_logits: bool = False,
    ) -> tuple[Tensor, Tensor, Tensor]:
        """As `predict` for B prompts in model-frame pixels: (B, N, 2), (B, N), (B, 4), (B, 1, 4g, 4g)."""
        features = self.get_image_embedding()
        given = [part for part in (point_coords, point_labels, boxes, mask_input) if part is not None]
        if not given or not all(bool(torch.isfinite(part).all()) for part in given):
            raise BadInput("predict_torch takes finite points, boxes or masks, at least one of them")
        points = None if point_coords is None or point_labels is None else (point_coords, point_labels)
        boxes = None if boxes is None else boxes.reshape(-1, 4)
        low_res_masks, iou_predictions = decode(
            self.model, features, points, boxes, mask_input, multimask_output
        )
        masks = self.model.postprocess_masks(low_res_masks, self.input_size, self.original_size)
        return masks if return_logits else masks > self.model.mask_threshold, iou_predictions, low_res_masks

    def _tensor(self, values: NDArray[np.float32]) -> Tensor:
        return torch.as_tensor(np.asarray(values), dtype=torch.float, device=self.device)

    def _in_model_frame(self, coords: NDArray[np.float32] | None, shape: tuple[int, ...]) -> Tensor | None:
        if coords is None:
            return None
        pairs = np.asarray(coords).reshape(shape)
        return self._tensor(to_model_frame(pairs, self.original_size, self.input_size))


SamPredictor = Predictor


class TorchPrompts:
    """One embedded image on a torch model: the PromptDecoder of `prompts.fold` for replays and simulation."""

    def __init__(self, sam: Sam, embedding: Floats, original_hw: tuple[int, int]) -> None:
        self.predictor = Predictor(sam)
        self.predictor.set_embedding(torch.as_tensor(embedding)[None], original_hw)

    def decode(
        self,
        point_coords: Floats | None,
        point_labels: Floats | None,
        box: Floats | None,
        mask_input: Floats | None,
        multimask_output: bool,
    ) -> tuple[Floats, Floats]:
        """See PromptDecoder."""
        mask = None if mask_input is None else np.asarray(mask_input)[None]
        _, iou_predictions, low_res_masks = self.predictor.predict(
            point_coords, point_labels, box, mask, multimask_output
        )
        return low_res_masks, iou_predictions
