"""Images that are ready to be drawn on, people, and a client that saves masks and keeps a journal of it."""

import threading
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import timedelta
from typing import TypeVar

from sqlalchemy import select
from sqlalchemy.orm import Session

from engine.errors import Unavailable
from engine.pipeline import annotate, assign
from engine.pipeline.annotate import Accept
from engine.store.annotations import Annotation
from engine.store.assignments import Assignment
from engine.store.base import database_now
from engine.store.embeddings import Embedding
from engine.store.images import Image
from engine.store.masks import Mask
from engine.store.model_versions import ActiveModel, ModelVersion
from engine.store.session import Workspace
from tests import factories

STAGE = "assisted_manual"
POINT = {"kind": "point", "x": 2.0, "y": 2.0, "label": 1, "at_ms": 100}
WHOLE_PICTURE = {"size": [6, 8], "counts": "0`1"}


T = TypeVar("T")


def insist(verb: Callable[[], T]) -> T:
    """Tries again while the database is busy, as a page does."""
    while True:
        try:
            return verb()
        except Unavailable:
            time.sleep(0.1)


@dataclass(frozen=True)
class Ground:
    """A dataset whose stage is open, with a model that never runs, embedded images, and annotators."""

    dataset_id: int
    version_id: int
    image_ids: list[int]
    user_ids: list[int]


def break_ground(workspace: Workspace, n_images: int, n_people: int) -> Ground:
    """Writes the rows, a file behind every digest. All images train, so that no round begins by itself."""
    weights, decoder = (workspace.blobs.put(f"{noun} of a drill".encode()) for noun in ("weights", "decoder"))
    with workspace.write() as session:
        dataset = factories.a_dataset(session, open_stage=STAGE)
        version = ModelVersion(dataset_id=dataset.id, name="drill", architecture="tiny", config={})
        version.weights_sha256, version.decoder_sha256 = weights, decoder
        factories.add(session, version)
        session.add(ActiveModel(dataset_id=dataset.id, model_version_id=version.id))
        images = [factories.an_image(workspace, session, dataset.id, n) for n in range(n_images)]
        for image in images:
            _embed(workspace, session, image, version)
        people = [factories.a_user(session, n).id for n in range(n_people)]
        return Ground(dataset.id, version.id, [image.id for image in images], people)


def _embed(workspace: Workspace, session: Session, image: Image, version: ModelVersion) -> None:
    content = f"embedding of {image.id}".encode()
    row = Embedding(image_id=image.id, model_version_id=version.id, dtype="float16", shape=[1])
    row.blob_sha256, row.n_bytes = workspace.blobs.put(content), len(content)
    session.add(row)


def lend(workspace: Workspace, ground: Ground, user_id: int) -> Assignment:
    """The person's next image."""
    with workspace.write() as session:
        lent = assign.next_assignment(session, workspace.settings, ground.dataset_id, user_id)
    assert isinstance(lent, Assignment), lent
    return lent


def act(lent: Assignment, client_id: str) -> Accept:
    """One mask, the whole picture."""
    return Accept(
        assignment_id=lent.id,
        client_id=client_id,
        prompts=[POINT],
        chosen=[0],
        segmentation=WHOLE_PICTURE,
        model_version_id=lent.model_version_id,
    )


def expire(session: Session, assignment_id: int) -> None:
    """The lease has run out."""
    row = session.get_one(Assignment, assignment_id, with_for_update=True)
    row.lease_until = database_now(session) - timedelta(milliseconds=1)


@dataclass
class Journal:
    """What clients were told: client_id -> mask id of every acknowledged save, and when."""

    saved: dict[str, int] = field(default_factory=dict)
    saved_at: list[float] = field(default_factory=list)
    n_refused: int = 0
    troubles: Counter[str] = field(default_factory=Counter)

    def note(self, client_id: str, mask_id: int) -> None:
        """The server said yes."""
        self.saved[client_id] = mask_id
        self.saved_at.append(time.monotonic())

    def first_after(self, moment: float) -> float | None:
        """Seconds from then to the next acknowledged save."""
        later = [at for at in list(self.saved_at) if at >= moment]
        return min(later) - moment if later else None

    def n_not_kept(self, workspace: Workspace) -> int:
        """Acknowledged saves whose act or mask the database does not have, or not as it was told."""
        made = select(Annotation.client_id, Mask.id).join(Mask, Mask.annotation_id == Annotation.id)
        with workspace.read() as session:
            kept = {client_id: mask_id for client_id, mask_id in session.execute(made)}
        return sum(1 for client_id, mask_id in self.saved.items() if kept.get(client_id) != mask_id)


def keep_saving(
    workspace: Workspace, lent: Assignment, journal: Journal, every_s: float, stopped: threading.Event
) -> None:
    """Saves at its pace as the page does: what was not acknowledged is sent again, same client_id."""
    number = 0
    while not stopped.is_set():
        began = time.monotonic()
        client_id = f"drill-{lent.id}-{number:06}"
        try:
            with workspace.write() as session:
                mask, _ = annotate.accept(session, workspace.settings, lent.user_id, act(lent, client_id))
            journal.note(client_id, mask.id)
            number += 1
        except Unavailable as error:
            journal.n_refused += 1
            journal.troubles[str(error)[:80]] += 1
        except Exception as error:
            # The save was not acknowledged, whatever the cause; the drill decides what is allowed.
            journal.troubles[f"{type(error).__name__}: {error}"[:200]] += 1
        stopped.wait(max(0.0, every_s - (time.monotonic() - began)))
