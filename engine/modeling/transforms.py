"""The official ResizeLongestSide: images and prompts into the frame that a SAM sees."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor

from engine.modeling.prompts import Floats, to_model_frame
from engine.modeling.resize import resize_long_side
from engine.modeling.sam_config import long_side_hw


class ResizeLongestSide:
    """Scales to long side `target_length`, by the official names; sizes are (H, W) in pixels."""

    def __init__(self, target_length: int) -> None:
        self.target_length = target_length

    def apply_image(self, image: NDArray[np.uint8]) -> NDArray[np.uint8]:
        """(H, W, 3) uint8 -> (h, w, 3) uint8, as the weights expect it; BadInput for anything else."""
        return resize_long_side(image, self.target_length)

    def apply_image_torch(self, image: Tensor) -> Tensor:
        """(B, C, H, W) float -> (B, C, h, w): close to `apply_image`, which is what the weights have seen."""
        size = self.get_preprocess_shape(image.shape[-2], image.shape[-1], self.target_length)
        return F.interpolate(image, size, mode="bilinear", align_corners=False, antialias=True)

    def apply_coords(self, coords: NDArray[np.number[Any]], original_size: tuple[int, ...]) -> Floats:
        """(..., 2) x y of the original image -> the same in the resized one, float32."""
        original_hw = (original_size[0], original_size[1])
        return to_model_frame(coords, original_hw, long_side_hw(original_hw, self.target_length))

    def apply_boxes(self, boxes: NDArray[np.number[Any]], original_size: tuple[int, ...]) -> Floats:
        """Boxes (B, 4) xyxy of the original image -> the same in the resized one, float32."""
        return self.apply_coords(np.asarray(boxes).reshape(-1, 2, 2), original_size).reshape(-1, 4)

    def apply_coords_torch(self, coords: Tensor, original_size: tuple[int, ...]) -> Tensor:
        """As `apply_coords`, on any device, in float32."""
        height, width = self.get_preprocess_shape(original_size[0], original_size[1], self.target_length)
        # Per axis, from the rounded size: the two scales differ a little.
        scale = (width / original_size[1], height / original_size[0])
        return coords.to(torch.float) * torch.tensor(scale, dtype=torch.float, device=coords.device)

    def apply_boxes_torch(self, boxes: Tensor, original_size: tuple[int, ...]) -> Tensor:
        """As `apply_boxes`, on any device, in float32."""
        return self.apply_coords_torch(boxes.reshape(-1, 2, 2), original_size).reshape(-1, 4)

    @staticmethod
    def get_preprocess_shape(oldh: int, oldw: int, long_side_length: int) -> tuple[int, int]:
        """(h, w) of an image of (oldh, oldw) whose long side becomes `long_side_length`."""
        return long_side_hw((oldh, oldw), long_side_length)
