"""ModelVersion + held-out masks -> Evaluation: clicks by the paper's protocol (appendix D.1)."""

import hashlib
import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

from sqlalchemy import select
from sqlalchemy.orm import Session

from engine.config import Settings
from engine.errors import NotFound
from engine.formats.pictures import decode_stored
from engine.geometry.rle import Rle
from engine.modeling.cache import model_on
from engine.store.device_slots import device_slot
from engine.store.evaluations import Evaluation
from engine.store.images import Image
from engine.store.masks import Mask
from engine.store.model_versions import ModelVersion
from engine.store.runner import Work, Write
from engine.store.session import Workspace
from engine.store.snapshots import SnapshotMask
from engine.training.dataset import Sample
from engine.training.evaluate import ClickScores, TorchBackend, evaluate_clicks

# Below this size one pixel decides the IoU, so such masks judge the pixel grid and not the model.
MIN_AREA_PX = 64
# Enough for a mean within about one point of IoU; all of them would hold the worker for long.
MAX_MASKS = 400


def evaluate(work: Work, *, model_version_id: int, snapshot_id: int) -> Write:
    """Clicks on every mask of the snapshot (at most MAX_MASKS, evenly spaced) and returns the write."""
    workspace = work.workspace
    protocol = protocol_of(workspace.settings)
    samples = _samples(workspace, _members(workspace, snapshot_id, protocol))
    figures = measure(workspace, model_version_id, _stopping(work, samples))

    def write(session: Session) -> dict[str, Any]:
        digest = protocol_sha256(protocol)
        same = (
            (Evaluation.model_version_id == model_version_id)
            & (Evaluation.snapshot_id == snapshot_id)
            & (Evaluation.protocol_sha256 == digest)
        )
        if session.scalar(select(Evaluation.id).where(same)) is None:
            row = Evaluation(model_version_id=model_version_id, snapshot_id=snapshot_id)
            row.protocol_sha256, row.protocol, row.figures = digest, protocol, figures
            session.add(row)
        return figures

    return write


def measure(workspace: Workspace, model_version_id: int, samples: Iterable[Sample]) -> dict[str, Any]:
    """Figures of one version on masks held in memory; nothing is stored.

    {"miou": {"1": ...}, "noc": mean clicks to the target IoU (the cap where never reached), "reached": share
    that met it, "n_masks": ...}; the figures are None where there is no mask.
    """
    with workspace.read() as session:
        version = session.get(ModelVersion, model_version_id)
        if version is None:
            raise NotFound(f"no model version {model_version_id}")
    weights = workspace.blobs.local_path(version.weights_sha256)
    protocol = protocol_of(workspace.settings)
    with device_slot(workspace.settings, "evaluate") as slot, model_on(weights, slot.device) as sam:
        scores = evaluate_clicks(
            TorchBackend(sam),
            samples,
            n_clicks=protocol["n_clicks"],
            noc_iou=protocol["noc_iou"],
            cap=protocol["cap"],
            min_area_px=protocol["min_area_px"],
        )
    return as_figures(scores, protocol)


def measure_on(
    workspace: Workspace, model_version_id: int, masks: Mapping[int, Sequence[Rle]]
) -> dict[str, Any]:
    """`measure` on masks that are no rows, by image id: a simulation's truth."""
    with workspace.read() as session:
        rows = session.scalars(select(Image).where(Image.id.in_(masks)).order_by(Image.id)).all()
    samples = (
        Sample(decode_stored(workspace.blobs.read(row.pixels_sha256)), list(masks[row.id])) for row in rows
    )
    return measure(workspace, model_version_id, samples)


def as_figures(scores: ClickScores, protocol: dict[str, Any]) -> dict[str, Any]:
    """Means over the masks, as JSON."""
    n_masks = len(scores.clicks)
    if n_masks == 0:
        return {
            "miou": {str(n): None for n in protocol["n_clicks"]},
            "noc": None,
            "reached": None,
            "n_masks": 0,
        }
    reached = (scores.ious >= protocol["noc_iou"]).any(axis=1).mean()
    return {
        "miou": {str(n): scores.mean_iou(n) for n in protocol["n_clicks"]},
        "noc": scores.mean_clicks(),
        "reached": float(reached),
        "n_masks": n_masks,
    }


def protocol_of(settings: Settings) -> dict[str, Any]:
    """What two figures must share to be compared."""
    return {
        "n_clicks": list(settings.train.eval_clicks),
        "noc_iou": settings.train.noc_iou,
        "cap": settings.train.click_cap,
        "min_area_px": MIN_AREA_PX,
        "max_masks": MAX_MASKS,
    }


def protocol_sha256(protocol: dict[str, Any]) -> str:
    """Digest of the protocol, part of an evaluation's key."""
    return hashlib.sha256(json.dumps(protocol, sort_keys=True).encode()).hexdigest()


def _members(
    workspace: Workspace, snapshot_id: int, protocol: dict[str, Any]
) -> list[tuple[Image, list[str]]]:
    """Images of the snapshot with the counts of the masks taken from each: the same ones every time."""
    rows = select(Image, Mask.counts).join(Mask, Mask.image_id == Image.id)
    members = rows.join(SnapshotMask, SnapshotMask.mask_id == Mask.id)
    here = (SnapshotMask.snapshot_id == snapshot_id) & (Mask.area >= protocol["min_area_px"])
    with workspace.read() as session:
        found = session.execute(members.where(here).order_by(Image.export_id, Mask.export_id, Mask.id)).all()
    every = max(1, -(-len(found) // int(protocol["max_masks"])))
    images: dict[int, tuple[Image, list[str]]] = {}
    for image, counts in found[::every]:
        images.setdefault(image.id, (image, []))[1].append(counts)
    return list(images.values())


def _samples(workspace: Workspace, members: list[tuple[Image, list[str]]]) -> Iterator[Sample]:
    for image, counts in members:
        pixels = decode_stored(workspace.blobs.read(image.pixels_sha256))
        yield Sample(pixels, [Rle(size=[image.height, image.width], counts=text) for text in counts])


def _stopping(work: Work, samples: Iterator[Sample]) -> Iterator[Sample]:
    """Lets a cancelled job leave between two images."""
    for number, sample in enumerate(samples, start=1):
        work.stop_if_cancelled()
        yield sample
        work.progress({"images": number})
