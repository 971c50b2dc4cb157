"""The loop as a query: what the database's state calls for becomes job rows. Lose the broker, lose nothing.

masks -> round (two snapshots) -> candidate -> evaluations -> decision -> warm images -> active, and again.
`loop_images` looks after the images next in line, `loop_stages` after what the open stage proposes,
`loop_round` after the round, `loop_switch` after the change of versions, `loop_schedule` after the clock,
`loop_ask` writes the jobs.
"""

from collections.abc import Callable
from datetime import datetime
from importlib import import_module

from sqlalchemy import select
from sqlalchemy.orm import Session

from engine.config import Settings
from engine.pipeline.loop_images import embed_next
from engine.pipeline.loop_round import continue_round, held_out_masks, new_masks, start_round
from engine.pipeline.loop_schedule import ask_collecting, ask_scheduled
from engine.pipeline.loop_stages import prepare_stage
from engine.store.datasets import Dataset
from engine.store.model_versions import ActiveModel
from engine.store.runner import Write

__all__ = ["ARROWS", "arrow", "due", "held_out_masks", "new_masks", "start_round"]

# Kind of job -> the arrow that does it. Imported when first run: only some of them need torch.
ARROWS = {
    "embed": "embed:embed",
    "propose": "propose:propose",
    "snapshot": "snapshot:freeze_round",
    "detector-snapshot": "snapshot:freeze_for_detector",
    "train-detector": "train_detector:train_detector",
    "train": "train:train",
    "evaluate": "evaluate:evaluate",
    "promote": "promote:decide",
    "activate": "promote:activate",
    "rollback": "promote:activate",
    "collect": "collect:collect",
}


def arrow(kind: str) -> Callable[..., Write]:
    """The function behind a kind of job."""
    module, name = ARROWS[kind].split(":")
    found: Callable[..., Write] = getattr(import_module(f"engine.pipeline.{module}"), name)
    return found


def due(session: Session, settings: Settings, now: datetime | None = None) -> int:
    """Asks for every job that is called for now; returns how many are new. Asking twice changes nothing.

    Schedules go by `now`, which is the database's clock unless given.
    """
    n_asked = ask_collecting(session, settings, now)
    for dataset in session.scalars(select(Dataset).order_by(Dataset.id)):
        active = session.get(ActiveModel, dataset.id)
        if active is None:
            continue
        if dataset.open_stage is not None:
            n_asked += embed_next(session, settings, dataset, active.model_version_id, "embed")
            n_asked += prepare_stage(session, settings, dataset, active.model_version_id)
        n_asked += continue_round(session, settings, dataset, active)
        n_asked += ask_scheduled(session, settings, dataset, now)
    return n_asked
