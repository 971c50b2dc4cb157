"""What the open stage needs beside embeddings: stage 2 a detector and its proposals, stage 3 every image's.

A detector is due once for each active version and newest training list: `round-N`, or `detector-N`, which is
taken for it where no round was run yet. So a new round gives a new detector, with the refused proposals as
negatives; and what an older one proposed under the same model stays as it is.
"""

import hashlib
import json
from typing import Any

from sqlalchemy import String, cast, exists, func, literal, or_, select
from sqlalchemy.orm import Session

from engine.config import Settings
from engine.pipeline.loop_ask import ask_for
from engine.pipeline.loop_images import head_of_queue
from engine.pipeline.stages import Stage, queue_of, stage_of
from engine.store.datasets import Dataset, take_export_ids
from engine.store.detector_versions import DetectorVersion
from engine.store.embeddings import Embedding
from engine.store.generations import Generation
from engine.store.images import Image
from engine.store.jobs import Job, n_waiting
from engine.store.masks import Mask, current_masks
from engine.store.snapshots import Snapshot

# Asked in one turn, so that a turn stays short; the next one comes in a moment.
MOST_PER_TURN = 200


def prepare_stage(session: Session, settings: Settings, dataset: Dataset, version_id: int) -> int:
    """Asks for what the open stage needs of the version that serves; returns how many jobs are new."""
    stage = stage_of(settings, dataset)
    if stage is not None and stage.proposes == "grid":
        return _propose_everywhere(session, settings, dataset, stage, version_id)
    return warm_stage(session, settings, dataset, version_id)


def warm_stage(session: Session, settings: Settings, dataset: Dataset, version_id: int) -> int:
    """The same as far as people wait for it, also for a version that is to serve soon: its detector, and its
    proposals of the next images. Bulk is not made beforehand."""
    stage = stage_of(settings, dataset)
    if stage is None or stage.proposes != "detector":
        return 0
    n_asked = _ask_for_detector(session, settings, dataset, version_id)
    return n_asked + _propose_next(session, settings, dataset, stage, version_id)


def ask_to_generate(
    session: Session,
    settings: Settings,
    dataset: Dataset,
    stage: Stage,
    version_id: int,
    image_ids: list[int],
    priority: str = "propose-bulk",
) -> list[int]:
    """Asks for the stage's proposals of these images by that version; the ids of the jobs that are new. One
    that was asked before and failed is left to a person's retry."""
    detector = newest_detector(session, version_id) if stage.proposes == "detector" else None
    shared: dict[str, Any] = {
        "model_version_id": version_id,
        "stage": stage.name,
        "config": stage.proposer,
        "detector_version_id": None if detector is None else detector.id,
    }
    before, after = _key_around(stage, detector, version_id)
    most = _most_masks(settings, stage)
    # Reserved here, in the images' order, so that ids do not depend on which worker ends first.
    reserved = take_export_ids(session, dataset.id, "mask", most * len(image_ids))[::most] if most else None
    keys = []
    for number, image_id in enumerate(image_ids):
        key = f"{before}{image_id}{after}"
        arguments = {"image_id": image_id} | shared
        if reserved is not None:
            arguments["first_export_id"] = reserved[number]
        short = key.removeprefix("propose:")
        if ask_for(session, settings, "propose", dataset.id, arguments, short, priority):
            keys.append(key)
    return list(session.scalars(select(Job.id).where(Job.unique_key.in_(keys)).order_by(Job.id)))


def _most_masks(settings: Settings, stage: Stage) -> int:
    """The most masks that one image can get at once; 0 where people accept, whose order is their own."""
    if stage.accepts != "model":
        return 0
    n_candidates = 3 * int(stage.proposer["points_per_side"]) ** 2
    return min(n_candidates, settings.limits.max_masks_per_image)


def images_to_generate(
    session: Session,
    dataset: Dataset,
    stage: Stage,
    version_id: int,
    *,
    again: bool = False,
    limit: int | None = None,
) -> list[int]:
    """Images without a generation of the stage, in its order and up to its share; with `again` also those
    whose generations are all of other versions or settings. Images whose job waits, runs or failed are not
    among them."""
    before, after = _key_around(stage, None, version_id)
    asked = exists().where(Job.unique_key == literal(before) + cast(Image.id, String) + after)
    generated = exists().where(Generation.image_id == Image.id, Generation.stage == stage.name)
    taken = asked if again else asked | generated
    queue, here = queue_of(dataset, stage), Image.dataset_id == dataset.id
    if stage.image_share < 1:
        n_images = session.scalar(select(func.count()).select_from(Image).where(here)) or 0
        n_taken = session.scalar(select(func.count()).select_from(Image).where(here, taken)) or 0
        left = max(queue.share_of(n_images) - n_taken, 0)
        limit = left if limit is None else min(limit, left)
    return list(session.scalars(queue.ids(here, ~taken).limit(limit)))


def newest_detector(session: Session, version_id: int) -> DetectorVersion | None:
    """The detector that reads that version's embeddings, the last one trained."""
    mine = select(DetectorVersion).where(DetectorVersion.model_version_id == version_id)
    return session.scalar(mine.order_by(DetectorVersion.id.desc()).limit(1))


def _ask_for_detector(session: Session, settings: Settings, dataset: Dataset, version_id: int) -> int:
    snapshot = _newest_training(session, dataset.id)
    if snapshot is None:
        if not _has_masks_to_learn_from(session, dataset.id):
            return 0
        arguments: dict[str, Any] = {"dataset_id": dataset.id}
        return ask_for(session, settings, "detector-snapshot", dataset.id, arguments, str(dataset.id))
    arguments = {"dataset_id": dataset.id, "model_version_id": version_id, "snapshot_id": snapshot.id}
    key = f"{snapshot.id}:{version_id}"
    return ask_for(session, settings, "train-detector", dataset.id, arguments, key)


def _newest_training(session: Session, dataset_id: int) -> Snapshot | None:
    """The last round's list, or the one taken for the detector; what people took by hand starts nothing."""
    named = or_(Snapshot.name.like("round-%"), Snapshot.name.like("detector-%"))
    here = (Snapshot.dataset_id == dataset_id) & (Snapshot.kind == "training") & named
    return session.scalar(select(Snapshot).where(here).order_by(Snapshot.id.desc()).limit(1))


def _has_masks_to_learn_from(session: Session, dataset_id: int) -> bool:
    masks = select(Mask.id).join(current_masks, current_masks.c.mask_id == Mask.id)
    here = (Image.dataset_id == dataset_id) & (Image.split == "train")
    mine = here & Mask.touched_by_person & (Mask.iscrowd == 0)
    return session.scalar(masks.join(Image, Image.id == Mask.image_id).where(mine).limit(1)) is not None


def _propose_next(
    session: Session, settings: Settings, dataset: Dataset, stage: Stage, version_id: int
) -> int:
    """Proposals of the images at the head of the queue, once they are embedded."""
    if newest_detector(session, version_id) is None:
        return 0
    head = head_of_queue(session, settings, dataset, version_id)
    proposed = exists().where(
        Generation.image_id == Embedding.image_id,
        Generation.model_version_id == version_id,
        Generation.stage == stage.name,
    )
    embedded = select(Embedding.image_id).where(
        Embedding.model_version_id == version_id, Embedding.image_id.in_(head), ~proposed
    )
    missing = set(session.scalars(embedded))
    ids = [image_id for image_id in head if image_id in missing]
    return len(ask_to_generate(session, settings, dataset, stage, version_id, ids, "propose"))


def _propose_everywhere(
    session: Session, settings: Settings, dataset: Dataset, stage: Stage, version_id: int
) -> int:
    """Bulk, and in portions: what waits already must not grow without end."""
    room = min(settings.worker.max_waiting - n_waiting(session), MOST_PER_TURN)
    if room <= 0:
        return 0
    ids = images_to_generate(session, dataset, stage, version_id, limit=room)
    return len(ask_to_generate(session, settings, dataset, stage, version_id, ids))


def _key_around(stage: Stage, detector: DetectorVersion | None, version_id: int) -> tuple[str, str]:
    """What stands before and after an image's id in the key of its job."""
    settings = {"proposer": stage.proposer, "detector": None if detector is None else detector.id}
    digest = hashlib.sha256(json.dumps(settings, sort_keys=True).encode()).hexdigest()[:12]
    return "propose:", f":{stage.name}:{digest}:{version_id}"
