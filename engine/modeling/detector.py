"""Finds things without naming them: a light box detector with one class, on the embedding that is there.

Stage 2 of the paper (section 4) prefills what such a detector finds. Theirs is a Faster R-CNN on pixels;
this one reads the image embedding, so that a proposal costs no second encoder. Anchor-free, after FCOS (Tian
et al. 2019): every location says how well the box it draws fits (one logit), and how far its four sides are.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from safetensors import SafetensorError
from safetensors import torch as safetensors_torch
from torch import Tensor, nn

from engine.errors import BadInput, Unavailable
from engine.geometry.boxes import clip_xyxy
from engine.geometry.nms import nms
from engine.modeling.checkpoint import load_state
from engine.modeling.detector_card import CARD_KEY, DetectorCard, DetectorConfig, read_detector_card
from engine.modeling.sam_config import STRIDE_PX, UPSCALING, SamConfig

Floats = NDArray[np.float32]
FINE_STRIDE_PX = STRIDE_PX // UPSCALING
# Boxes with a longer side than this share of the frame belong to the coarse level. A whole and the part in
# its middle then mostly answer at different levels, and no level regresses over much more than a decade.
LARGE_SHARE = 0.125
_PRIOR = 0.01  # share of locations that see a thing, so that the first steps are not spent on saying "no"
_LOG_RANGE = (-3.0, 2.5)
_MOST_BEFORE_NMS = 1000


@dataclass(frozen=True)
class Locations:
    """Where the detector answers, in frame pixels: centres (L, 2) x y, their level's stride and longest box
    side (min, max], all (L,)."""

    centres_px: Tensor
    strides_px: Tensor
    min_sides_px: Tensor
    max_sides_px: Tensor


class Detector(nn.Module):
    """Image embeddings (B, C, g, g) -> quality logits (B, L) and boxes (B, L, 4) xyxy in frame pixels.

    L = (4 g)^2 + g^2: a fine level at stride 4 for small boxes, a coarse one at stride 16 for large ones.
    The sigmoid of a logit is the IoU that the location expects of its box.
    """

    channel_mean: Tensor
    channel_scale: Tensor

    def __init__(self, config: DetectorConfig) -> None:
        super().__init__()
        self.config = config
        width, fine_width, detail = config.width, config.fine_width, config.detail_channels
        # Embeddings of different models differ in scale by orders of magnitude; set from the training images.
        self.register_buffer("channel_mean", torch.zeros(config.embedding_channels))
        self.register_buffer("channel_scale", torch.ones(config.embedding_channels))
        self.stem = nn.Sequential(nn.Conv2d(config.embedding_channels, width, 1), nn.GroupNorm(8, width))
        # Dilation, since a large thing is 32 cells wide and the blocks are few.
        self.coarse = nn.Sequential(*(_Block(width, 2 ** (i % 3)) for i in range(config.coarse_blocks)))
        self.coarse_head = _Head(width, 1)
        self.rise = nn.Conv2d(width, fine_width * 4, 1)
        self.detail = nn.Conv2d(detail * 4, fine_width, 3, padding=1) if detail else None
        self.fine = nn.Sequential(*(_Block(fine_width, 1) for _ in range(config.fine_blocks)))
        self.fine_head = _Head(fine_width, 2)
        self.locations = make_locations(config)

    def forward(self, image_embeddings: Tensor) -> tuple[Tensor, Tensor]:
        """See the class."""
        standard = (image_embeddings - self.channel_mean[:, None, None]) / self.channel_scale[:, None, None]
        coarse = self.coarse(self.stem(standard))
        # Features at stride 8, answers at stride 4: four times cheaper than convolving at stride 4.
        fine = F.pixel_shuffle(self.rise(coarse), 2)
        if self.detail is not None:
            folded = standard[:, -self.config.detail_channels * UPSCALING**2 :]
            fine = fine + self.detail(F.pixel_unshuffle(F.pixel_shuffle(folded, UPSCALING), 2))
        levels = (self.fine_head(self.fine(fine)), self.coarse_head(coarse))
        answers = torch.cat([level.flatten(2) for level in levels], dim=2)
        return answers[:, 0], self._boxes(answers[:, 1:])

    def _boxes(self, distances: Tensor) -> Tensor:
        """(B, 4, L) log distances left, top, right, bottom in units of 2 strides -> boxes (B, L, 4)."""
        units = 2 * self.locations.strides_px.to(distances.device)
        sides = distances.clamp(*_LOG_RANGE).exp().transpose(1, 2) * units[:, None]
        centres = self.locations.centres_px.to(distances.device)
        return torch.cat([centres - sides[..., :2], centres + sides[..., 2:]], dim=-1)


class _Block(nn.Module):
    """x + relu(norm(3 x 3 convolution))."""

    def __init__(self, width: int, dilation: int) -> None:
        super().__init__()
        self.conv = nn.Conv2d(width, width, 3, padding=dilation, dilation=dilation, bias=False)
        self.norm = nn.GroupNorm(8, width)

    def forward(self, x: Tensor) -> Tensor:
        return x + F.relu(self.norm(self.conv(x)))


class _Head(nn.Module):
    """(B, width, h, w) -> (B, 5, h * n, w * n): a logit and four log distances for each of n x n places."""

    def __init__(self, width: int, n_per_side: int) -> None:
        super().__init__()
        self.n_per_side = n_per_side
        self.block = _Block(width, 1)
        self.answer = nn.Conv2d(width, 5 * n_per_side**2, 3, padding=1)
        nn.init.normal_(self.answer.weight, std=0.01)
        unlikely = float(np.log(_PRIOR / (1 - _PRIOR)))
        bias = [unlikely] * n_per_side**2 + [0.0] * (4 * n_per_side**2)
        self.answer.bias = nn.Parameter(torch.tensor(bias))

    def forward(self, x: Tensor) -> Tensor:
        return F.pixel_shuffle(self.answer(self.block(x)), self.n_per_side)


def make_locations(config: DetectorConfig) -> Locations:
    """Fine level first, each row by row."""
    split = config.frame_px * LARGE_SHARE
    fine, coarse = _centres(config.frame_px, FINE_STRIDE_PX), _centres(config.frame_px, STRIDE_PX)
    n_each = torch.tensor([len(fine), len(coarse)])

    def spread(fine_number: float, coarse_number: float) -> Tensor:
        return torch.tensor([fine_number, coarse_number]).repeat_interleave(n_each)

    return Locations(
        torch.cat([fine, coarse]),
        spread(float(FINE_STRIDE_PX), float(STRIDE_PX)),
        spread(0.0, split),
        spread(split, float("inf")),
    )


def _centres(frame_px: int, stride_px: int) -> Tensor:
    line = (torch.arange(frame_px // stride_px) + 0.5) * stride_px
    rows, columns = torch.meshgrid(line, line, indexing="ij")
    return torch.stack([columns.flatten(), rows.flatten()], dim=1)


def build_detector(config: DetectorConfig, seed: int) -> Detector:
    """An untrained detector; the same for the same seed, torch's global generator left untouched."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return Detector(config)


@torch.inference_mode()
def propose_boxes(
    detector: Detector,
    image_embedding: Floats,
    original_hw: tuple[int, int],
    config: SamConfig,
    score_threshold: float = 0.05,
    max_boxes: int = 100,
    nms_iou: float = 0.6,
) -> tuple[Floats, Floats]:
    """Boxes (n, 4) xyxy in ORIGINAL image pixels, best first, and their scores (n,), n <= max_boxes.

    `image_embedding` (C, g, g) of an image of `original_hw`, made by the model of `config`. Locations in the
    padding never answer, and boxes end at the image's edge. Raises BadInput on another shape of embedding.
    """
    detector.config.check_embedding(image_embedding.shape)
    weights = next(detector.parameters())
    embeddings = torch.as_tensor(np.asarray(image_embedding, np.float32), device=weights.device)[None]
    logits, boxes = detector(embeddings)
    height, width = config.input_hw(original_hw)
    scores = logits[0].sigmoid().cpu().numpy()
    centres = detector.locations.centres_px.numpy()
    is_inside = (centres[:, 0] < width) & (centres[:, 1] < height)
    told = np.flatnonzero(_peaks(logits, detector.config) & is_inside & (scores >= score_threshold))
    # What more there is lies far below any useful score, and NMS takes quadratic time.
    told = told[np.argsort(-scores[told], kind="stable")][: max(_MOST_BEFORE_NMS, 3 * max_boxes)]
    to_original = np.array([original_hw[1] / width, original_hw[0] / height] * 2)
    found = clip_xyxy(boxes[0].cpu().numpy()[told] * to_original, original_hw).astype(np.float32)
    kept = nms(found, scores[told], nms_iou)[:max_boxes]
    return found[kept], scores[told][kept]


def _peaks(logits: Tensor, config: DetectorConfig) -> NDArray[np.bool_]:
    """(L,) whether a location of (1, L) is no worse than its eight neighbours on its level.

    The ten or so locations that answer for one thing draw nearly the same box; a maximum is cheaper than NMS.
    """
    grids = [config.frame_px // FINE_STRIDE_PX, config.frame_px // STRIDE_PX]
    levels = torch.split_with_sizes(logits[0], [grid**2 for grid in grids])
    best = [
        F.max_pool2d(level.view(1, grid, grid), 3, stride=1, padding=1).flatten()
        for level, grid in zip(levels, grids, strict=True)
    ]
    peaks: NDArray[np.bool_] = (logits[0] >= torch.cat(best)).cpu().numpy()
    return peaks


def save_detector(detector: Detector, card: DetectorCard) -> bytes:
    """A safetensors file with the card in its header; equal weights and cards are equal bytes.

    Raises BadInput when the card describes another network.
    """
    if card.config != detector.config:
        raise BadInput("the card describes a detector of other sizes: write the card from detector.config")
    tensors = {name: value.detach().cpu().contiguous() for name, value in detector.state_dict().items()}
    return safetensors_torch.save(tensors, metadata={CARD_KEY: card.to_json()})


def load_detector(
    source: bytes | str | Path, encoder_sha256: str | None = None
) -> tuple[Detector, DetectorCard]:
    """The detector in a file or in its bytes, ready to propose, and its card.

    With `encoder_sha256`, the digest of the weights whose embeddings it shall read, one trained on others is
    refused: the same numbers mean something else there. Raises BadInput for that, a broken file or shapes
    that do not fit the card; Unavailable where there is no file.
    """
    content = source if isinstance(source, bytes) else _read(Path(source))
    card = read_detector_card(content)
    if encoder_sha256 is not None:
        card.check_encoder(encoder_sha256)
    try:
        state = safetensors_torch.load(content)
    except SafetensorError as error:
        raise BadInput("the detector is not a whole safetensors file: copy it again") from error
    detector = build_detector(card.config, seed=0)
    load_state(detector, state, source="the detector")
    return detector.eval(), card


def _read(path: Path) -> bytes:
    if not path.is_file():
        raise Unavailable(f"no detector at {path}")
    return path.read_bytes()
