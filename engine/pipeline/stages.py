"""The stages of the data engine as data (paper section 4): one TOML file each in configs/stages."""

from collections.abc import Mapping
from dataclasses import dataclass, field, fields, replace
from typing import Any

from sqlalchemy.orm import Session

from engine.config import Settings, configs_folder, read_toml
from engine.errors import BadInput, Conflict
from engine.modeling.sam_config import CONFIGS
from engine.store.datasets import Dataset
from engine.store.events import record_event
from engine.store.image_queue import ImageQueue

NAMES = ("assisted_manual", "semi_automatic", "fully_automatic")
PROPOSERS = ("person", "detector", "grid")
ACCEPTORS = ("person", "model")
ORDERS = ("imported", "random", "need", "prominence")


@dataclass(frozen=True)
class Stage:
    """Who proposes, who accepts, which images in which order, when to retrain and what comes next."""

    name: str
    title: str
    proposes: str
    accepts: str
    image_share: float
    order: str
    move_on_after_s: int
    retrain_after_new_masks: int
    architecture: str
    next_stage: str
    proposer: dict[str, Any] = field(default_factory=dict)


def stage_name(text: str) -> str:
    """`assisted-manual` or `assisted_manual`, as the tables write it; BadInput lists the names."""
    name = text.replace("-", "_")
    if name not in NAMES:
        raise BadInput(f"no stage named {text!r}: the stages are {', '.join(NAMES)}")
    return name


def read_stage(settings: Settings, name: str, overrides: Mapping[str, Any] | None = None) -> Stage:
    """The stage of HOME/stages if there is one, else the packaged one, with `overrides` on top.

    Raises BadInput with the file's name for a missing, unknown or impossible key.
    """
    own = settings.home / "stages" / f"{name}.toml"
    path = own if own.is_file() else configs_folder() / "stages" / f"{name}.toml"
    written: dict[str, Any] = read_toml(path)
    names = {field.name for field in fields(Stage)} - {"name"}
    if set(written) != names:
        raise BadInput(f"{path} must hold exactly these keys: {', '.join(sorted(names))}")
    stage = Stage(name=name, **written)
    changed = dict(overrides or {})
    proposer = stage.proposer | changed.pop("proposer", {})
    if unknown := (set(changed) - names) | (set(proposer) - set(stage.proposer)):
        raise BadInput(f"stage {name} has no {', '.join(sorted(unknown))}")
    stage = replace(stage, **changed, proposer=proposer)
    _check(stage, str(path))
    return stage


def stage_of(settings: Settings, dataset: Dataset, name: str | None = None) -> Stage | None:
    """The dataset's open stage, or the one named, as its lead has set it; None when none is open."""
    name = name or dataset.open_stage
    if name is None:
        return None
    return read_stage(settings, name, dataset.settings.get("stages", {}).get(name))


def queue_of(dataset: Dataset, stage: Stage) -> ImageQueue:
    """The images the stage hands out, in its order."""
    earlier = NAMES[: NAMES.index(stage.name)]
    return ImageQueue(dataset.id, stage.name, stage.order, stage.image_share, earlier)


def override_stage(session: Session, settings: Settings, dataset_id: int, name: str, **changed: Any) -> None:
    """Changes keys of a stage for one dataset; BadInput for a key or value it cannot have."""
    dataset = session.get_one(Dataset, dataset_id, with_for_update=True)
    known = dataset.settings.get("stages", {})
    mine = known.get(name, {}) | changed
    if "proposer" in changed:
        mine["proposer"] = known.get(name, {}).get("proposer", {}) | changed["proposer"]
    read_stage(settings, name, mine)
    dataset.settings = dataset.settings | {"stages": known | {name: mine}}


def _check(stage: Stage, where: str) -> None:
    for key, allowed in (("proposes", PROPOSERS), ("accepts", ACCEPTORS), ("order", ORDERS)):
        if getattr(stage, key) not in allowed:
            raise BadInput(f"{where}: {key} must be one of {', '.join(allowed)}")
    if not 0 < stage.image_share <= 1:
        raise BadInput(f"{where}: image_share must lie above 0 and up to 1")
    if stage.architecture not in ("", *CONFIGS):
        raise BadInput(f"{where}: architecture must be empty or one of {', '.join(CONFIGS)}")
    if stage.next_stage not in ("", *NAMES):
        raise BadInput(f"{where}: next_stage must be empty or one of {', '.join(NAMES)}")


def open_stage(session: Session, dataset_id: int, name: str) -> None:
    """Hands out the dataset's images in that stage from now on; opening the open one changes nothing."""
    dataset = session.get_one(Dataset, dataset_id, with_for_update=True)
    if dataset.open_stage != name:
        record_event(session, "stage.opened", dataset_id=dataset_id, stage=name, before=dataset.open_stage)
        dataset.open_stage = name


def close_stage(session: Session, dataset_id: int, name: str) -> None:
    """Hands out no more images; leases that run may be finished. Conflict when that stage is not open."""
    dataset = session.get_one(Dataset, dataset_id, with_for_update=True)
    if dataset.open_stage != name:
        there = f"{dataset.open_stage} is" if dataset.open_stage else "no stage is"
        raise Conflict(f"stage {name} of {dataset.name} is not open: {there}")
    record_event(session, "stage.closed", dataset_id=dataset_id, stage=name)
    dataset.open_stage = None
