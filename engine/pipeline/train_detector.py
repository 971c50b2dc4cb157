"""TrainingSnapshot -> DetectorVersion: the box proposer of stage 2, measured before it prefills anything.

It learns boxes of the snapshot's masks on the embeddings of one model version. What people refused is a
negative; on an image of stage 1 they drew what stands out in the time they had, so an empty place is only
probably empty. The threshold is chosen on all held-out images; what is told of it is measured on each half
of them (by near-duplicate group) with the threshold that the other half would have chosen, so that no figure
is of the images that decided it.
"""

import hashlib
from collections.abc import Iterable, Sequence
from dataclasses import asdict
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from sqlalchemy import func, select
from sqlalchemy.orm import Session

from engine.config import Detector as DetectorSettings
from engine.errors import NotFound, Refused
from engine.geometry.boxes import xywh_to_xyxy
from engine.modeling.cache import model_on
from engine.modeling.detector import Detector, save_detector
from engine.modeling.detector_card import DetectorCard
from engine.modeling.sam import Sam
from engine.modeling.sam_config import SamConfig
from engine.pipeline.embedded import embedding_of
from engine.store.detector_versions import DetectorVersion
from engine.store.device_slots import device_slot
from engine.store.events import record_event
from engine.store.images import Image
from engine.store.masks import Mask, current_masks
from engine.store.model_versions import ModelVersion
from engine.store.proposals import Proposal
from engine.store.reviews import last_review_is
from engine.store.runner import Cancelled, Work, Write
from engine.store.snapshots import Snapshot, SnapshotImage, SnapshotMask
from engine.training import detector as learning
from engine.training.detector_figures import DetectorFigures, ProposalFigures, evaluate_detector
from engine.training.detector_targets import DetectorSample
from engine.training.detector_threshold import (
    FEWEST_BOXES,
    choose_threshold,
    cross_fitted,
    false_share,
    scored_boxes,
)

# Embeddings are kept in memory while a detector learns; of more images every second, third ... is taken.
MOST_BYTES = 1_000_000_000
_FEWEST_IMAGES = 8
_SEED = 0


class Lesson(NamedTuple):
    """One image and the boxes (n, 4) xyxy that are known of it."""

    image: Image
    boxes_xyxy: NDArray[np.float64]
    negatives_xyxy: NDArray[np.float64]
    is_complete: bool


def train_detector(work: Work, *, dataset_id: int, model_version_id: int, snapshot_id: int) -> Write:
    """Trains for `detector.max_seconds` or `steps`, measures on held-out images, returns the version's write.

    A detector that is no better than an untrained one and than random boxes gets no threshold: nothing is
    prefilled, and its figures say why. Once per model version and snapshot. Raises NotFound for unknown
    parents, Refused for a snapshot that is for no training or holds no mask.
    """
    workspace = work.workspace
    with workspace.read() as session:
        version, snapshot = session.get(ModelVersion, model_version_id), session.get(Snapshot, snapshot_id)
        if version is None or snapshot is None:
            raise NotFound(f"no model version {model_version_id} or no snapshot {snapshot_id}")
        known = _known(session, model_version_id, snapshot_id)
        if snapshot.kind != "training":
            raise Refused(
                f"snapshot {snapshot.name} is for {snapshot.kind}: a detector learns from a training one"
            )
        lessons, held_out = _lessons(session, snapshot_id), _held_out(session, dataset_id)
    if known is not None:
        return lambda session: _told(session.get_one(DetectorVersion, known.id))
    if not any(len(lesson.boxes_xyxy) for lesson in lessons):
        raise Refused("there is no mask to learn from yet: annotate some training images first")
    row = _learn(work, version, lessons, held_out)
    row.dataset_id, row.model_version_id, row.snapshot_id = dataset_id, model_version_id, snapshot_id
    return lambda session: _add(session, row)


def _known(session: Session, model_version_id: int, snapshot_id: int) -> DetectorVersion | None:
    pair = (DetectorVersion.model_version_id == model_version_id) & (
        DetectorVersion.snapshot_id == snapshot_id
    )
    return session.scalar(select(DetectorVersion).where(pair).limit(1))


def _lessons(session: Session, snapshot_id: int) -> list[Lesson]:
    """The snapshot's images, by export id, with its masks."""
    members = select(Image).join(SnapshotImage, SnapshotImage.image_id == Image.id)
    images = session.scalars(
        members.where(SnapshotImage.snapshot_id == snapshot_id).order_by(Image.export_id)
    )
    in_it = select(Mask.image_id, Mask.bbox_xywh, Mask.source)
    masks = in_it.join(SnapshotMask, SnapshotMask.mask_id == Mask.id)
    return _with_boxes(session, images.all(), masks.where(SnapshotMask.snapshot_id == snapshot_id))


def _held_out(session: Session, dataset_id: int) -> list[Lesson]:
    """Held-out images with masks that a person made: what models are judged by too."""
    mine = (
        (Image.dataset_id == dataset_id)
        & (Image.split == "val")
        & Mask.touched_by_person
        & (Mask.iscrowd == 0)
    )
    current = select(Mask).join(current_masks, current_masks.c.mask_id == Mask.id)
    masks = current.join(Image, Image.id == Mask.image_id).where(mine)
    ids = masks.with_only_columns(Mask.image_id)
    images = session.scalars(select(Image).where(Image.id.in_(ids)).order_by(Image.export_id)).all()
    return _with_boxes(session, images, masks.with_only_columns(Mask.image_id, Mask.bbox_xywh, Mask.source))


def _with_boxes(session: Session, images: Sequence[Image], masks: Any) -> list[Lesson]:
    boxes: dict[int, list[list[float]]] = {image.id: [] for image in images}
    drawn_here: set[int] = set()
    for image_id, bbox_xywh, source in session.execute(masks.order_by(Mask.image_id, Mask.id)):
        boxes[image_id].append(bbox_xywh)
        # Who brings masks of an image brings all; who draws here has so much time.
        drawn_here |= {image_id} if source != "imported" else set()
    refused: dict[int, list[list[float]]] = {image.id: [] for image in images}
    columns = select(Proposal.image_id, Proposal.bbox_xywh).where(last_review_is("reject"))
    for image_id, bbox_xywh in session.execute(columns.order_by(Proposal.image_id, Proposal.id)):
        if image_id in refused:
            refused[image_id].append(bbox_xywh)
    return [
        Lesson(image, _xyxy(boxes[image.id]), _xyxy(refused[image.id]), image.id not in drawn_here)
        for image in images
    ]


def _xyxy(boxes_xywh: list[list[float]]) -> NDArray[np.float64]:
    return xywh_to_xyxy(np.asarray(boxes_xywh, np.float64).reshape(-1, 4))


def _learn(
    work: Work, version: ModelVersion, lessons: Sequence[Lesson], held_out: Sequence[Lesson]
) -> DetectorVersion:
    workspace, settings = work.workspace, work.workspace.settings.detector
    config = SamConfig.from_dict(version.config)
    weights = workspace.blobs.local_path(version.weights_sha256)
    with device_slot(workspace.settings, "detector") as slot, model_on(weights, slot.device) as sam:
        samples = _embedded(work, sam, version, _evenly(lessons, config))
        judges = _embedded(work, sam, version, _evenly(held_out, config))

    def tell(progress: learning.DetectorProgress) -> None:
        work.progress({"step": progress.step, "steps": progress.steps, "seconds": round(progress.elapsed_s)})

    trained = learning.train_detector(
        samples,
        config,
        steps=settings.steps or None,
        max_seconds=None if settings.steps else settings.max_seconds,
        seed=_SEED,
        on_progress=tell,
        should_stop=work.cancelled,
    )
    if trained is None:
        raise Cancelled
    threshold, figures = _measured(trained.detector, config, _evenly(held_out, config), judges, settings)
    counts = {"n_train_images": len(samples), "n_train_boxes": sum(len(one.boxes_xyxy) for one in samples)}
    counts["n_negatives"] = sum(len(one.negatives_xyxy) for one in samples)
    seconds = {"steps": trained.steps, "seconds": round(trained.elapsed_s, 1)}
    card = DetectorCard(
        trained.detector.config, version.weights_sha256, threshold, learning.RECIPE, _SEED, trained.steps
    )
    return DetectorVersion(
        weights_sha256=workspace.blobs.put(save_detector(trained.detector, card)),
        threshold=threshold,
        false_prefill_rate=settings.false_prefill_rate,
        figures=figures | counts | seconds,
    )


def _evenly(lessons: Sequence[Lesson], config: SamConfig) -> list[Lesson]:
    """As many as fit into memory, spread over all; the same ones every time."""
    n_bytes = 2 * config.embedding_channels * config.embedding_grid**2
    most = max(MOST_BYTES // n_bytes, _FEWEST_IMAGES)
    return list(lessons[:: max(1, -(-len(lessons) // most))])


def _embedded(work: Work, sam: Sam, version: ModelVersion, lessons: Iterable[Lesson]) -> list[DetectorSample]:
    """Stored embeddings where there are some; the others are made and not kept."""
    samples = []
    for lesson in lessons:
        work.stop_if_cancelled()
        embedding = embedding_of(work.workspace, sam, lesson.image, version).astype(np.float16)
        hw = (lesson.image.height, lesson.image.width)
        samples.append(
            DetectorSample(embedding, hw, lesson.boxes_xyxy, lesson.negatives_xyxy, lesson.is_complete)
        )
        work.progress({"embedded": len(samples)})
    return samples


def _measured(
    detector: Detector,
    config: SamConfig,
    held_out: Sequence[Lesson],
    judges: Sequence[DetectorSample],
    settings: DetectorSettings,
) -> tuple[float | None, dict[str, Any]]:
    """The threshold, None where nothing should be prefilled, and the figures with the reason."""
    if not any(len(judge.boxes_xyxy) for judge in judges):
        return None, {"reason": "no held-out image has a mask by a person to choose a threshold on"}
    rate = settings.false_prefill_rate
    scored = scored_boxes(detector, judges, config, settings.undrawn_is_false)
    threshold = choose_threshold(scored, rate)
    halves = np.array(_first_half([lesson.image.near_duplicate_group for lesson in held_out]), np.bool_)
    crossed = cross_fitted(scored, halves, rate)
    # Without a threshold nothing is prefilled; the figures are then those of all boxes.
    whole = np.full(len(judges), 0.0 if threshold is None else threshold)
    thresholds = whole if crossed is None else crossed
    measured = evaluate_detector(detector, judges, config, thresholds, seed=_SEED)
    reason = _complaint(measured, threshold, rate)
    figures = _as_json(measured) | {
        "false_share": false_share(scored, thresholds),
        "is_cross_fitted": crossed is not None,
        "reason": reason,
    }
    return (threshold if reason is None else None), figures


def _first_half(groups: Sequence[str]) -> list[bool]:
    """Which images lie in the first half: whole groups, every other one in the order of their digests."""
    order = sorted(set(groups), key=lambda group: hashlib.sha256(group.encode()).hexdigest())
    return [order.index(group) % 2 == 0 for group in groups]


def _complaint(figures: DetectorFigures, threshold: float | None, false_prefill_rate: float) -> str | None:
    """Why this detector should prefill nothing; None if it may."""
    best = figures.detector
    for name, baseline in (("an untrained one", figures.untrained), ("random boxes", figures.random_boxes)):
        if best.average_recall <= baseline.average_recall or not _more_precise(best, baseline):
            return f"it is no better than {name} on {figures.n_images} held-out images"
    if threshold is None:
        right = f"{1 - false_prefill_rate:.0%} of at least {FEWEST_BOXES} boxes"
        hint = "detector.undrawn_is_false says how what nobody drew is counted"
        return f"at no score are {right} right on held-out images ({hint})"
    return None


def _more_precise(best: ProposalFigures, baseline: ProposalFigures) -> bool:
    return (best.precision or 0.0) > (baseline.precision or 0.0)


def _as_json(figures: DetectorFigures) -> dict[str, Any]:
    best = figures.detector
    return {
        "average_recall": best.average_recall,
        "precision_at_threshold": best.precision,
        "recall_at_threshold": best.recall,
        "n_prefilled": best.n_proposed,
        "untrained": asdict(figures.untrained),
        "random_boxes": asdict(figures.random_boxes),
        "n_images": figures.n_images,
        "n_boxes": figures.n_boxes,
    }


def _add(session: Session, row: DetectorVersion) -> dict[str, Any]:
    """Names the detector by its place in the dataset's line."""
    known = _known(session, row.model_version_id, row.snapshot_id)
    if known is not None:
        return _told(known)
    here = DetectorVersion.dataset_id == row.dataset_id
    number = session.scalar(select(func.count()).select_from(DetectorVersion).where(here)) or 0
    row.name = f"d{number + 1}"
    session.add(row)
    session.flush()
    record_event(
        session, "detector.trained", dataset_id=row.dataset_id, subject_id=row.id, snapshot_id=row.snapshot_id
    )
    return _told(row)


def _told(row: DetectorVersion) -> dict[str, Any]:
    return {
        "detector_version": row.id,
        "name": row.name,
        "threshold": row.threshold,
        "average_recall": row.figures.get("average_recall"),
        "reason": row.figures.get("reason"),
    }
