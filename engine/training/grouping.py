"""A helper loss that teaches the encoder which pixels belong together, for a start from random weights.

From scratch, the decoder first answers "nothing" for hundreds of steps, and so long the encoder learns
nothing. This head skips the decoder: each cell of the logit grid gets a small vector, two of its numbers
being a corrected position; a click's mask is the set of cells whose vectors lie near that of the clicked cell
(after Neven et al., 2019). It costs a thousandth of a decoder call and is thrown away after training.
"""

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from engine.training.losses import dice_loss

N_PLACE = 8  # numbers that place a cell
N_READINGS = 3  # a click means a part, a whole, or more: each reading has its own reach and bias
N_NUMBERS = N_PLACE + 2 * N_READINGS
CELLS_PER_SIDE = 4  # logit cells per embedding cell, along one axis


class GroupingHead(nn.Module):
    """Reads the image embedding (n, C, g, g) into N_NUMBERS per logit cell, (n, N_NUMBERS, 4g, 4g)."""

    def __init__(self, embed_dim: int) -> None:
        super().__init__()
        self.read = nn.Conv2d(embed_dim, N_NUMBERS * CELLS_PER_SIDE**2, kernel_size=1)

    def forward(self, embedding: Tensor) -> Tensor:
        numbers = F.pixel_shuffle(self.read(embedding), CELLS_PER_SIDE)
        side = numbers.shape[-1]
        line = torch.arange(side, dtype=numbers.dtype, device=numbers.device) / 8
        offset = torch.zeros_like(numbers)
        offset[:, 0] = line
        offset[:, 1] = line[:, None]
        return numbers + offset


def grouping_loss(numbers: Tensor, cells: Tensor, targets: Tensor) -> Tensor:
    """Cross-entropy and dice of the masks that the clicked cells imply; the best of the readings counts.

    `numbers` (n, N, s, s) from the head, `cells` (n, m, 2) clicked cells as x, y, `targets` (n, m, s, s).
    """
    n, m = cells.shape[:2]
    rows = torch.arange(n, device=cells.device)[:, None].expand(n, m)
    clicked = numbers[rows, :, cells[..., 1], cells[..., 0]]
    reach, bias = clicked[..., N_PLACE:].view(n, m, 2, N_READINGS).unbind(-2)
    distance = squared_distance(numbers[:, :N_PLACE].flatten(2), clicked[..., :N_PLACE])
    distance = distance.view(n, m, 1, *targets.shape[-2:])
    logits = 3 + bias[..., None, None] - F.softplus(reach)[..., None, None] * distance
    truth = targets[:, :, None].expand_as(logits)
    entropy = F.binary_cross_entropy_with_logits(logits, truth, reduction="none").mean(dim=(-2, -1))
    # small masks would vanish in a plain mean: weigh by the root of their share
    balanced = entropy / (truth.mean(dim=(-2, -1)) + 0.002).sqrt()
    return (0.2 * balanced + dice_loss(logits, truth)).min(dim=2).values.mean()


def squared_distance(place: Tensor, clicked: Tensor) -> Tensor:
    """(n, d, p) points and (n, m, d) clicks give (n, m, p) squared distances."""
    cross = torch.bmm(clicked, place)
    square = place.pow(2).sum(dim=1)[:, None] + clicked.pow(2).sum(dim=2)[..., None]
    return (square - 2 * cross).clamp(min=0)
