"""Global attention on a CPU, some queries at a time: all scores of one ViT-B block would be 0.8 GB."""

import torch
from torch import Tensor

from engine.modeling.linear import product, vector_instructions

# Shorter sequences fit into the cache as they are.
TILED_FROM = 1024
# 256 queries of 4096 keys are 4 MB of scores.
_SCORES_PER_TILE = 1 << 20


def attend_in_tiles(q: Tensor, k: Tensor, v: Tensor, rows: Tensor, columns: Tensor) -> Tensor:
    """softmax(q k^T / sqrt(c) + bias) v for q, k, v (B, heads, s * s, c), the bias as in `relative_terms`:
    rows and columns (B, heads, s * s, s). Float error apart the same as without tiles."""
    fold = vector_instructions() == "AVX512"
    q = q * q.shape[-1] ** -0.5
    if fold:
        q, k = fold_bias(q, k, rows, columns)
    values = v.transpose(-2, -1).contiguous()
    mixed = torch.empty_like(v)
    n_queries = max(1, _SCORES_PER_TILE // k.shape[-2])
    for index in ((b, head) for b in range(q.shape[0]) for head in range(q.shape[1])):
        for start in range(0, q.shape[2], n_queries):
            few = (*index, slice(start, start + n_queries))
            scores = product(q[few], k[index])
            if not fold:
                grid = scores.view(len(scores), rows.shape[-1], -1)
                grid.add_(rows[few][:, :, None]).add_(columns[few][:, None])
            mixed[few] = product(scores.softmax(dim=-1), values[index])
    return mixed


def fold_bias(q: Tensor, k: Tensor, rows: Tensor, columns: Tensor) -> tuple[Tensor, Tensor]:
    """Queries and keys 2s wider whose products have the bias in them: a key names its row and its column by
    a one each, and the query holds what they are worth. Worth it where products are cheap beside memory."""
    one_each = torch.eye(rows.shape[-1], dtype=k.dtype, device=k.device)
    side = len(one_each)
    places = torch.cat([one_each.repeat_interleave(side, dim=0), one_each.repeat(side, 1)], dim=1)
    return torch.cat([q, rows, columns], dim=-1), torch.cat([k, places.expand(*k.shape[:2], -1, -1)], dim=-1)
