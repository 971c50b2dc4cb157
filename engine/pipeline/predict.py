"""Prompts -> candidate masks, for the page. Writes nothing; runs on onnxruntime, so torch stays out."""

import time
from collections import OrderedDict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from threading import Lock
from typing import Any

import numpy as np
from numpy.typing import NDArray
from sqlalchemy import select
from sqlalchemy.orm import Session

from engine.errors import BadInput, Conflict, NotFound, Unavailable
from engine.geometry.rle import Rle, bbox_of_runs
from engine.geometry.runs import format_runs
from engine.modeling.embedding_file import read_embedding
from engine.modeling.onnx_predictor import Candidates, DecoderSession, fold
from engine.modeling.sam_config import SamConfig
from engine.modeling.upscale_region import RegionUpscaler
from engine.store.assignments import Assignment
from engine.store.embeddings import Embedding
from engine.store.images import Image
from engine.store.model_versions import ModelVersion
from engine.store.session import Workspace

Prompts = Sequence[Mapping[str, Any]]
# One step of a 128 x 128 decoder is 64 to 192 kB, so all of them together stay under 300 MB.
_REMEMBERED_IMAGES = 32
_REMEMBERED_STEPS = 48


@dataclass(frozen=True)
class Candidate:
    """One mask on offer, full size, with the model's own estimate of its quality."""

    segmentation: Rle
    predicted_iou: float
    stability_score: float
    area: int
    bbox: tuple[int, int, int, int]


@dataclass(frozen=True)
class Prediction:
    """`best` is the index of the highest predicted IoU; `latency_ms` is the time spent here."""

    candidates: tuple[Candidate, ...]
    best: int
    model_version_id: int
    latency_ms: float


@dataclass(frozen=True)
class Ground:
    """What a prediction stands on: one image's embedding under one version's decoder."""

    original_hw: tuple[int, int]
    config: Mapping[str, Any]
    decoder_sha256: str
    embedding_sha256: str
    weights_sha256: str


def predict(
    workspace: Workspace, assignment_id: int, user_id: int, prompts: Prompts, chosen: Sequence[int]
) -> Prediction:
    """The masks that the assignment's model version offers for these prompts, at the image's size.

    `prompts` and `chosen` are folded as engine/modeling/prompts.py defines. Raises NotFound for an assignment
    that is not the person's, Conflict when it is closed, BadInput for prompts that cannot be used.
    """
    began = time.perf_counter()
    with workspace.read() as session:
        assignment = session.get(Assignment, assignment_id)
        if assignment is None or assignment.user_id != user_id:
            raise NotFound("no such assignment of yours")
        if assignment.state not in ("open", "expired"):
            raise Conflict(f"this image was {assignment.state} already; ask for the next one")
        ground = ground_of(session, assignment.image_id, assignment.model_version_id)
    candidates = fold_on(workspace, ground, prompts, chosen)
    offered = as_candidates(candidates, ground)
    latency_ms = (time.perf_counter() - began) * 1000
    return Prediction(offered, candidates.best, assignment.model_version_id, latency_ms)


def ground_of(session: Session, image_id: int, model_version_id: int) -> Ground:
    """Digests and sizes of the pair; Unavailable while the image is not embedded for that version."""
    pair = (Embedding.image_id == image_id) & (Embedding.model_version_id == model_version_id)
    embedding_sha256 = session.scalar(select(Embedding.blob_sha256).where(pair))
    if embedding_sha256 is None:
        raise Unavailable("the image is still being prepared for this model; try again in a few seconds")
    image, version = session.get_one(Image, image_id), session.get_one(ModelVersion, model_version_id)
    hw = (image.height, image.width)
    return Ground(hw, version.config, version.decoder_sha256, embedding_sha256, version.weights_sha256)


def fold_on(workspace: Workspace, ground: Ground, prompts: Prompts, chosen: Sequence[int]) -> Candidates:
    """The fold of `prompts` on one image; steps already answered are remembered per image and version."""
    if len(prompts) > workspace.settings.limits.max_prompts:
        raise BadInput(
            f"at most {workspace.settings.limits.max_prompts} prompts make one mask; accept it first"
        )
    decoder = _decoder(workspace.blobs.local_path(ground.decoder_sha256), SamConfig.from_dict(ground.config))
    embedding = _embedding(workspace.blobs.local_path(ground.embedding_sha256), ground.weights_sha256)
    steps = _steps.of((ground.embedding_sha256, ground.decoder_sha256))
    return fold(decoder, embedding, ground.original_hw, list(prompts), list(chosen), steps)


def as_candidates(candidates: Candidates, ground: Ground) -> tuple[Candidate, ...]:
    """Full-size masks of the low-resolution answer, as RLE with their scores."""
    height, width = ground.original_hw
    # Only where a mask can be: whole planes of a large photograph take longer than the decoder.
    upscaler, offered = RegionUpscaler(SamConfig.from_dict(ground.config), (height, width)), []
    for low_res, predicted_iou in zip(candidates.low_res_logits, candidates.iou_predictions, strict=True):
        runs, stability = upscaler.mask_of(low_res)
        rle = Rle(size=[height, width], counts=format_runs(runs))
        box = bbox_of_runs(runs, height)
        offered.append(Candidate(rle, float(predicted_iou), stability, int(runs[1::2].sum()), box))
    return tuple(offered)


class _Steps:
    """Answered steps of the images worked on lately; bounded, shared by the server's threads."""

    def __init__(self, n_images: int) -> None:
        self._n_images = n_images
        self._known: OrderedDict[tuple[str, str], dict[str, Candidates]] = OrderedDict()
        self._lock = Lock()

    def of(self, key: tuple[str, str]) -> dict[str, Candidates]:
        with self._lock:
            steps = self._known.pop(key, {})
            # A full memory is replaced, not emptied: another thread may be folding on it.
            self._known[key] = steps = steps if len(steps) < _REMEMBERED_STEPS else {}
            if len(self._known) > self._n_images:
                self._known.popitem(last=False)
            return steps


_steps = _Steps(_REMEMBERED_IMAGES)


@lru_cache(maxsize=4)
def _decoder(path: Path, config: SamConfig) -> DecoderSession:
    return DecoderSession(path.read_bytes(), config)


@lru_cache(maxsize=_REMEMBERED_IMAGES)
def _embedding(path: Path, weights_sha256: str) -> NDArray[np.float32]:
    return read_embedding(path, weights_sha256=weights_sha256)
