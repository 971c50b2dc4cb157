"""How well a model follows clicks, by the paper's protocol (appendix D.1): the first click is the point of
the mask farthest from its border, each next one the centre of the largest error.

A simulated session equals the one a person would have with the same clicks: first the candidate with the
highest predicted IoU of three, then the single mask, the chosen logits fed back each time. All masks of a
picture advance together, one click per decoder call, and leave once they have reached their target.

The oracle (section 7.1) picks the candidate nearest to the truth instead, where several are offered: after
the first click. What follows goes on from it, as for a person who looks through the three.
"""

from collections.abc import Callable, Iterable, Sequence
from copy import copy
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from scipy import ndimage

from engine.errors import BadInput
from engine.geometry.points import interior_point
from engine.modeling.predictor import encode_image
from engine.modeling.sam import Sam
from engine.modeling.upscale import upscale_logits
from engine.training.dataset import Sample

Floats = NDArray[np.float32]
Mask = NDArray[np.bool_]


class ClickBackend(Protocol):
    """What is evaluated: encodes a picture once, then decodes batches of prompts on it."""

    def encode(self, image: NDArray[np.uint8]) -> Any: ...

    def decode(
        self,
        embedding: Any,
        hw: tuple[int, int],
        coords: Floats,
        labels: NDArray[np.int64],
        mask_input: Floats | None,
        multimask: bool,
    ) -> tuple[Floats, Floats]:
        """Points (B, n, 2) in the picture's pixels, labels (B, n), previous logits (B, 1, s, s) or None give
        logits (B, k, s, s) and predicted IoU (B, k)."""
        ...

    def upscale(self, low_res_logits: Floats, hw: tuple[int, int]) -> Floats:
        """Logits (B, s, s) at the size of the picture, (B, H, W)."""
        ...


@dataclass(frozen=True)
class ClickScores:
    """Per mask, in the order of the samples: `ious` (n, cap), NaN after the mask left; `clicks` to the target
    IoU (the cap where it was never reached); `area_px`; the numbers of its sample and of its mask there.

    Where they were asked for: `oracle_ious` (n, max(n_clicks)), and `ceilings` (n,), the best IoU that the
    logits can express."""

    ious: Floats
    clicks: NDArray[np.int64]
    area_px: NDArray[np.int64]
    sample_index: NDArray[np.int64]
    mask_index: NDArray[np.int64]
    noc_iou: float
    oracle_ious: Floats | None = None
    ceilings: Floats | None = None

    def mean_iou(self, n_clicks: int) -> float:
        """Mean IoU after that many clicks."""
        return float(np.mean(self.ious[:, n_clicks - 1]))

    def mean_clicks(self) -> float:
        """Mean number of clicks to the target IoU."""
        return float(np.mean(self.clicks))

    def reached(self, target_iou: float, cap: int) -> NDArray[np.bool_]:
        """Which masks met that IoU within `cap` clicks, (n,); the target is at most `noc_iou`."""
        return np.asarray(self._met(target_iou, cap).any(axis=1))

    def clicks_to(self, target_iou: float, cap: int) -> NDArray[np.int64]:
        """Clicks to that IoU (n,), `cap` where `cap` clicks did not reach it; at most `noc_iou`."""
        met = self._met(target_iou, cap)
        return np.where(met.any(axis=1), met.argmax(axis=1) + 1, cap)

    def _met(self, target_iou: float, cap: int) -> NDArray[np.bool_]:
        if target_iou > self.noc_iou:
            raise BadInput(f"clicks were counted to IoU {self.noc_iou}, not to {target_iou}: measure again")
        return np.asarray(np.nan_to_num(self.ious[:, :cap], nan=-1.0) >= target_iou)


@dataclass(frozen=True)
class _Row:
    """One mask's part of the scores."""

    ious: Floats
    oracle_ious: Floats | None
    ceiling: float
    area_px: int
    sample_index: int
    mask_index: int


def evaluate_clicks(
    backend: ClickBackend,
    samples: Iterable[Sample],
    n_clicks: Sequence[int] = (1, 3),
    noc_iou: float = 0.85,
    cap: int = 20,
    min_area_px: int = 64,
    n_masks: int | None = None,
    chunk: int = 8,
    oracle: bool = False,
    ceiling: Callable[[Mask], float] | None = None,
) -> ClickScores:
    """Clicks on every mask of at least `min_area_px` pixels until IoU `noc_iou`, at most `cap` times.

    Every mask gets max(n_clicks) clicks, so those means are over all masks. `n_masks` limits the masks taken
    per picture (evenly spaced). With cap equal to max(n_clicks) the costly tail is left out. With `oracle`
    the same clicks are made once more on the candidate nearest to the truth; `ceiling` gives a mask's best
    IoU.
    """
    least, rows = max(n_clicks), []
    for number, sample in enumerate(samples):
        truths = [(index, sample.mask(index)) for index in evenly(len(sample.masks), n_masks)]
        kept = [(index, truth) for index, truth in truths if np.count_nonzero(truth) >= min_area_px]
        if not kept:
            continue
        embedding = backend.encode(sample.image)
        for start in range(0, len(kept), chunk):
            part = kept[start : start + chunk]
            session = Session(backend, embedding, [truth for _, truth in part])
            ious = session.run(session.most_confident(), least, max(cap, least), noc_iou)
            best = session.oracle_ious(ious, least) if oracle else None
            for place, (index, truth) in enumerate(part):
                reach = ceiling(truth) if ceiling else np.nan
                of_oracle = None if best is None else best[place]
                area_px = int(np.count_nonzero(truth))
                rows.append(_Row(ious[place], of_oracle, reach, area_px, number, index))
    return _as_scores(rows, noc_iou, cap, max(cap, least), least if oracle else 0, ceiling is not None)


def _as_scores(
    rows: Sequence[_Row], noc_iou: float, cap: int, width: int, n_oracle: int, has_ceilings: bool
) -> ClickScores:
    """Collects per-mask rows; an empty list gives empty arrays."""
    ious = np.array([row.ious for row in rows], dtype=np.float32).reshape(len(rows), width)
    reached = np.nan_to_num(ious, nan=-1.0) >= noc_iou
    first = np.where(reached.any(axis=1), reached.argmax(axis=1) + 1, cap)
    columns = [(row.area_px, row.sample_index, row.mask_index) for row in rows]
    area_px, sample_index, mask_index = np.array(columns, dtype=np.int64).reshape(len(rows), 3).T
    oracle = np.array([row.oracle_ious for row in rows], dtype=np.float32) if n_oracle else None
    ceilings = np.array([row.ceiling for row in rows], dtype=np.float32) if has_ceilings else None
    return ClickScores(
        ious,
        np.minimum(first, cap),
        area_px,
        sample_index,
        mask_index,
        noc_iou,
        None if oracle is None else oracle.reshape(len(rows), n_oracle),
        ceilings,
    )


def evenly(n: int, wanted: int | None) -> list[int]:
    """`wanted` numbers spread over range(n), or all of them."""
    if wanted is None or wanted >= n:
        return list(range(n))
    return [int(number) for number in np.linspace(0, n - 1, wanted)]


class Session:
    """Clicks on a few masks of one picture, in step. The first click is answered at once by `offered`: all
    candidates (n masks, k, s, s) with their predicted IoU (n, k)."""

    def __init__(self, backend: ClickBackend, embedding: Any, truths: list[Mask]) -> None:
        self.backend, self.embedding, self.truths = backend, embedding, truths
        self.hw = (int(truths[0].shape[0]), int(truths[0].shape[1]))
        self.coords = np.array([[interior_point(truth)] for truth in truths], dtype=np.float32)
        self.labels = np.ones((len(truths), 1), dtype=np.int64)
        self.offered, self.scores = backend.decode(
            embedding, self.hw, self.coords, self.labels, None, multimask=True
        )
        self.logits = self.offered[:, 0]

    def most_confident(self) -> NDArray[np.int64]:
        """The candidate that a person sees first, per mask (n,)."""
        return np.asarray(self.scores.argmax(axis=1))

    def nearest(self) -> NDArray[np.int64]:
        """The candidate with the highest IoU, per mask (n,): what an oracle picks, and a person may."""
        picked = []
        for candidates, truth in zip(self.offered, self.truths, strict=True):
            masks = self.backend.upscale(candidates, self.hw) > 0
            picked.append(int(np.argmax([iou(mask, truth) for mask in masks])))
        return np.array(picked, dtype=np.int64)

    def run(self, picked: NDArray[np.int64], least: int, cap: int, target: float) -> Floats:
        """IoU after each click, (n masks, cap), going on from the candidates `picked` (n,)."""
        self.coords, self.labels = self.coords[:, :1], self.labels[:, :1]
        self.logits = self.offered[np.arange(len(picked)), picked]
        ious = np.full((len(self.truths), cap), np.nan, dtype=np.float32)
        alive = np.arange(len(self.truths))
        for number in range(cap):
            if number > 0:
                self.decode(alive)
            predicted = self.backend.upscale(self.logits[alive], self.hw) > 0
            for mask, index in zip(predicted, alive, strict=True):
                ious[index, number] = iou(mask, self.truths[index])
            staying = (ious[alive, number] < target) | (number + 1 < least)
            alive, predicted = alive[staying], predicted[staying]
            if number + 1 == cap or not len(alive):
                break
            self.add_clicks(alive, predicted)
        return ious

    def oracle_ious(self, ious: Floats, n_clicks: int) -> Floats:
        """(n, n_clicks) as `run` gives them, had the nearest candidate been picked after the first click.

        `ious` are those of the most confident one; where that is the nearest, nothing is clicked again.
        """
        nearest, oracle = self.nearest(), ious[:, :n_clicks].copy()
        rows = np.flatnonzero(nearest != self.most_confident())
        if len(rows):
            other = copy(self)
            other.truths = [self.truths[row] for row in rows]
            other.coords, other.labels = self.coords[rows], self.labels[rows]
            other.offered, other.scores = self.offered[rows], self.scores[rows]
            oracle[rows] = other.run(nearest[rows], n_clicks, n_clicks, np.inf)
        return oracle

    def decode(self, alive: NDArray[np.int64]) -> None:
        """The single mask after the clicks so far takes the place of the logits it was made from."""
        logits, _ = self.backend.decode(
            self.embedding,
            self.hw,
            self.coords[alive],
            self.labels[alive],
            self.logits[alive][:, None],
            multimask=False,
        )
        self.logits[alive] = logits[:, 0]

    def add_clicks(self, alive: NDArray[np.int64], predicted: Mask) -> None:
        """One more click per living mask; the others get a copy of their last, which nobody reads."""
        coords, labels = self.coords[:, -1:].copy(), self.labels[:, -1:].copy()
        for index, mask in zip(alive, predicted, strict=True):
            x, y, label = next_click(mask, self.truths[index])
            coords[index, 0], labels[index, 0] = (x, y), label
        self.coords = np.concatenate([self.coords, coords], axis=1)
        self.labels = np.concatenate([self.labels, labels], axis=1)


def iou(mask: Mask, truth: Mask) -> float:
    """Intersection over union of two masks of one size; 0 if both are empty."""
    union = np.count_nonzero(mask | truth)
    return np.count_nonzero(mask & truth) / union if union else 0.0


def bounds(mask: Mask) -> tuple[slice, slice]:
    """Rows and columns that hold a mask that is not empty."""
    ys, xs = np.flatnonzero(mask.any(axis=1)), np.flatnonzero(mask.any(axis=0))
    return slice(int(ys[0]), int(ys[-1]) + 1), slice(int(xs[0]), int(xs[-1]) + 1)


def next_click(predicted: Mask, truth: Mask) -> tuple[int, int, int]:
    """The centre (x, y) of the largest connected error and its label: 1 where mask is missing, 0 where it is
    too much. A perfect prediction is clicked in its middle."""
    missing, surplus = largest_component(truth & ~predicted), largest_component(predicted & ~truth)
    if missing[1] == 0 and surplus[1] == 0:
        return (*interior_point(truth), 1)
    region, label = (missing[0], 1) if missing[1] >= surplus[1] else (surplus[0], 0)
    return (*interior_point(region), label)


def largest_component(region: Mask) -> tuple[Mask, int]:
    """The largest 4-connected part of a region (H, W) and its area in pixels; area 0 if it is empty."""
    if not region.any():
        return region, 0
    rows, columns = bounds(region)
    parts, n_parts = ndimage.label(region[rows, columns])
    areas = np.bincount(parts.ravel(), minlength=n_parts + 1)
    areas[0] = 0
    largest = np.zeros_like(region)
    largest[rows, columns] = parts == areas.argmax()
    return largest, int(areas.max())


class TorchBackend:
    """A `Sam` as the evaluation sees it."""

    def __init__(self, sam: Sam) -> None:
        self.sam = sam.eval()

    @torch.inference_mode()
    def encode(self, image: NDArray[np.uint8]) -> torch.Tensor:
        """The image embedding (1, C, g, g)."""
        return torch.from_numpy(encode_image(self.sam, image))[None].to(self.sam.device)

    @torch.inference_mode()
    def decode(
        self,
        embedding: torch.Tensor,
        hw: tuple[int, int],
        coords: Floats,
        labels: NDArray[np.int64],
        mask_input: Floats | None,
        multimask: bool,
    ) -> tuple[Floats, Floats]:
        """See ClickBackend."""
        input_h, input_w = self.sam.config.input_hw(hw)
        scale = np.array([input_w / hw[1], input_h / hw[0]], dtype=np.float32)
        device = self.sam.device
        masks = None if mask_input is None else torch.from_numpy(mask_input).to(device)
        points = (torch.from_numpy(coords * scale).to(device), torch.from_numpy(labels).to(device))
        sparse, dense = self.sam.prompt_encoder(points=points, boxes=None, masks=masks)
        logits, scores = self.sam.mask_decoder(
            image_embeddings=embedding,
            image_pe=self.sam.prompt_encoder.get_dense_pe(),
            sparse_prompt_embeddings=sparse,
            dense_prompt_embeddings=dense,
            multimask_output=multimask,
        )
        return logits.cpu().numpy(), scores.cpu().numpy()

    def upscale(self, low_res_logits: Floats, hw: tuple[int, int]) -> Floats:
        """See ClickBackend: both official bilinear steps as one matrix per axis."""
        return upscale_logits(low_res_logits, hw, self.sam.config)
