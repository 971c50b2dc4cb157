"""Prompts as JSON, and what a list of them means: a fold over the decoder. numpy only, for every backend."""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Mapping, MutableMapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from engine.errors import BadInput

Floats = NDArray[np.float32]
Prompt = Mapping[str, Any]

MAX_PROMPTS = 64
# Positive or negative clicks; the box corners take the labels 2 and 3, padding takes -1.
_BOX_LABELS = (2.0, 3.0)


class PromptDecoder(Protocol):
    """One image under one model, ready to be prompted in original pixels."""

    def decode(
        self,
        point_coords: Floats | None,
        point_labels: Floats | None,
        box: Floats | None,
        mask_input: Floats | None,
        multimask_output: bool,
    ) -> tuple[Floats, Floats]:
        """Points (N, 2), labels (N,), box (4,) xyxy, mask (L, L) -> logits (n, L, L), IoU (n,), n 3 or 1."""
        ...


@dataclass(frozen=True)
class Candidates:
    """The masks offered after the last prompt: three for a single prompt, else one."""

    low_res_logits: Floats
    iou_predictions: Floats

    @property
    def best(self) -> int:
        """Index of the highest predicted IoU, the default choice; the first of equals."""
        return int(np.argmax(self.iou_predictions))


def fold(
    decoder: PromptDecoder,
    prompts: Sequence[Prompt],
    chosen: Sequence[int],
    previous: MutableMapping[str, Candidates] | None = None,
    answer: Floats | None = None,
) -> Candidates:
    """What the decoder offers after `prompts`; `chosen[i]` was in force when prompt i + 1 came.

    Step k sees the first k prompts and the logits chosen at step k - 1. Same weights, prompts and choices
    give the same logits, so an accepted mask can be replayed. `previous` remembers the steps of this image
    under this model. To correct an existing mask, the first prompt and its `answer` (L, L), the only one on
    offer, are those of `mask_prompt`. Raises BadInput for no prompts, too few choices, or a choice that was
    not offered.
    """
    if not prompts:
        raise BadInput("give at least one point or box")
    if len(chosen) < len(prompts) - 1:
        raise BadInput(f"{len(prompts)} prompts need at least {len(prompts) - 1} entries in chosen")
    # A page adds one prompt at a time: with the memory each click costs one decoding.
    known = {} if previous is None else previous
    begun = ""
    if answer is not None:
        begun = hashlib.sha256(answer.tobytes()).hexdigest()
        known[begun + prefix_key(prompts[:1], [])] = Candidates(answer[None], np.ones(1, np.float32))
    candidates: Candidates | None = None
    for n_seen in range(1, len(prompts) + 1):
        mask_input = None if candidates is None else _chosen_logits(candidates, chosen[n_seen - 2])
        # The last choice is not part of the key: it picks among these logits.
        key = begun + prefix_key(prompts[:n_seen], chosen[: n_seen - 1])
        if key not in known:
            known[key] = Candidates(
                *decoder.decode(*prompt_arrays(prompts[:n_seen]), mask_input, n_seen == 1)
            )
        candidates = known[key]
    assert candidates is not None
    return candidates


def prefix_key(prompts: Sequence[Prompt], chosen: Sequence[int]) -> str:
    """One string for prompts and choices, times left out: equal keys mean equal logits."""
    return json.dumps([[_numbers(prompt) for prompt in prompts], list(chosen)])


def prompt_arrays(prompts: Sequence[Prompt]) -> tuple[Floats | None, Floats | None, Floats | None]:
    """point_coords (N, 2), point_labels (N,), box (4,): None where there is none; points keep their order."""
    points = [_numbers(prompt) for prompt in prompts if prompt["kind"] == "point"]
    boxes = [_numbers(prompt) for prompt in prompts if prompt["kind"] == "box"]
    table = np.asarray(points, dtype=np.float32).reshape(-1, 3)
    box = np.asarray(boxes[-1], dtype=np.float32) if boxes else None
    return (table[:, :2], table[:, 2], box) if points else (None, None, box)


def check_prompts(prompts: object, original_hw: tuple[int, int]) -> list[Prompt]:
    """The same prompts, known to be a list of points and at most one box inside an image of (H, W).

    The way in for prompts of a page or a file; raises BadInput with the number of the wrong one.
    """
    if not isinstance(prompts, list) or not prompts:
        raise BadInput("prompts must be a list of at least one point or box")
    if len(prompts) > MAX_PROMPTS:
        raise BadInput(f"at most {MAX_PROMPTS} prompts make one mask; accept it and begin another")
    for number, prompt in enumerate(prompts, start=1):
        complaint = _complaint(prompt, original_hw)
        if complaint:
            raise BadInput(f"prompt {number}: {complaint}")
    if sum(prompt["kind"] == "box" for prompt in prompts) > 1:
        raise BadInput("at most one box makes one mask; remove the first box to draw another")
    return prompts


def labelled_points(
    point_coords: Floats | None, point_labels: Floats | None, box: Floats | None
) -> tuple[Floats, Floats]:
    """Points and box as the exported decoder takes them: (1, N, 2), (1, N), padded like the official."""
    coords = [np.zeros((0, 2), np.float32) if point_coords is None else np.asarray(point_coords, np.float32)]
    labels = [np.zeros(0, np.float32) if point_labels is None else np.asarray(point_labels, np.float32)]
    if box is not None:
        coords.append(np.asarray(box, np.float32).reshape(2, 2))
        labels.append(np.array(_BOX_LABELS, np.float32))
    else:
        coords.append(np.zeros((1, 2), np.float32))
        labels.append(np.array([-1.0], np.float32))
    return np.concatenate(coords)[None], np.concatenate(labels)[None]


def to_model_frame(
    coords: NDArray[np.number[Any]], original_hw: tuple[int, int], input_hw: tuple[int, int]
) -> Floats:
    """(..., 2) pixels x y of the original image -> pixels of the resized one, whose size is `input_hw`."""
    # Per axis, from the rounded size: the two scales differ a little.
    scale = np.array([input_hw[1] / original_hw[1], input_hw[0] / original_hw[0]])
    scaled: Floats = (np.asarray(coords, np.float64) * scale).astype(np.float32)
    return scaled


def _numbers(prompt: Prompt) -> tuple[float, ...]:
    names = ("x", "y", "label") if prompt["kind"] == "point" else ("x0", "y0", "x1", "y1")
    return tuple(float(prompt[name]) for name in names)


def _chosen_logits(candidates: Candidates, index: int) -> Floats:
    if not 0 <= index < len(candidates.iou_predictions):
        raise BadInput(
            f"candidate {index} was chosen, but only {len(candidates.iou_predictions)} were offered"
        )
    logits: Floats = candidates.low_res_logits[index]
    return logits


def _complaint(prompt: object, original_hw: tuple[int, int]) -> str:
    if not isinstance(prompt, Mapping) or prompt.get("kind") not in ("point", "box"):
        return 'kind must be "point" or "box"'
    names = ("x", "y") if prompt["kind"] == "point" else ("x0", "y0", "x1", "y1")
    if not all(_is_number(prompt.get(name)) for name in names):
        return f"{', '.join(names)} must be numbers"
    if not all(0 <= prompt[name] <= original_hw[name[0] == "x"] for name in names):
        return f"it lies outside the image of {original_hw[1]} x {original_hw[0]} px"
    if prompt["kind"] == "point":
        return "" if prompt.get("label") in (0, 1) else "label must be 1 (foreground) or 0 (background)"
    fits = prompt["x0"] < prompt["x1"] and prompt["y0"] < prompt["y1"]
    return "" if fits else "a box needs x0 < x1 and y0 < y1"


def _is_number(value: object) -> bool:
    # True is an int in Python, and no coordinate.
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)
