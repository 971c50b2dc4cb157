"""What most verbs begin with: the home's workspace, and the dataset that is meant."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from engine.errors import BadInput, NotFound

if TYPE_CHECKING:
    from sqlalchemy.orm import Session

    from engine.config import Settings
    from engine.store.datasets import Dataset
    from engine.store.session import Workspace

Overrides = Mapping[str, Mapping[str, object]]


@contextmanager
def opened(
    home: Path | None, overrides: Overrides | None = None, *, begin: bool = False
) -> Iterator[Workspace]:
    """The workspace of a home; a verb that may `begin` one sets up a home in which there is nothing yet."""
    from engine.config import load_settings
    from engine.store.session import open_workspace

    settings = load_settings(home, overrides)
    if begin:
        begin_home(settings)
    workspace = open_workspace(settings)
    try:
        yield workspace
    finally:
        workspace.close()


def begin_home(settings: Settings) -> None:
    """Makes database and tables in a brand-new home; anything older is upgraded only when it is asked for."""
    from engine.store.session import upgrade

    found = {path.name for path in settings.home.iterdir()} if settings.home.is_dir() else set()
    if settings.database.url.startswith("sqlite") and found <= {"config.toml", "stages"}:
        upgrade(settings)


def dataset_meant(session: Session, name: str | None) -> Dataset:
    """The dataset of that name, or the only one; NotFound or BadInput says which there are."""
    from engine.pipeline import report
    from engine.store.datasets import dataset_named

    if name is not None:
        return dataset_named(session, name)
    names = [brief["name"] for brief in report.datasets(session)]
    if not names:
        raise NotFound("there is no dataset yet: `maskloop images import DIR --dataset NAME` makes one")
    if len(names) > 1:
        raise BadInput(f"there are several datasets: name one by --dataset ({', '.join(names)})")
    return dataset_named(session, names[0])
