"""The state of things, read only: what the page and `maskloop report` show."""

from collections.abc import Iterable
from statistics import median
from typing import Any

from sqlalchemy import ColumnElement, exists, func, select, true
from sqlalchemy.orm import Session

from engine.config import Settings
from engine.pipeline.stages import NAMES
from engine.store.annotations import strokes_of
from engine.store.assignments import Assignment
from engine.store.categories import Category
from engine.store.datasets import Dataset
from engine.store.detector_versions import DetectorVersion
from engine.store.embeddings import Embedding
from engine.store.evaluations import Evaluation
from engine.store.generations import Generation, is_made_a_mask, offered
from engine.store.images import Image, ImageProgress
from engine.store.jobs import Job
from engine.store.masks import Mask, current_masks
from engine.store.model_versions import ActiveModel, Decision, ModelVersion, formerly_active
from engine.store.proposals import Proposal
from engine.store.reviews import last_review_is, states_of
from engine.store.users import User

_FAILED_SHOWN = 10


def datasets(session: Session) -> list[dict[str, Any]]:
    """Every dataset in short, by name."""
    return [dataset_brief(session, row) for row in session.scalars(select(Dataset).order_by(Dataset.name))]


def dataset_brief(session: Session, dataset: Dataset) -> dict[str, Any]:
    """Name, open stage, and how far it is."""
    counts = _image_counts(session, dataset)
    return {
        "id": dataset.id,
        "name": dataset.name,
        "open_stage": dataset.open_stage,
        "n_images": counts["total"],
        "n_done": counts["done"],
        "n_masks": _n_masks(session, dataset.id),
    }


def dataset_view(session: Session, dataset: Dataset) -> dict[str, Any]:
    """The brief, with categories, guideline and the model that serves new images."""
    here = Category.dataset_id == dataset.id
    categories = session.scalars(select(Category).where(here).order_by(Category.export_id))
    active = session.get(ActiveModel, dataset.id)
    model = None if active is None else session.get_one(ModelVersion, active.model_version_id)
    return dataset_brief(session, dataset) | {
        "categories": [{"id": c.id, "name": c.name, "retired": c.retired_at is not None} for c in categories],
        "guideline": str(dataset.settings.get("guideline", "")),
        "model": None if model is None else _model_view(model),
    }


def assignment_view(session: Session, assignment: Assignment) -> dict[str, Any]:
    """What the page needs to work on the image: size, address, model version, and the masks there are."""
    image = session.get_one(Image, assignment.image_id)
    dataset = session.get_one(Dataset, image.dataset_id)
    counts = _image_counts(session, dataset)
    pair = (Embedding.image_id == image.id) & (Embedding.model_version_id == assignment.model_version_id)
    return {
        "id": assignment.id,
        "stage": assignment.stage,
        "state": assignment.state,
        "lease_until": assignment.lease_until,
        "image": {
            "id": image.id,
            "width": image.width,
            "height": image.height,
            "name": image.original_name,
            "url": f"/api/v1/images/{image.id}/pixels",
        },
        "model": _model_view(session.get_one(ModelVersion, assignment.model_version_id)),
        "embedding_ready": session.scalar(select(Embedding.id).where(pair)) is not None,
        "masks": image_masks(session, image.id),
        "order": {"position": counts["done"] + counts["skipped"] + 1, "total": counts["total"]},
        "proposals": _proposals(session, image, assignment),
        "prefill": _prefill(session, assignment),
    }


def _proposals(session: Session, image: Image, assignment: Assignment) -> list[dict[str, Any]]:
    """What was prefilled, the highest score first, and what the person said of it."""
    lent = assignment.image_id, assignment.model_version_id, assignment.stage
    states = states_of(session, *lent)
    return [
        {
            "id": row.id,
            "segmentation": {"size": [image.height, image.width], "counts": row.counts},
            "bbox": row.bbox_xywh,
            "area": row.area,
            "score": row.score,
            "predicted_iou": row.predicted_iou,
            "stability_score": row.stability_score,
            "prompts": row.prompts,
            "chosen": row.chosen,
            "state": states[row.id],
        }
        for row in session.scalars(offered(*lent))
    ]


def _prefill(session: Session, assignment: Assignment) -> dict[str, Any] | None:
    """The detector behind the proposals and from which score on it prefills; None where there is none."""
    run = {"image_id": assignment.image_id, "model_version_id": assignment.model_version_id}
    here = select(DetectorVersion).join(Generation, Generation.detector_version_id == DetectorVersion.id)
    mine = here.where(*(getattr(Generation, key) == value for key, value in run.items()))
    detector = session.scalar(
        mine.where(Generation.stage == assignment.stage).order_by(Generation.id.desc()).limit(1)
    )
    if detector is None:
        return None
    return {
        "threshold": detector.threshold,
        "detector_version": detector.name,
        "false_prefill_rate": detector.false_prefill_rate,
    }


def image_masks(session: Session, image_id: int) -> list[dict[str, Any]]:
    """The current masks of an image, oldest first."""
    current = select(Mask).join(current_masks, current_masks.c.mask_id == Mask.id)
    rows = session.scalars(current.where(Mask.image_id == image_id).order_by(Mask.id)).all()
    strokes = strokes_of(session, [mask.annotation_id for mask in rows])
    return [_mask_view(session, mask, strokes.get(mask.annotation_id, [])) for mask in rows]


def mask_view(session: Session, mask: Mask) -> dict[str, Any]:
    """One mask with its provenance, as the page shows it."""
    return _mask_view(session, mask, strokes_of(session, [mask.annotation_id]).get(mask.annotation_id, []))


def _mask_view(session: Session, mask: Mask, strokes: list[Any]) -> dict[str, Any]:
    author = None if mask.author_id is None else session.get_one(User, mask.author_id).name
    version_id = mask.model_version_id
    version = None if version_id is None else session.get_one(ModelVersion, version_id).name
    return {
        "id": mask.id,
        "segmentation": {"size": [mask.height, mask.width], "counts": mask.counts},
        "bbox": mask.bbox_xywh,
        "area": mask.area,
        "stage": mask.stage,
        "source": mask.source,
        "predicted_iou": mask.predicted_iou,
        "stability_score": mask.stability_score,
        "category_id": mask.category_id,
        "author": author,
        "model_version": version,
        "prompts": mask.prompts,
        "chosen": mask.chosen,
        "strokes": strokes,
        "second_opinion": mask.second_opinion,
        "proposal_id": mask.proposal_id,
        "created_at": mask.created_at,
    }


def progress(session: Session, settings: Settings, dataset: Dataset) -> dict[str, Any]:
    """The progress page: counts, time and clicks per mask, a row per version, jobs that need a person."""
    counts = _image_counts(session, dataset)
    effort = _effort(session, dataset.id)
    n_masks = _n_masks(session, dataset.id)
    annotated = session.scalar(
        select(func.count(current_masks.c.image_id.distinct())).where(
            current_masks.c.dataset_id == dataset.id
        )
    )
    held_out = _held_out(session, dataset.id)
    return {
        "dataset": dataset.name,
        "stage": dataset.open_stage,
        "images": counts,
        "masks": n_masks,
        "masks_per_image": n_masks / annotated if annotated else None,
        "active_seconds_per_mask": _median(row["seconds"] for row in effort),
        "clicks_per_mask": _mean(row["n_clicks"] for row in effort),
        "by_model_version": _by_version(session, dataset, effort),
        "by_stage": [_stage_line(session, dataset, name) for name in NAMES],
        "jobs": _job_counts(session, dataset.id),
        "failed_jobs": _failed_jobs(session, dataset.id),
        "held_out_masks": held_out,
        "held_out_needed": settings.train.min_holdout_masks,
        "note": _note(held_out, settings),
    }


def _stage_line(session: Session, dataset: Dataset, stage: str) -> dict[str, Any]:
    """One stage: images done, current masks, and what became of the proposals that people judged."""
    n_images = _n_images(session, dataset.id, _is_done_in(stage))
    masks = select(func.count()).select_from(Mask).join(current_masks, current_masks.c.mask_id == Mask.id)
    n_masks = session.scalar(masks.where(Mask.dataset_id == dataset.id, Mask.stage == stage)) or 0
    fates = _fates(session, dataset.id) if stage == "semi_automatic" else {}
    n_judged = sum(fates.values())
    return {
        "stage": stage,
        "images": n_images,
        "masks": n_masks,
        "masks_per_image": n_masks / n_images if n_images else None,
        "prefilled": n_judged,
        "share_kept": fates["kept"] / n_judged if n_judged else None,
        "share_rejected": fates["rejected"] / n_judged if n_judged else None,
        "detector": _detector_line(session, dataset.id) if stage == "semi_automatic" else None,
    }


def _fates(session: Session, dataset_id: int) -> dict[str, int]:
    """How many proposals of stage 2 were kept, corrected and rejected, whose image was submitted since."""
    submitted = exists().where(
        Assignment.image_id == Proposal.image_id,
        Assignment.stage == Proposal.stage,
        Assignment.state == "submitted",
    )
    here = (Image.dataset_id == dataset_id) & (Proposal.stage == "semi_automatic")
    count = select(func.count()).select_from(Proposal).join(Image, Image.id == Proposal.image_id)
    became = {
        "kept": last_review_is("keep"),
        "corrected": is_made_a_mask("human"),
        "rejected": last_review_is("reject"),
    }
    return {fate: session.scalar(count.where(here, submitted, said)) or 0 for fate, said in became.items()}


def _detector_line(session: Session, dataset_id: int) -> dict[str, Any] | None:
    """The newest detector and how well it measured on held-out images."""
    mine = select(DetectorVersion).where(DetectorVersion.dataset_id == dataset_id)
    row = session.scalar(mine.order_by(DetectorVersion.id.desc()).limit(1))
    if row is None:
        return None
    told = (
        "average_recall",
        "precision_at_threshold",
        "recall_at_threshold",
        "false_share",
        "reason",
        "n_images",
    )
    return {
        "name": row.name,
        "model_version": session.get_one(ModelVersion, row.model_version_id).name,
        "threshold": row.threshold,
        "false_prefill_rate": row.false_prefill_rate,
        "untrained_average_recall": row.figures.get("untrained", {}).get("average_recall"),
        "random_average_recall": row.figures.get("random_boxes", {}).get("average_recall"),
    } | {key: row.figures.get(key) for key in told}


def job_list(
    session: Session,
    *,
    dataset_id: int | None = None,
    state: str | None = None,
    kind: str | None = None,
    limit: int = 100,
) -> list[dict[str, Any]]:
    """The newest jobs, newest first; of one dataset, in one state or of one kind if asked."""
    rows = select(Job).order_by(Job.id.desc()).limit(limit)
    if dataset_id is not None:
        rows = rows.where(Job.dataset_id == dataset_id)
    if state is not None:
        rows = rows.where(Job.state == state)
    if kind is not None:
        rows = rows.where(Job.kind == kind)
    return [job_view(job) for job in session.scalars(rows)]


def job_view(job: Job) -> dict[str, Any]:
    """One job with all that is known of it."""
    return {column.key: getattr(job, column.key) for column in Job.__table__.columns}


def _note(held_out: int, settings: Settings) -> str | None:
    needed = settings.train.min_holdout_masks
    if held_out >= needed:
        return None
    return (
        f"Models are retrained and promoted once {needed} masks on held-out images can judge them; "
        f"there are {held_out} so far."
    )


def _model_view(version: ModelVersion) -> dict[str, Any]:
    return {
        "id": version.id,
        "name": version.name,
        "weights_sha256": version.weights_sha256,
        "architecture": version.architecture,
    }


def _image_counts(session: Session, dataset: Dataset) -> dict[str, int]:
    stage = dataset.open_stage or "assisted_manual"
    lent = exists().where(Assignment.image_id == Image.id, Assignment.state == "open")
    return {
        "total": _n_images(session, dataset.id, true()),
        "done": _n_images(session, dataset.id, _is_done_in(stage)),
        "skipped": _n_images(session, dataset.id, _left_as(stage, "skipped")),
        "open": _n_images(session, dataset.id, lent),
    }


def _n_images(session: Session, dataset_id: int, which: ColumnElement[bool]) -> int:
    here = Image.dataset_id == dataset_id
    return session.scalar(select(func.count()).select_from(Image).where(here, which)) or 0


def _is_done_in(stage: str) -> ColumnElement[bool]:
    """Whether the statement's `Image` is through: submitted, or in stage 3 gone over by the model."""
    if stage == "fully_automatic":
        return exists().where(Generation.image_id == Image.id, Generation.stage == stage)
    return _left_as(stage, "done")


def _left_as(stage: str, state: str) -> ColumnElement[bool]:
    return exists().where(
        ImageProgress.image_id == Image.id, ImageProgress.stage == stage, ImageProgress.state == state
    )


def _n_masks(session: Session, dataset_id: int) -> int:
    count = select(func.count()).select_from(current_masks).where(current_masks.c.dataset_id == dataset_id)
    return session.scalar(count) or 0


def _held_out(session: Session, dataset_id: int) -> int:
    count = select(func.count()).select_from(Mask).join(current_masks, current_masks.c.mask_id == Mask.id)
    held_out = (
        (Image.dataset_id == dataset_id)
        & (Image.split == "val")
        & Mask.touched_by_person
        & (Mask.iscrowd == 0)
    )
    return session.scalar(count.join(Image, Image.id == Mask.image_id).where(held_out)) or 0


def _effort(session: Session, dataset_id: int) -> list[dict[str, Any]]:
    """One row per current mask that a person made here: version, image, active seconds, clicks.

    Read from the mask and not from its act: a mask brought back keeps the clicks it was made with.
    """
    rows = (
        select(Mask.model_version_id, Mask.image_id, Mask.active_seconds, Mask.prompts)
        .join(current_masks, current_masks.c.mask_id == Mask.id)
        .where(Mask.dataset_id == dataset_id, Mask.source == "human")
    )
    return [
        {"version_id": version_id, "image_id": image_id, "seconds": seconds, "n_clicks": len(prompts)}
        for version_id, image_id, seconds, prompts in session.execute(rows)
    ]


def _by_version(session: Session, dataset: Dataset, effort: list[dict[str, Any]]) -> list[dict[str, Any]]:
    here = ModelVersion.dataset_id == dataset.id
    active = session.get(ActiveModel, dataset.id)
    active_id = None if active is None else active.model_version_id
    served, views = formerly_active(session, dataset.id), []
    for version in session.scalars(select(ModelVersion).where(here).order_by(ModelVersion.id)):
        mine = [row for row in effort if row["version_id"] == version.id]
        decision = session.scalar(select(Decision).where(Decision.model_version_id == version.id))
        views.append(
            {
                "model_version": version.name,
                "state": _state(version, decision, active_id, served),
                "masks": len(mine),
                "images": len({row["image_id"] for row in mine}),
                "active_seconds_per_mask": _median(row["seconds"] for row in mine),
                "clicks_per_mask": _mean(row["n_clicks"] for row in mine),
                "decided_reason": None if decision is None else decision.reason,
            }
            | _figures(session, version.id)
        )
    return views


def _state(version: ModelVersion, decision: Decision | None, active_id: int | None, served: list[int]) -> str:
    if version.id == active_id:
        return "active"
    if decision is not None and decision.verdict == "refuse":
        return "refused"
    if version.id in served:
        return "retired"
    return "candidate" if decision is None else "warming"


def _figures(session: Session, version_id: int) -> dict[str, Any]:
    """The newest evaluation's figures, or None for each."""
    newest = select(Evaluation.figures).where(Evaluation.model_version_id == version_id)
    figures = session.scalar(newest.order_by(Evaluation.id.desc()).limit(1)) or {}
    miou = figures.get("miou", {})
    return {"miou_1_click": miou.get("1"), "miou_3_clicks": miou.get("3"), "noc_85": figures.get("noc")}


def _job_counts(session: Session, dataset_id: int) -> dict[str, int]:
    here = Job.dataset_id == dataset_id
    states = {
        s: n for s, n in session.execute(select(Job.state, func.count()).where(here).group_by(Job.state))
    }
    return {state: states.get(state, 0) for state in ("queued", "running", "failed")}


def _failed_jobs(session: Session, dataset_id: int) -> list[dict[str, Any]]:
    failed = (Job.dataset_id == dataset_id) & (Job.state == "failed")
    rows = session.scalars(select(Job).where(failed).order_by(Job.id.desc()).limit(_FAILED_SHOWN))
    return [{"id": job.id, "kind": job.kind, "reason": job.reason, "at": job.ended_at} for job in rows]


def _median(values: Iterable[float | None]) -> float | None:
    known = [value for value in values if value is not None]
    return median(known) if known else None


def _mean(values: Iterable[int]) -> float | None:
    known = list(values)
    return sum(known) / len(known) if known else None
