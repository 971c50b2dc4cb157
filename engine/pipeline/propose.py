"""Embedding -> Proposal: masks of one image that nobody asked for; in stage 3 they become masks at once.

Stage 2 of the paper (section 4): a detector's boxes, each masked by the segmenter, for people to judge.
Stage 3: a grid of points; what passes the filters is accepted by the model itself.
"""

import hashlib
import json
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from sqlalchemy import exists, func, select
from sqlalchemy.orm import Session, aliased

from engine.errors import BadInput, NotFound
from engine.geometry.rle import Rle, iou
from engine.modeling.cache import model_on
from engine.modeling.detector import load_detector, propose_boxes
from engine.modeling.proposing import ProposedMask, boxes_meet, masks_of_boxes, masks_of_grid
from engine.pipeline.embedded import embedding_of
from engine.store.annotations import Annotation
from engine.store.detector_versions import DetectorVersion
from engine.store.device_slots import device_slot
from engine.store.events import record_event
from engine.store.generations import Generation, make_masks
from engine.store.images import Image
from engine.store.masks import Mask, current_masks
from engine.store.model_versions import ModelVersion
from engine.store.proposals import Proposal
from engine.store.reviews import last_review_is
from engine.store.runner import Work, Write

AUTOMATIC = "fully_automatic"


class Parents(NamedTuple):
    """What a generation is made of."""

    image: Image
    version: ModelVersion
    detector: DetectorVersion | None


class Region(NamedTuple):
    """Pixels that a person has decided on."""

    bbox_xywh: list[int]
    rle: Rle


def propose(
    work: Work,
    *,
    image_id: int,
    model_version_id: int,
    stage: str,
    config: dict[str, Any],
    detector_version_id: int | None = None,
    first_export_id: int | None = None,
) -> Write:
    """Proposes masks of the image and returns the write of one Generation with its proposals.

    `config` holds the stage's [proposer] settings. With a detector, its confident boxes are masked; without,
    a grid of points is asked. The same image, weights and settings propose once: again changes nothing; in
    stage 2 the same image and weights. `first_export_id` begins the ids reserved for what stage 3 makes of
    this image.
    Raises NotFound for unknown parents, BadInput for a detector of another model.
    """
    parents = _parents(work, image_id, model_version_id, detector_version_id)
    run = {"image_id": image_id, "model_version_id": model_version_id, "stage": stage}
    run["config_sha256"] = config_sha256(config, parents.detector)
    with work.workspace.read() as session:
        is_known = _known(session, run) is not None
    found = [] if is_known else _masks(work, parents, config)
    limit = work.workspace.settings.limits.max_masks_per_image

    def write(session: Session) -> dict[str, Any]:
        # Of two jobs that propose the same at once, the second waits here and finds the first's.
        session.execute(select(Image.id).where(Image.id == image_id).with_for_update())
        known = _known(session, run)
        if known is None:
            known = _keep(session, parents, run, found, config, limit, first_export_id)
        return {"generation": known.id, "n_proposals": known.n_proposals, "n_masks": known.n_masks}

    return write


def config_sha256(config: Mapping[str, Any], detector: DetectorVersion | None) -> str:
    """Digest of the settings that decide what is proposed, the detector and its threshold among them."""
    boxes_of = None if detector is None else [detector.weights_sha256, detector.threshold]
    written = json.dumps({"proposer": dict(config), "boxes_of": boxes_of}, sort_keys=True)
    return hashlib.sha256(written.encode()).hexdigest()


def _parents(work: Work, image_id: int, model_version_id: int, detector_version_id: int | None) -> Parents:
    with work.workspace.read() as session:
        image, version = session.get(Image, image_id), session.get(ModelVersion, model_version_id)
        detector = None
        if detector_version_id is not None:
            detector = session.get(DetectorVersion, detector_version_id)
    if image is None or version is None:
        raise NotFound(f"no image {image_id} or no model version {model_version_id}")
    if detector is None and detector_version_id is not None:
        raise NotFound(f"no detector version {detector_version_id}")
    if detector is not None and detector.model_version_id != model_version_id:
        raise BadInput(f"detector {detector.name} reads embeddings of another model than {version.name}")
    return Parents(image, version, detector)


def _known(session: Session, run: Mapping[str, Any]) -> Generation | None:
    same = dict(run)
    if run["stage"] != AUTOMATIC:
        # People judge one list per image and model: a newer detector must not change it under their hands.
        del same["config_sha256"]
    return session.scalar(select(Generation).filter_by(**same).order_by(Generation.id.desc()).limit(1))


def _masks(work: Work, parents: Parents, config: Mapping[str, Any]) -> list[ProposedMask]:
    workspace, (image, version, detector) = work.workspace, parents
    hw = (image.height, image.width)
    if detector is not None and detector.threshold is None:
        return []
    weights = workspace.blobs.local_path(version.weights_sha256)
    with device_slot(workspace.settings, "propose") as slot, model_on(weights, slot.device) as sam:
        embedding = embedding_of(workspace, sam, image, version)
        if detector is None:
            settings = {name: value for name, value in config.items() if name != "same_object_iou"}
            return masks_of_grid(sam, embedding, hw, settings, work.stop_if_cancelled)
        assert detector.threshold is not None
        network, _ = load_detector(
            workspace.blobs.local_path(detector.weights_sha256), version.weights_sha256
        )
        boxes, scores = propose_boxes(
            network,
            embedding,
            hw,
            sam.config,
            detector.threshold,
            config["max_boxes"],
            config["box_nms_thresh"],
        )
        return masks_of_boxes(sam, embedding, hw, boxes, scores, config, work.stop_if_cancelled)


def _keep(
    session: Session,
    parents: Parents,
    run: Mapping[str, Any],
    found: Sequence[ProposedMask],
    config: Mapping[str, Any],
    limit: int,
    first_export_id: int | None,
) -> Generation:
    """The generation, also of nothing, its proposals, and in stage 3 the masks they become."""
    image = parents.image
    proposals = [_proposal(run, image, mask) for mask in found]
    session.add_all(proposals)
    session.flush()
    accepted = (
        _accepted(session, image, proposals, config["same_object_iou"], limit)
        if run["stage"] == AUTOMATIC
        else []
    )
    make_masks(session, image, accepted, first_export_id)
    generation = Generation(
        **run,
        dataset_id=image.dataset_id,
        detector_version_id=None if parents.detector is None else parents.detector.id,
        n_proposals=len(proposals),
        n_masks=len(accepted),
    )
    session.add(generation)
    session.flush()
    counts = {"n_proposals": generation.n_proposals, "n_masks": generation.n_masks}
    record_event(
        session,
        "image.proposed",
        dataset_id=image.dataset_id,
        subject_id=image.id,
        stage=run["stage"],
        **counts,
    )
    return generation


def _proposal(run: Mapping[str, Any], image: Image, mask: ProposedMask) -> Proposal:
    point = mask.prompt["kind"] == "point"
    return Proposal(
        **run,
        counts=mask.segmentation["counts"],
        area=mask.area,
        bbox_xywh=list(mask.bbox_xywh),
        predicted_iou=mask.predicted_iou,
        stability_score=mask.stability_score,
        crop_box_xywh=[0, 0, image.width, image.height],
        point_coords=[[mask.prompt["x"], mask.prompt["y"]]] if point else [],
        score=mask.score,
        prompts=[mask.prompt],
        chosen=[mask.chosen],
    )


def _accepted(
    session: Session, image: Image, proposals: Sequence[Proposal], same_object_iou: float, limit: int
) -> list[Proposal]:
    """Proposals that become masks: none on what people drew, kept or threw out, and no more than fit."""
    decided = _decided_regions(session, image)
    room = limit - (session.scalar(_n_masks_of_people(image.id)) or 0)
    fresh = [proposal for proposal in proposals if not _is_decided(proposal, image, decided, same_object_iou)]
    # The best come first, and the order in which they were found breaks ties.
    best = sorted(range(len(fresh)), key=lambda index: (-fresh[index].predicted_iou, index))[: max(room, 0)]
    return [fresh[index] for index in sorted(best)]


def _is_decided(proposal: Proposal, image: Image, decided: Sequence[Region], iou_threshold: float) -> bool:
    rle = Rle(size=[image.height, image.width], counts=proposal.counts)
    near = [region for region in decided if boxes_meet(proposal.bbox_xywh, region.bbox_xywh)]
    return any(iou(rle, region.rle) > iou_threshold for region in near)


def _decided_regions(session: Session, image: Image) -> list[Region]:
    columns = Mask.bbox_xywh, Mask.counts
    current = select(*columns).join(current_masks, current_masks.c.mask_id == Mask.id)
    by_people = current.where(Mask.image_id == image.id, ~_untouched())
    followed = aliased(Mask)
    deleted = select(*columns).where(
        Mask.image_id == image.id,
        exists().where(Annotation.act == "delete", Annotation.target_mask_id == Mask.id),
        ~exists().where(followed.supersedes_id == Mask.id),
    )
    rejected = select(Proposal.bbox_xywh, Proposal.counts).where(
        Proposal.image_id == image.id, last_review_is("reject")
    )
    return [
        Region(bbox_xywh, Rle(size=[image.height, image.width], counts=counts))
        for statement in (by_people, deleted, rejected)
        for bbox_xywh, counts in session.execute(statement)
    ]


def _untouched() -> Any:
    """What the model alone accepted: the next generation replaces it."""
    # An imported mask has no stage, and NULL is neither equal nor unequal.
    return (func.coalesce(Mask.stage, "") == AUTOMATIC) & ~Mask.touched_by_person


def _n_masks_of_people(image_id: int) -> Any:
    current = select(func.count()).select_from(Mask).join(current_masks, current_masks.c.mask_id == Mask.id)
    return current.where(Mask.image_id == image_id, ~_untouched())
