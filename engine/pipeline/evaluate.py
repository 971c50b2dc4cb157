"""ModelVersion + held-out masks -> Evaluation: clicks by the paper's protocol (appendix D.1).

There is one protocol, `engine.training.evaluate`. What promotion decides by is a short reading of it, kept as
a row; a person's question (`maskloop models evaluate`) is the whole of it, of which the same row is read.
"""

import hashlib
import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from sqlalchemy import select
from sqlalchemy.orm import Session

from engine.config import Settings
from engine.errors import BadInput, NotFound
from engine.formats.coco import CocoImage, read_coco
from engine.formats.pictures import decode_stored, read_picture
from engine.geometry.rle import Rle, area
from engine.modeling.cache import model_on
from engine.modeling.mask_prompt import reachable_iou
from engine.store.device_slots import device_slot
from engine.store.evaluations import Evaluation
from engine.store.images import Image
from engine.store.masks import Mask
from engine.store.model_versions import ModelVersion
from engine.store.runner import Work, Write
from engine.store.session import Workspace
from engine.store.snapshots import SnapshotMask
from engine.training import grabcut
from engine.training.baselines import SegmenterBackend, best_flood_fill, best_local_otsu
from engine.training.dataset import Sample
from engine.training.editing import EditScores, evaluate_editing
from engine.training.evaluate import ClickBackend, ClickScores, TorchBackend, evaluate_clicks
from engine.training.recipes import unseen_scenes

# Below this size one pixel decides the IoU, so such masks judge the pixel grid and not the model.
MIN_AREA_PX = 64
# Enough for a mean within about one point of IoU; all of them would hold the worker for long.
MAX_MASKS = 400
# The paper's figure 9: points per mask. Clicks to an IoU are counted up to the cap, as its appendix D.1 does.
N_CLICKS = (1, 2, 3, 5, 9)
TARGETS = (0.85, 0.90)
CAP = 20


def evaluate(work: Work, *, model_version_id: int, snapshot_id: int) -> Write:
    """Clicks on every mask of the snapshot (at most MAX_MASKS, evenly spaced) and returns the write."""
    workspace = work.workspace
    protocol = protocol_of(workspace.settings)
    samples = iter(HeldOut(workspace, snapshot_id))
    figures = measure(workspace, model_version_id, _stopping(work, samples))

    return keep(figures, protocol, model_version_id=model_version_id, snapshot_id=snapshot_id)


def keep(
    figures: dict[str, Any], protocol: dict[str, Any], *, model_version_id: int, snapshot_id: int
) -> Write:
    """The write of an evaluation's row; the first one by a protocol stays."""

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
    target, cap = protocol["noc_iou"], protocol["cap"]
    return {
        "miou": {str(n): scores.mean_iou(n) for n in protocol["n_clicks"]},
        "noc": float(np.mean(scores.clicks_to(target, cap))),
        "reached": float(scores.reached(target, cap).mean()),
        "n_masks": n_masks,
    }


def follow_clicks(settings: Settings, weights: Path, samples: Iterable[Sample]) -> ClickScores:
    """The whole protocol on one checkpoint: N_CLICKS and TARGETS and what promotion reads, the oracle, and
    what the size of the logits can reach."""
    protocol = protocol_of(settings)
    with device_slot(settings, "evaluate") as slot, model_on(weights, slot.device) as sam:
        return evaluate_clicks(
            TorchBackend(sam),
            samples,
            n_clicks=sorted({*N_CLICKS, *protocol["n_clicks"]}),
            noc_iou=max(*TARGETS, protocol["noc_iou"]),
            cap=max(CAP, protocol["cap"]),
            min_area_px=protocol["min_area_px"],
            oracle=True,
            ceiling=partial(reachable_iou, config=sam.config),
        )


def correct_masks(settings: Settings, weights: Path, samples: Iterable[Sample], seed: int) -> EditScores:
    """What one click makes of spoilt masks, on one checkpoint."""
    with device_slot(settings, "evaluate") as slot, model_on(weights, slot.device) as sam:
        return evaluate_editing(sam, samples, seed, MIN_AREA_PX)


def follow_without_model(samples: Iterable[Sample]) -> dict[str, ClickScores]:
    """The same clicks on baselines that know no model, each at the setting that suits these masks best.

    GrabCut is among them where OpenCV is installed.
    """

    def window(radius_px: int) -> str:
        return f"window of {2 * radius_px + 1} px"

    held = list(samples)
    tolerance, fill = best_flood_fill(held)
    radius_px, otsu = best_local_otsu(held)
    named: dict[str, ClickBackend] = {
        f"flood fill (tolerance {tolerance:g})": SegmenterBackend(fill),
        f"local Otsu ({window(radius_px)})": SegmenterBackend(otsu),
    }
    if grabcut.is_installed():
        cut = grabcut.best_grab_cut(held, MIN_AREA_PX)
        named[f"GrabCut ({window(cut.radius_px)})"] = cut
    return {
        name: evaluate_clicks(backend, held, N_CLICKS, max(TARGETS), CAP, MIN_AREA_PX)
        for name, backend in named.items()
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


@dataclass(frozen=True)
class HeldOut:
    """The masks of a snapshot that a version is judged by, read from the store at every pass."""

    workspace: Workspace
    snapshot_id: int

    def __iter__(self) -> Iterator[Sample]:
        protocol = protocol_of(self.workspace.settings)
        return _samples(self.workspace, _members(self.workspace, self.snapshot_id, protocol))


@dataclass(frozen=True)
class TruthFile:
    """Masks of a COCO file with its pictures, read from the folder at every pass. `chosen` are the measured
    ones of each picture, `beside` the others."""

    folder: Path
    images: Sequence[CocoImage]
    chosen: Mapping[int, Sequence[Rle]]
    beside: Mapping[int, Sequence[Rle]]
    max_pixels: int

    def __iter__(self) -> Iterator[Sample]:
        for image in self.images:
            try:
                content = (self.folder / image.file_name).read_bytes()
            except FileNotFoundError:
                raise BadInput(
                    f"{self.folder} has no {image.file_name}: give the pictures' folder by --images"
                ) from None
            pixels = read_picture(content, max_pixels=self.max_pixels).pixels
            if pixels.shape[:2] != (image.height, image.width):
                raise BadInput(
                    f"{image.file_name} has {pixels.shape[1]} x {pixels.shape[0]} px, its block in the file "
                    f"says {image.width} x {image.height}: give the pictures that the masks were drawn on"
                )
            yield Sample(pixels, self.chosen[image.id], beside=self.beside[image.id])

    @property
    def n_masks(self) -> int:
        """How many masks are measured."""
        return sum(map(len, self.chosen.values()))


def generated_scenes(n_scenes: int, n_masks: int | None, seed: int) -> list[Sample]:
    """Scenes that no model of ours was trained on, with masks of at least MIN_AREA_PX: `n_masks` drawn by
    `seed`, or all."""
    scenes = unseen_scenes(n_scenes)
    samples = [scenes[number] for number in range(n_scenes)]
    found = [
        (number, index)
        for number, sample in enumerate(samples)
        for index in range(len(sample.masks))
        if np.count_nonzero(sample.mask(index)) >= MIN_AREA_PX
    ]
    wanted = len(found) if n_masks is None else min(n_masks, len(found))
    drawn = {found[place] for place in np.random.default_rng(seed).choice(len(found), wanted, replace=False)}
    return [
        replace(
            sample,
            masks=[mask for index, mask in enumerate(sample.masks) if (number, index) in drawn],
            beside=[mask for index, mask in enumerate(sample.masks) if (number, index) not in drawn],
        )
        for number, sample in enumerate(samples)
    ]


def truth_file(
    settings: Settings, file: Path, folder: Path, split: str | None, n_masks: int | None, seed: int
) -> TruthFile:
    """Masks of at least MIN_AREA_PX in a COCO file, crowds left out: those of the images of one split, or of
    all, and of these `n_masks` drawn by `seed`, or all. Raises BadInput where none is left."""
    coco = read_coco(file)
    images = [one for one in coco.images.values() if split is None or one.extra.get("split") == split]
    meant = {image.id for image in images}
    found = [one for one in coco.annotations() if one.image_id in meant and not one.iscrowd]
    large = [number for number, one in enumerate(found) if area(one.rle) >= MIN_AREA_PX]
    if not large:
        of_split = "" if split is None else f" in split {split!r}"
        raise BadInput(f"{file.name} has no mask of {MIN_AREA_PX} px or more{of_split}: see --split")
    wanted = len(large) if n_masks is None else min(n_masks, len(large))
    drawn = set(np.random.default_rng(seed).choice(large, wanted, replace=False).tolist())
    chosen: dict[int, list[Rle]] = {image.id: [] for image in images}
    beside: dict[int, list[Rle]] = {image.id: [] for image in images}
    for number, one in enumerate(found):
        (chosen if number in drawn else beside)[one.image_id].append(one.rle)
    used = [image for image in images if chosen[image.id]]
    return TruthFile(folder, used, chosen, beside, settings.limits.max_pixels)


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
