"""Whether a smaller decoder shows people the same masks: the rule by which one ships. numpy only."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from engine.modeling.onnx_predictor import DecoderSession, upscale_logits
from engine.modeling.prompts import Floats

MASK_IOU = 0.99
SHARE = 0.99


@dataclass
class Fidelity:
    """IoU of the mask that a smaller decoder shows with the exact one's, prompt by prompt."""

    ious: list[float] = field(default_factory=list)

    @property
    def share(self) -> float:
        """Share of the prompts whose mask has IoU 0.99 or more; 0 where nothing was compared."""
        return sum(iou >= MASK_IOU for iou in self.ious) / max(1, len(self.ious))

    @property
    def ships(self) -> bool:
        """Whether the masks are the same for 99 % of the prompts."""
        return self.share >= SHARE


def compare(
    exact: DecoderSession,
    others: Iterable[tuple[DecoderSession, Fidelity]],
    embedding: Floats,
    masks: Iterable[NDArray[np.bool_]],
    seed: int,
) -> None:
    """Asks all decoders for the objects `masks` (H, W), none empty, of one embedded image (C, g, g), and
    notes the IoUs.

    Three prompts for each: a click inside, drawn by `seed`, its box, and two clicks with the exact decoder's
    answer to the first as mask input. Shown is the best of the three readings by the decoder's own estimate,
    or the single mask where there are several prompts; at full size, cut at 0.
    """
    others, rng = list(others), np.random.default_rng(seed)
    for mask in masks:
        first, _ = _ask(exact, embedding, mask, _click(mask, rng, 1))
        for prompt in _prompts(mask, first, rng):
            _, wanted = _ask(exact, embedding, mask, prompt)
            for session, fidelity in others:
                _, shown = _ask(session, embedding, mask, prompt)
                fidelity.ious.append(_iou(wanted, shown))


def _prompts(
    mask: NDArray[np.bool_], answer: Floats, rng: np.random.Generator
) -> Iterator[dict[str, Floats]]:
    yield _click(mask, rng, 1)
    rows, columns = np.nonzero(mask)
    corners = (columns.min(), rows.min(), columns.max() + 1, rows.max() + 1)
    yield {"box": np.array(corners, np.float32)}
    yield _click(mask, rng, 2) | {"mask_input": answer}


def _click(mask: NDArray[np.bool_], rng: np.random.Generator, n_points: int) -> dict[str, Floats]:
    rows, columns = np.nonzero(mask)
    chosen = rng.integers(0, len(rows), n_points)
    coords = np.stack([columns[chosen], rows[chosen]], axis=-1).astype(np.float32)
    return {"point_coords": coords, "point_labels": np.ones(n_points, np.float32)}


def _ask(
    session: DecoderSession, embedding: Floats, mask: NDArray[np.bool_], prompt: dict[str, Floats]
) -> tuple[Floats, NDArray[np.bool_]]:
    """The shown mask's logits (4g, 4g), and the mask itself (H, W)."""
    hw = (mask.shape[0], mask.shape[1])
    logits, scores = session.run(embedding, hw, **prompt)
    # As the page has it: three readings of a single prompt, one mask of several.
    shown = 0 if "mask_input" in prompt else 1 + int(np.argmax(scores[1:]))
    return logits[shown], upscale_logits(logits[shown : shown + 1], hw, session.config)[0] > 0


def _iou(one: NDArray[np.bool_], other: NDArray[np.bool_]) -> float:
    union = np.count_nonzero(one | other)
    return np.count_nonzero(one & other) / union if union else 1.0
