"""From a sample to what one training step sees: a window of the model's frame, its masks, and soft targets.

The window may be smaller than the frame (`window_px` below `img_size`): the encoder then works on a crop and
the decoder gets the part of the position code that belongs to it. A quarter of the pixels costs a quarter of
the time, while every number stays what it is in the full frame.
"""

from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional as F

from engine.training.dataset import Sample

LOGIT_STRIDE_PX = 4  # logits have four times the resolution of the embedding, whose stride is 16


@dataclass(frozen=True)
class ViewRules:
    """How a sample becomes a view. `scale` is the jitter range around the official fit to the frame."""

    window_px: int = 1024
    scale: tuple[float, float] = (1.0, 1.0)
    flip: bool = True
    photometric: float = 0.0
    min_area_px: int = 48
    max_area_share: float = 0.9


@dataclass(frozen=True)
class View:
    """`image` (3, S, S) in 0..255, zero outside `valid_hw`; `masks` (n, S, S) boolean, none empty;
    `targets` (n, S/4, S/4), the covered share of each logit cell."""

    image: Tensor
    masks: NDArray[np.bool_]
    targets: Tensor
    valid_hw: tuple[int, int]


@dataclass(frozen=True)
class Cut:
    """A rectangle of the source picture and the size it takes in the window, both (h, w)."""

    top: int
    left: int
    source_hw: tuple[int, int]
    window_hw: tuple[int, int]


def draw_cut(hw: tuple[int, int], img_size: int, rules: ViewRules, rng: np.random.Generator) -> Cut:
    """Draws scale and place. A window of the frame's size with scale 1 is the official preprocessing."""
    low, high = np.log(rules.scale[0]), np.log(rules.scale[1])
    scale = float(np.exp(rng.uniform(low, high))) * img_size / max(hw)
    span = min(rules.window_px, img_size) / scale
    source = (min(hw[0], max(1, round(span))), min(hw[1], max(1, round(span))))
    window = tuple(min(rules.window_px, max(1, int(side * scale + 0.5))) for side in source)
    top = int(rng.integers(0, hw[0] - source[0] + 1))
    left = int(rng.integers(0, hw[1] - source[1] + 1))
    return Cut(top, left, source, (window[0], window[1]))


def cut_out(plane: NDArray[np.uint8], cut: Cut) -> Tensor:
    """The cut of a (C, H, W) array, resized with antialiasing to the window's size, float32."""
    h, w = cut.source_hw
    part = torch.from_numpy(np.ascontiguousarray(plane[:, cut.top : cut.top + h, cut.left : cut.left + w]))
    if cut.source_hw == cut.window_hw:
        return part.float()
    resized = F.interpolate(part[None].float(), cut.window_hw, mode="bilinear", antialias=True)
    return resized[0]


def pad_square(planes: Tensor, side: int) -> Tensor:
    """Pads (C, h, w) with zeros right and below to (C, side, side)."""
    return F.pad(planes, (0, side - planes.shape[-1], 0, side - planes.shape[-2]))


def photometric(image: Tensor, strength: float, rng: np.random.Generator) -> Tensor:
    """Moves gain, white balance, gamma, colour, sharpness and noise of a (3, h, w) picture in 0..255."""
    if strength <= 0:
        return image
    gain = torch.tensor(np.exp(rng.normal(0, 0.12 * strength, (3, 1, 1))), dtype=torch.float32)
    image = (image / 255 * gain * float(np.exp(rng.normal(0, 0.2 * strength)))).clamp(0, 1)
    image = image.clamp(min=1e-4) ** float(np.exp(rng.normal(0, 0.25 * strength)))
    grey = image.mean(dim=0, keepdim=True)
    if rng.random() < 0.15 * strength:
        image = grey.expand_as(image)
    else:
        image = grey + (image - grey) * float(rng.uniform(1 - 0.5 * strength, 1 + 0.5 * strength))
    if rng.random() < 0.08 * strength:
        image = 1 - image  # light on dark and dark on light are the same things under a microscope
    if rng.random() < 0.25 * strength:
        image = F.avg_pool2d(image[None], 3, stride=1, padding=1, count_include_pad=False)[0]
    if rng.random() < 0.4 * strength:
        noise = rng.standard_normal(image.shape, dtype=np.float32) * rng.uniform(0, 0.06) * strength
        image = image + torch.from_numpy(noise.astype(np.float32))
    return image.clamp(0, 1) * 255


def usable_masks(
    sample: Sample, cut: Cut, n_masks: int, rules: ViewRules, rng: np.random.Generator
) -> list[NDArray[np.uint8]]:
    """Up to `n_masks` masks of the sample, cut to the source rectangle, in random order.

    Too small inside the window (they would have no cell) and near-full masks are passed over (appendix A).
    """
    h, w = cut.source_hw
    pixel_area = (cut.window_hw[0] * cut.window_hw[1]) / (h * w)
    found = []
    for index in rng.permutation(len(sample.masks)):
        part = sample.mask(int(index))[cut.top : cut.top + h, cut.left : cut.left + w]
        area = int(np.count_nonzero(part))
        if rules.min_area_px <= area * pixel_area and area <= rules.max_area_share * h * w:
            found.append(part.astype(np.uint8))
            if len(found) == n_masks:
                break
    return found


def draw_view(
    sample: Sample, img_size: int, n_masks: int, rules: ViewRules, rng: np.random.Generator
) -> View | None:
    """Draws one view with exactly `n_masks` masks, some repeated if there are too few; None if none."""
    hw = (int(sample.image.shape[0]), int(sample.image.shape[1]))
    cut = draw_cut(hw, img_size, rules, rng)
    parts = usable_masks(sample, cut, n_masks, rules, rng)
    if not parts:
        return None
    local = Cut(0, 0, cut.source_hw, cut.window_hw)
    cover = pad_square(cut_out(np.stack(parts) * np.uint8(255), local), rules.window_px) / 255
    cover = cover[cover.flatten(1).amax(dim=1) > 0.5]
    if not len(cover):
        return None
    image = photometric(cut_out(sample.image.transpose(2, 0, 1), cut), rules.photometric, rng)
    image, cover, valid_hw = flipped(image, cover, cut.window_hw, rules, rng)
    cover = cover[torch.arange(n_masks) % len(cover)]
    binary = cover > 0.5
    targets = F.avg_pool2d(binary.float()[None], LOGIT_STRIDE_PX)[0]
    return View(pad_square(image, rules.window_px), binary.numpy(), targets, valid_hw)


def flipped(
    image: Tensor, cover: Tensor, valid_hw: tuple[int, int], rules: ViewRules, rng: np.random.Generator
) -> tuple[Tensor, Tensor, tuple[int, int]]:
    """Mirrors and transposes picture and masks within the valid part, so padding stays right and below."""
    h, w = valid_hw
    if not rules.flip:
        return image, cover, valid_hw
    inner = cover[:, :h, :w]
    if rng.random() < 0.5:
        image, inner = image.flip(-1), inner.flip(-1)
    if rng.random() < 0.5:
        image, inner = image.flip(-2), inner.flip(-2)
    if rng.random() < 0.5:
        image, inner = image.transpose(-1, -2), inner.transpose(-1, -2)
    side = cover.shape[-1]
    return image.contiguous(), pad_square(inner, side), (int(image.shape[-2]), int(image.shape[-1]))
