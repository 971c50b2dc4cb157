"""A generation: one proposer run over one image, kept also when it found nothing."""

from collections.abc import Sequence
from datetime import datetime

from sqlalchemy import ColumnElement, ForeignKey, Index, Select, UniqueConstraint, exists, select
from sqlalchemy.orm import Mapped, Session, aliased, mapped_column

from engine.store.annotations import Annotation
from engine.store.base import Base, RowId, Sha256, utc_now
from engine.store.datasets import take_export_ids
from engine.store.images import Image
from engine.store.masks import Mask
from engine.store.proposals import Proposal


class Generation(Base):
    """The same image, weights, stage and settings are run once. The newest of an image and stage counts."""

    __tablename__ = "generations"
    __table_args__ = (
        UniqueConstraint("image_id", "model_version_id", "stage", "config_sha256"),
        Index("ix_generations_image_id_stage_id", "image_id", "stage", "id"),
    )
    id: Mapped[RowId]
    dataset_id: Mapped[int] = mapped_column(ForeignKey("datasets.id"))
    image_id: Mapped[int] = mapped_column(ForeignKey("images.id"))
    model_version_id: Mapped[int] = mapped_column(ForeignKey("model_versions.id"))
    # The boxes' proposer in stage 2; a grid of points needs none.
    detector_version_id: Mapped[int | None] = mapped_column(ForeignKey("detector_versions.id"))
    stage: Mapped[str]
    # Digest of the proposer's settings, the detector's weights among them.
    config_sha256: Mapped[Sha256]
    n_proposals: Mapped[int]
    # Masks accepted by the model itself (stage 3); 0 where a person decides.
    n_masks: Mapped[int]
    created_at: Mapped[datetime] = mapped_column(default=utc_now)


def offered(image_id: int, model_version_id: int, stage: str) -> Select[Proposal]:
    """What the newest generation of that image, version and stage proposed, the best first."""
    run = (
        (Generation.image_id == image_id)
        & (Generation.model_version_id == model_version_id)
        & (Generation.stage == stage)
    )
    newest = select(Generation.config_sha256).where(run).order_by(Generation.id.desc()).limit(1)
    mine = (
        (Proposal.image_id == image_id)
        & (Proposal.model_version_id == model_version_id)
        & (Proposal.stage == stage)
        & (Proposal.config_sha256 == newest.scalar_subquery())
    )
    return select(Proposal).where(mine).order_by(Proposal.score.desc(), Proposal.id)


def is_made_a_mask(source: str) -> ColumnElement[bool]:
    """Whether the statement's `Proposal` became a mask of that source: model (kept) or human (corrected).

    A correction that was deleted again, and not brought back, leaves the proposal as it was; of a correction
    that was itself corrected, the newest speaks.
    """
    newer = aliased(Mask)
    corrected = exists().where(newer.supersedes_id == Mask.id, newer.proposal_id == Proposal.id)
    deleted = exists().where(Annotation.act == "delete", Annotation.target_mask_id == Mask.id)
    made = (Mask.proposal_id == Proposal.id) & (Mask.source == source) & ~Mask.second_opinion
    return exists().where(made, ~deleted, ~corrected)


def make_masks(
    session: Session, image: Image, proposals: Sequence[Proposal], first_export_id: int | None = None
) -> list[Mask]:
    """The proposals of one image as masks of the model, just as they were proposed: accepted by the model
    itself in stage 3, let stand by a person, whose review says so, in stage 2. Their export ids are the next
    free ones, or count from `first_export_id`, reserved beforehand."""
    if first_export_id is None:
        first_export_id = take_export_ids(session, image.dataset_id, "mask", len(proposals)).start
    masks = [
        Mask(
            dataset_id=image.dataset_id,
            image_id=image.id,
            proposal_id=proposal.id,
            export_id=export_id,
            height=image.height,
            width=image.width,
            counts=proposal.counts,
            area=proposal.area,
            bbox_xywh=proposal.bbox_xywh,
            stage=proposal.stage,
            source="model",
            touched_by_person=False,
            predicted_iou=proposal.predicted_iou,
            stability_score=proposal.stability_score,
            crop_box_xywh=proposal.crop_box_xywh,
            prompts=proposal.prompts,
            chosen=proposal.chosen,
            model_version_id=proposal.model_version_id,
        )
        for export_id, proposal in enumerate(proposals, first_export_id)
    ]
    session.add_all(masks)
    session.flush()
    return masks
