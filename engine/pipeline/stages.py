"""The stages of the data engine as data (paper section 4): one TOML file each in configs/stages."""

from dataclasses import dataclass, fields
from typing import Any

from sqlalchemy.orm import Session

from engine.config import configs_folder, read_toml
from engine.errors import BadInput, Conflict, Refused
from engine.store.datasets import Dataset
from engine.store.events import record_event

NAMES = ("assisted_manual", "semi_automatic", "fully_automatic")


@dataclass(frozen=True)
class Stage:
    """Who proposes, who accepts (person or model), on which share of the images."""

    title: str
    proposes: str
    accepts: str
    image_share: float
    move_on_after_s: int


def stage_name(text: str) -> str:
    """`assisted-manual` or `assisted_manual`, as the tables write it; BadInput lists the names."""
    name = text.replace("-", "_")
    if name not in NAMES:
        raise BadInput(f"no stage named {text!r}: the stages are {', '.join(NAMES)}")
    return name


def read_stage(name: str) -> Stage:
    """The stage's settings; Refused when this version cannot run it yet."""
    path = configs_folder() / "stages" / f"{name}.toml"
    if not path.is_file():
        raise Refused(f"stage {name} cannot be opened in this version: open assisted-manual")
    written: dict[str, Any] = read_toml(path)
    names = {field.name for field in fields(Stage)}
    if set(written) != names:
        raise BadInput(f"{path.name} must hold exactly these keys: {', '.join(sorted(names))}")
    return Stage(**written)


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
