"""Trains the box detector of stage 2 on embeddings that are there: no image is read, no encoder runs.

Everything random in step k is drawn from (seed, k), so equal samples, seed and steps give equal weights on
one thread. There is no augmentation: a flipped image has another embedding than the flipped embedding, since
the encoder's attention knows where it is.
"""

import math
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, nn

from engine.errors import BadInput
from engine.modeling.detector import Detector, build_detector
from engine.modeling.detector_card import DetectorConfig
from engine.modeling.sam_config import SamConfig
from engine.training.detector_targets import DetectorSample, Targets, detector_loss, make_targets

RECIPE = "detector-1"
DEFAULT_SECONDS = 60.0
PLANNING_STEPS = (3, 10)  # a time-boxed run plans after these: the first steps are slow
_LONGEST_RUN = 20_000


@dataclass(frozen=True)
class DetectorRules:
    """The recipe's numbers."""

    n_images: int = 4
    lr: float = 3e-3
    warmup_steps: int = 20
    weight_decay: float = 0.05
    clip_norm: float = 5.0
    width: int = 64
    fine_width: int = 32


@dataclass(frozen=True)
class DetectorProgress:
    """Reported after every step: `step` of `steps` done, seconds so far, the loss of the step."""

    step: int
    steps: int
    elapsed_s: float
    loss: float


@dataclass(frozen=True)
class TrainedDetector:
    """The detector, and the steps that made it: with them a time-boxed run can be repeated exactly."""

    detector: Detector
    steps: int
    elapsed_s: float


@dataclass(frozen=True)
class _Lesson:
    embedding: Tensor  # float16: 500 embeddings of 256 x 32 x 32 are then 250 MB
    targets: Targets


def train_detector(
    samples: Sequence[DetectorSample],
    config: SamConfig,
    *,
    steps: int | None = None,
    max_seconds: float | None = None,
    seed: int = 0,
    rules: DetectorRules | None = None,
    on_progress: Callable[[DetectorProgress], None] | None = None,
    should_stop: Callable[[], bool] | None = None,
) -> TrainedDetector | None:
    """Trains a detector for embeddings of the model of `config`: for `steps`, or for about `max_seconds`.

    With neither it takes a minute. Returns None when `should_stop`, asked before every step, said so. Raises
    BadInput when no sample holds a box, or on embeddings of another shape.
    """
    rules = rules or DetectorRules()
    detector = build_detector(
        DetectorConfig.of_model(config, width=rules.width, fine_width=rules.fine_width), seed
    )
    lessons = _prepared(samples, detector, config)
    fit_channels(detector, [lesson.embedding for lesson in lessons])
    optimizer = _optimizer(detector, rules)
    box_s = max_seconds if steps is not None or max_seconds is not None else DEFAULT_SECONDS
    planned, began, step = steps or _LONGEST_RUN, time.monotonic(), 0
    while step < planned:
        if should_stop is not None and should_stop():
            return None
        for group in optimizer.param_groups:
            group["lr"] = _learning_rate(step, planned, rules)
        loss = _advance(detector, optimizer, _drawn(lessons, rules, seed, step), rules)
        step, elapsed_s = step + 1, time.monotonic() - began
        planned = _replanned(step, planned, elapsed_s, box_s)
        if on_progress is not None:
            on_progress(DetectorProgress(step, planned, elapsed_s, loss))
    return TrainedDetector(detector.eval(), step, time.monotonic() - began)


def _prepared(samples: Sequence[DetectorSample], detector: Detector, config: SamConfig) -> list[_Lesson]:
    """Targets are worked out once: nothing about them is random."""
    lessons = []
    for sample in samples:
        detector.config.check_embedding(sample.embedding.shape)
        embedding = torch.from_numpy(np.asarray(sample.embedding, np.float16))
        lessons.append(_Lesson(embedding, make_targets(sample, detector.locations, config)))
    if not any(len(lesson.targets.boxes_px) for lesson in lessons):
        raise BadInput("there is nothing to detect: train the detector on images with at least one mask")
    return lessons


@torch.no_grad()
def fit_channels(detector: Detector, embeddings: Sequence[Tensor]) -> None:
    """Sets the input's mean and scale per channel from at least one embedding (C, g, g)."""
    sums = torch.zeros(2, detector.config.embedding_channels, dtype=torch.float64)
    for embedding in embeddings:
        flat = embedding.double().flatten(1)
        sums += torch.stack([flat.mean(1), flat.square().mean(1)]) / len(embeddings)
    detector.channel_mean.copy_(sums[0])
    # A channel that is always the same says nothing; it must not be blown up.
    detector.channel_scale.copy_((sums[1] - sums[0] ** 2).clamp(min=1e-4).sqrt())


def _optimizer(detector: Detector, rules: DetectorRules) -> torch.optim.Optimizer:
    """AdamW; vectors (norms, biases) do not decay."""
    groups = [
        {"params": [p for p in detector.parameters() if (p.ndim > 1) == is_matrix], "weight_decay": decay}
        for is_matrix, decay in ((True, rules.weight_decay), (False, 0.0))
    ]
    return torch.optim.AdamW(groups, lr=rules.lr)


def _drawn(lessons: Sequence[_Lesson], rules: DetectorRules, seed: int, step: int) -> list[_Lesson]:
    """The batch of a step: epochs in an order that depends on (seed, epoch) alone."""
    size = min(rules.n_images, len(lessons))
    per_epoch = len(lessons) // size
    order = np.random.default_rng((seed, step // per_epoch)).permutation(len(lessons))
    first = step % per_epoch * size
    return [lessons[index] for index in order[first : first + size]]


def _advance(
    detector: Detector, optimizer: torch.optim.Optimizer, batch: Sequence[_Lesson], rules: DetectorRules
) -> float:
    detector.train()
    embeddings = torch.stack([lesson.embedding for lesson in batch]).float()
    logits, boxes = detector(embeddings)
    loss = detector_loss(logits, boxes, [lesson.targets for lesson in batch])
    loss.backward()  # type: ignore[no-untyped-call]
    nn.utils.clip_grad_norm_(detector.parameters(), rules.clip_norm)
    optimizer.step()
    optimizer.zero_grad(set_to_none=True)
    return float(loss.detach())


def _learning_rate(step: int, planned: int, rules: DetectorRules) -> float:
    """Linear warm-up, then a cosine to a fiftieth."""
    warm = min(1.0, (step + 1) / max(1, min(rules.warmup_steps, planned // 4)))
    return rules.lr * warm * (0.02 + 0.98 * 0.5 * (1 + math.cos(math.pi * min(1.0, step / planned))))


def _replanned(step: int, planned: int, elapsed_s: float, box_s: float | None) -> int:
    """A time-boxed run plans its steps from its pace; if the machine slows down it stops soon after all the
    same."""
    if box_s is None:
        return planned
    if step in PLANNING_STEPS:
        planned = max(PLANNING_STEPS[-1] + 1, min(planned, int(box_s / elapsed_s * step)))
    return step if elapsed_s > box_s * 1.15 and step > PLANNING_STEPS[-1] else planned
