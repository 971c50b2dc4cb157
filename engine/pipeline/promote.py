"""Evaluation -> Decision -> active model: only what measured better on held-out masks may serve."""

from collections.abc import Mapping
from typing import Any

from sqlalchemy import select
from sqlalchemy.orm import Session

from engine.config import Settings
from engine.errors import Conflict, NotFound, Refused
from engine.store.base import utc_now
from engine.store.evaluations import Evaluation
from engine.store.events import record_event
from engine.store.jobs import Job
from engine.store.model_versions import (
    ActiveModel,
    Decision,
    ModelVersion,
    formerly_active,
    roll_back_asked,
    served_before,
)
from engine.store.runner import Work, Write

# Rounding alone moves a repeated run far less; an unchanged model gains exactly 0.
MIN_GAIN = 0.005


def decide(work: Work, *, model_version_id: int, snapshot_id: int) -> Write:
    """Compares the candidate with the active version on one held-out snapshot; returns the verdict's write.

    Both must have been evaluated there by one protocol; Conflict otherwise.
    """
    settings = work.workspace.settings

    def write(session: Session) -> dict[str, Any]:
        version = session.get(ModelVersion, model_version_id)
        if version is None:
            raise NotFound(f"no model version {model_version_id}")
        active = session.get(ActiveModel, version.dataset_id)
        if active is None:
            raise Conflict("the dataset has no active model to compare with")
        candidate = _figures(session, model_version_id, snapshot_id)
        present = _figures(session, active.model_version_id, snapshot_id)
        if candidate["protocol_sha256"] != present["protocol_sha256"]:
            raise Conflict("the two versions were evaluated by different protocols: evaluate both again")
        word, reason = verdict(candidate, present, settings)
        figures = {"candidate": candidate, "active": present, "active_id": active.model_version_id}
        if session.scalar(select(Decision.id).where(Decision.model_version_id == version.id)) is None:
            row = Decision(model_version_id=version.id, verdict=word, reason=reason, figures=figures)
            session.add(row)
            record_event(
                session, f"model.{word}d", dataset_id=version.dataset_id, subject_id=version.id, reason=reason
            )
        return {"verdict": word, "reason": reason}

    return write


def verdict(candidate: Mapping[str, Any], active: Mapping[str, Any], settings: Settings) -> tuple[str, str]:
    """("promote" | "refuse", the reason in a sentence) for two sets of figures on the same masks.

    Better means: mean IoU over the asked numbers of clicks higher by MIN_GAIN, and at none of them lower by
    it. Clicks to the target are told and decide nothing: the masks were drawn with the active model's help,
    so it makes them again by the same clicks. Too few held-out masks decide nothing, so they refuse.
    """
    n_masks, needed = candidate["n_masks"], settings.train.min_holdout_masks
    if n_masks < needed:
        return "refuse", f"only {n_masks} held-out masks were there to judge by; {needed} are needed"
    gains = {n: candidate["miou"][n] - active["miou"][n] for n in active["miou"]}
    figures = (
        f"IoU {_mean_iou(active):.3f} -> {_mean_iou(candidate):.3f}, "
        f"clicks {active['noc']:.2f} -> {candidate['noc']:.2f}"
    )
    if _mean_iou(candidate) - _mean_iou(active) < MIN_GAIN:
        return "refuse", f"not better on {n_masks} held-out masks: {figures}"
    worst = min(gains, key=gains.__getitem__)
    if gains[worst] <= -MIN_GAIN:
        return "refuse", f"worse after {worst} clicks on {n_masks} held-out masks: {figures}"
    return "promote", f"better on {n_masks} held-out masks: {figures}"


def activate(work: Work, *, model_version_id: int, expected_id: int | None = None) -> Write:
    """Moves the dataset's pointer to the version; leases keep the one they began with.

    With `expected_id` the pointer moves only from there (compare and set), Conflict otherwise.
    """

    def write(session: Session) -> dict[str, Any]:
        version = session.get(ModelVersion, model_version_id)
        if version is None:
            raise NotFound(f"no model version {model_version_id}")
        active = session.get(ActiveModel, version.dataset_id, with_for_update=True)
        if active is None:
            raise Conflict("the dataset has no active model")
        before = active.model_version_id
        if expected_id is not None and before != expected_id:
            raise Conflict(f"model version {before} became active meanwhile; evaluate against it")
        asked = roll_back_asked(session, version.dataset_id)
        if expected_id is not None and asked is not None and asked.subject_id != version.id:
            raise Conflict(f"the dataset is going back to model version {asked.subject_id}: nothing switched")
        active.model_version_id, active.activated_at = version.id, utc_now()
        record_event(
            session, "model.activated", dataset_id=version.dataset_id, subject_id=version.id, before=before
        )
        return {"active": version.name}

    return write


def roll_back(
    session: Session, dataset_id: int, name: str | None = None, actor_id: int | None = None
) -> ModelVersion:
    """Writes down that the version that served before, or the one named, is to serve again; returns it.

    The loop embeds the next images with it and then switches; asking twice changes nothing. Conflict when
    there is none to go back to or it serves already, Refused for one that never served.
    """
    # The lock: whoever switches or collects now is seen, whoever does later sees this wish.
    active = session.get(ActiveModel, dataset_id, with_for_update=True)
    line = served_before(session, dataset_id)
    if active is None or (name is None and not line):
        raise Conflict("no version served before this one: `--to NAME` goes to one that `models list` shows")
    target = session.get_one(ModelVersion, line[-1]) if not name else version_named(session, dataset_id, name)
    if target.id == active.model_version_id:
        raise Conflict(f"{target.name} serves already")
    if target.id not in formerly_active(session, dataset_id):
        raise Refused(f"{target.name} never served: `maskloop models promote {target.name}` lets it")
    asked = roll_back_asked(session, dataset_id)
    if asked is None or asked.subject_id != target.id:
        whence = {"dataset_id": dataset_id, "actor_id": actor_id, "before": active.model_version_id}
        record_event(session, "model.rollback", subject_id=target.id, **whence)
    return target


def roll_back_jobs(session: Session, dataset_id: int) -> list[Job]:
    """What is done so that the version gone back to can serve: its embeddings, then the switch; [] once it
    serves, or when nobody asked."""
    asked = roll_back_asked(session, dataset_id)
    if asked is None:
        return []
    embeds = (Job.kind == "embed") & Job.unique_key.like(f"embed:%:{asked.subject_id}")
    switch = (Job.kind == "rollback") & Job.unique_key.endswith(f":{asked.id}")
    here = (Job.dataset_id == dataset_id) & (embeds | switch)
    return list(session.scalars(select(Job).where(here).order_by(Job.id)))


def version_named(session: Session, dataset_id: int, name: str) -> ModelVersion:
    """The dataset's model version of that name; NotFound lists what there is."""
    here = ModelVersion.dataset_id == dataset_id
    found = session.scalar(select(ModelVersion).where(here, ModelVersion.name == name))
    if found is None:
        names = session.scalars(select(ModelVersion.name).where(here).order_by(ModelVersion.id))
        raise NotFound(f"no model version named {name!r}; there are: {', '.join(names) or 'none'}")
    return found


def _figures(session: Session, model_version_id: int, snapshot_id: int) -> dict[str, Any]:
    pair = (Evaluation.model_version_id == model_version_id) & (Evaluation.snapshot_id == snapshot_id)
    row = session.scalar(select(Evaluation).where(pair).order_by(Evaluation.id.desc()).limit(1))
    if row is None:
        raise Conflict(f"model version {model_version_id} was not evaluated on snapshot {snapshot_id} yet")
    return row.figures | {"evaluation_id": row.id, "protocol_sha256": row.protocol_sha256}


def _mean_iou(figures: Mapping[str, Any]) -> float:
    values = list(figures["miou"].values())
    return float(sum(values) / len(values))
