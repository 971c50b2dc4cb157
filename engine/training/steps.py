"""One training step: draw a batch, encode each picture once, prompt many masks on it, back-propagate once."""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional as F

from engine.errors import BadInput
from engine.geometry.points import interior_point
from engine.modeling.mask_prompt import logits_of_share
from engine.modeling.sam import Sam
from engine.training.dataset import Sample, Samples
from engine.training.grouping import GroupingHead, grouping_loss
from engine.training.losses import LossWeights, mask_iou, prompt_loss
from engine.training.precision import autocast
from engine.training.prompts import (
    PromptRules,
    box_around,
    error_points,
    jittered_box,
    point_in,
    rounds_without_point,
)
from engine.training.spoiling import spoil_all
from engine.training.views import LOGIT_STRIDE_PX, View, ViewRules, draw_view

MAX_DRAWS = 200  # per view, before a source without usable masks is refused


@dataclass(frozen=True)
class Batch:
    """n pictures with m masks each, B = n * m. `images` (n, 3, S, S) in 0..255, `valid` (n, 1, S, S) where
    the picture is, `masks` (B, S, S) boolean, `targets` (B, s, s), `cell_xy` the window's place in the frame,
    in embedding cells."""

    images: Tensor
    valid: Tensor
    masks: NDArray[np.bool_]
    targets: Tensor
    cell_xy: tuple[int, int]

    def on(self, device: torch.device) -> "Batch":
        """The same batch with its tensors on that device; drawing is done on the CPU, whatever the device."""
        moved = {name: getattr(self, name).to(device) for name in ("images", "valid", "targets")}
        return replace(self, **moved)


@dataclass(frozen=True)
class FirstPrompts:
    """First prompts in window pixels: points (B, 2), boxes (B, 4), and which of the two is used (B,)."""

    points: Tensor
    boxes: Tensor
    is_box: Tensor


@dataclass(frozen=True)
class StepReport:
    """What one step measured: the loss, mean IoU after the first prompt and after the last round."""

    loss: float
    first_iou: float
    last_iou: float
    grouping: float


def pick(samples: Samples, rng: np.random.Generator) -> Sample:
    """A sample drawn by weight: drawn uniformly, kept with probability `weight` (capped at 1)."""
    for _ in range(MAX_DRAWS):
        sample = samples[int(rng.integers(len(samples)))]
        if rng.random() < sample.weight:
            return sample
    raise BadInput("no sample with a positive weight was found: check the weights of the training folder")


def draw_batch(
    samples: Samples, n_images: int, n_masks: int, img_size: int, rules: ViewRules, rng: np.random.Generator
) -> Batch:
    """Draws `n_images` views of `n_masks` masks. Raises BadInput if the samples have no usable mask."""
    # A recipe's window may be larger than a small model's whole frame.
    rules = replace(rules, window_px=min(rules.window_px, img_size))
    views: list[View] = []
    for _ in range(MAX_DRAWS * n_images):
        view = draw_view(pick(samples, rng), img_size, n_masks, rules, rng)
        if view is not None:
            views.append(view)
        if len(views) == n_images:
            break
    else:
        raise BadInput("no usable mask was found: masks are empty, too small, or fill the whole picture")
    n_places = (img_size - rules.window_px) // (4 * LOGIT_STRIDE_PX) + 1
    place = (int(rng.integers(n_places)), int(rng.integers(n_places)))
    return Batch(
        torch.stack([view.image for view in views]),
        torch.stack([valid_area(view, rules.window_px) for view in views]),
        np.concatenate([view.masks for view in views]),
        torch.cat([view.targets for view in views]),
        place,
    )


def valid_area(view: View, side: int) -> Tensor:
    """(1, S, S): 1 inside the picture, 0 in the padding, which must stay zero after normalising."""
    area = torch.zeros(1, side, side)
    area[:, : view.valid_hw[0], : view.valid_hw[1]] = 1
    return area


def first_prompts(batch: Batch, rules: PromptRules, rng: np.random.Generator) -> FirstPrompts:
    """Draws both a point and a box for every mask, and a fair coin between them."""
    points = np.array([first_point(mask, rules, rng) for mask in batch.masks], dtype=np.float32)
    boxes = np.stack([jittered_box(mask, rules, rng) for mask in batch.masks])
    is_box = rng.random(len(points)) < rules.box_share
    return FirstPrompts(torch.from_numpy(points), torch.from_numpy(boxes), torch.from_numpy(is_box))


def first_point(mask: NDArray[np.bool_], rules: PromptRules, rng: np.random.Generator) -> tuple[float, float]:
    """The first click on a mask (H, W), x and y."""
    # Without a share no number is drawn, so that older recipes repeat their bits.
    if rules.centre_share and rng.random() < rules.centre_share:
        x, y = interior_point(mask)
        return float(x), float(y)
    return point_in(mask, rng)


def as_labelled_points(first: FirstPrompts) -> tuple[Tensor, Tensor]:
    """Points and boxes in one tensor: the official decoder sees a box as two corner points, labels 2 and 3,
    and a point without a box as the point and one padding point, label -1. (B, 2, 2) and (B, 2)."""
    corners = first.boxes.view(-1, 2, 2)
    padded = torch.stack([first.points, torch.zeros_like(first.points)], dim=1)
    coords = torch.where(first.is_box[:, None, None], corners, padded)
    labels = torch.where(first.is_box[:, None], torch.tensor([2, 3]), torch.tensor([1, -1]))
    return coords, labels


class PromptedDecoder:
    """Decoder calls on one batch's embedding, for a window at some place of the model's frame."""

    def __init__(self, sam: Sam, embedding: Tensor, batch: Batch, bfloat16: bool = False) -> None:
        self.bfloat16 = bfloat16
        n_masks = len(batch.targets) // len(batch.images)
        self.sam = sam
        self.embedding = embedding.repeat_interleave(n_masks, dim=0)
        grid, (x, y) = embedding.shape[-1], batch.cell_xy
        self.rows, self.columns = slice(y, y + grid), slice(x, x + grid)
        self.position = sam.prompt_encoder.get_dense_pe()[..., self.rows, self.columns]
        self.origin_px = torch.tensor([x, y], device=embedding.device) * float(4 * LOGIT_STRIDE_PX)

    def __call__(
        self, coords: Tensor, labels: Tensor, mask_input: Tensor | None, multimask: bool
    ) -> tuple[Tensor, Tensor]:
        """Window-pixel prompts (B, n, 2), (B, n) give logits (B, k, s, s) and scores (B, k), in float32."""
        with autocast(coords.device, self.bfloat16):
            logits, scores = self._decoded(coords, labels, mask_input, multimask)
        return logits.float(), scores.float()

    def _decoded(
        self, coords: Tensor, labels: Tensor, mask_input: Tensor | None, multimask: bool
    ) -> tuple[Tensor, Tensor]:
        encoder = self.sam.prompt_encoder
        sparse = encoder.embed_points(coords + self.origin_px, labels)
        if mask_input is None:
            no_mask = encoder.no_mask_embed.weight.reshape(1, -1, 1, 1)
            dense = no_mask.expand(len(self.embedding), -1, *self.embedding.shape[2:])
        else:
            dense = encoder.embed_mask(mask_input)
        answer: tuple[Tensor, Tensor] = self.sam.mask_decoder(
            image_embeddings=self.embedding,
            image_pe=self.position,
            sparse_prompt_embeddings=sparse,
            dense_prompt_embeddings=dense,
            multimask_output=multimask,
        )
        return answer


def run_rounds(
    decode: PromptedDecoder,
    batch: Batch,
    rules: PromptRules,
    weights: LossWeights,
    rng: np.random.Generator,
    generator: torch.Generator,
) -> tuple[float, float, float]:
    """Prompts, decodes, back-propagates into the embedding, and draws the next prompt from the error; each
    round's graph is freed at once. Returns mean loss, IoU after the first and after the last round."""
    device = batch.targets.device
    coords, labels = (drawn.to(device) for drawn in as_labelled_points(first_prompts(batch, rules, rng)))
    silent = rounds_without_point(rules, rng)
    mask_input, total, ious = None, 0.0, []
    # Without a share no number is drawn, so that older recipes repeat their bits.
    if rules.spoilt_share and rng.random() < rules.spoilt_share:
        coords, labels, mask_input = (made.to(device) for made in spoilt_prompts(batch, rng))
        coords, labels = corrected(coords, labels, mask_input, batch.targets, generator)
    # The same again: no number is drawn for a recipe without such rounds.
    n_unlearned = int(rng.integers(rules.unlearned_rounds + 1)) if rules.unlearned_rounds else 0
    for number in range(rules.rounds):
        logits, scores = decode(coords, labels, mask_input, multimask=mask_input is None)
        loss = prompt_loss(logits, scores, batch.targets, weights) / rules.rounds
        torch.autograd.backward(loss, retain_graph=number + 1 < rules.rounds)
        total += float(loss.detach())
        mask_input = shown(logits, scores)
        ious.append(float(mask_iou(mask_input[:, 0], batch.targets).mean()))
        if number + 1 not in silent:
            coords, labels = corrected(coords, labels, mask_input, batch.targets, generator)
        for _ in range(n_unlearned if number == 0 and rules.rounds > 1 else 0):
            with torch.no_grad():
                mask_input = shown(*decode(coords, labels, mask_input, multimask=False))
            coords, labels = corrected(coords, labels, mask_input, batch.targets, generator)
    return total, ious[0], ious[-1]


def shown(logits: Tensor, scores: Tensor) -> Tensor:
    """The logits (B, 1, s, s) of the candidate with the highest score, without their graph."""
    best = scores.detach().argmax(dim=1)
    return logits.detach()[torch.arange(len(best), device=logits.device), best][:, None]


def corrected(
    coords: Tensor, labels: Tensor, mask_input: Tensor, targets: Tensor, generator: torch.Generator
) -> tuple[Tensor, Tensor]:
    """Points (B, n, 2) and labels (B, n) with one more, drawn where `mask_input` (B, 1, s, s) is wrong."""
    new_coords, new_labels = error_points(mask_input[:, 0].cpu(), targets.cpu(), LOGIT_STRIDE_PX, generator)
    coords = torch.cat([coords, new_coords.to(coords.device)], 1)
    return coords, torch.cat([labels, new_labels.to(labels.device)], 1)


def spoilt_prompts(batch: Batch, rng: np.random.Generator) -> tuple[Tensor, Tensor, Tensor]:
    """What a session on an existing mask begins with (modeling/mask_prompt.py), for a batch whose masks were
    spoilt: boxes as corners (B, 2, 2) in window pixels, their labels (B, 2), and logits (B, 1, s, s)."""
    spoilt = spoil_all(batch.masks, len(batch.targets) // len(batch.images), rng)
    corners = torch.from_numpy(np.stack([box_around(mask) for mask in spoilt])).view(-1, 2, 2)
    share = F.avg_pool2d(torch.from_numpy(spoilt).float()[None], LOGIT_STRIDE_PX)[0]
    logits = torch.from_numpy(logits_of_share(share.numpy()))[:, None]
    return corners, torch.tensor([[2, 3]]).expand(len(corners), 2), logits


def first_masks(batch: Batch, n_decoded: int) -> Batch:
    """The batch with only the first `n_decoded` masks of each picture, in the order they were drawn."""
    n, m = len(batch.images), len(batch.targets) // len(batch.images)
    rows = (torch.arange(n)[:, None] * m + torch.arange(min(m, n_decoded))).flatten()
    return replace(batch, masks=batch.masks[rows.numpy()], targets=batch.targets[rows])


def take_step(
    sam: Sam,
    head: GroupingHead | None,
    batch: Batch,
    rules: PromptRules,
    weights: LossWeights,
    grouping_weight: float,
    n_decoded: int,
    rng: np.random.Generator,
    bfloat16: bool = False,
) -> StepReport:
    """Accumulates the gradients of one batch in the model's parameters; the optimizer is the caller's.

    All masks teach the helper head, which is cheap; `n_decoded` of each picture go through the decoder.
    """
    decoded, batch = first_masks(batch, n_decoded).on(sam.device), batch.on(sam.device)
    mean, sd = sam.pixel_mean.view(1, 3, 1, 1), sam.pixel_std.view(1, 3, 1, 1)
    with autocast(sam.device, bfloat16):
        embedding = sam.image_encoder((batch.images - mean) / sd * batch.valid)
    leaf = embedding.detach().float().requires_grad_()
    generator = torch.Generator().manual_seed(int(rng.integers(1 << 62)))
    decode = PromptedDecoder(sam, leaf, decoded, bfloat16)
    total, first_iou, last_iou = run_rounds(decode, decoded, rules, weights, rng, generator)
    grouping = 0.0
    if head is not None and grouping_weight > 0:
        n, m = len(batch.images), len(batch.targets) // len(batch.images)
        cells = clicked_cells(batch.targets.cpu(), generator).view(n, m, 2).to(sam.device)
        loss = grouping_loss(head(leaf), cells, batch.targets.view(n, m, *batch.targets.shape[-2:]))
        torch.autograd.backward(grouping_weight * loss)
        grouping = float(loss.detach())
    assert leaf.grad is not None
    if embedding.requires_grad:
        torch.autograd.backward(embedding, leaf.grad.to(embedding.dtype))
    return StepReport(total, first_iou, last_iou, grouping)


def clicked_cells(targets: Tensor, generator: torch.Generator) -> Tensor:
    """One cell (x, y) per mask, drawn by covered share; (B, 2)."""
    cells = torch.multinomial(targets.flatten(1), 1, generator=generator)[:, 0]
    width = targets.shape[-1]
    return torch.stack([cells % width, cells // width], dim=-1)


def describe(reports: Sequence[StepReport]) -> dict[str, float]:
    """Means over several steps, for a progress line."""
    return {
        name: round(float(np.mean([getattr(report, name) for report in reports])), 4)
        for name in ("loss", "first_iou", "last_iou", "grouping")
    }
