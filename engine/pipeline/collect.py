"""Old embeddings and files that nothing names -> room: what can be computed again goes, identity stays.

An annotation keeps the digest of the embedding it was made on; embedding the image again gives it back.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass
from datetime import timedelta

import numpy as np
from numpy.typing import NDArray
from sqlalchemy import ColumnElement, String, and_, cast, delete, exists, func, or_, select, text, update
from sqlalchemy.orm import Session

from engine.config import Settings
from engine.store.assignments import Assignment
from engine.store.base import database_now
from engine.store.blobs import DIGEST, StoredFile
from engine.store.embeddings import Embedding
from engine.store.events import Event
from engine.store.integrity import blob_columns
from engine.store.jobs import Job
from engine.store.model_versions import ActiveModel, Decision, ModelVersion, formerly_active, roll_back_asked
from engine.store.runner import Work, Write
from engine.store.session import Workspace

# Rows forgotten in one transaction, and files removed under one lock: writers wait no longer than that.
_ROWS, _FILES = 500, 50
# A lease taken just before a switch may still be on its way into the database.
_JUST_LEFT = timedelta(minutes=1)
# Somebody whose lease ran out may go on drawing; what comes in is kept as a second opinion.
_STILL_DRAWING = timedelta(hours=1)
_SIXTEEN = 16

Check = Callable[[], None]


@dataclass
class Collected:
    """What went, or would go: embeddings (rows), their files, and files that no row names; bytes of both."""

    n_embeddings: int = 0
    n_files: int = 0
    n_bytes: int = 0
    n_orphans: int = 0
    n_orphan_bytes: int = 0


def collect(work: Work) -> Write:
    """The scheduled collecting. Its steps are short transactions of their own: each is right by itself."""
    collected = carry_out(work.workspace, work.stop_if_cancelled)
    return lambda _session: asdict(collected)


def carry_out(workspace: Workspace, check: Check = lambda: None) -> Collected:
    """Removes embeddings of versions that nobody needs now, and files older than gc.orphan_after_s that no
    row names. `check` is called between steps and may raise. Any number of processes may do it at once."""
    collected = Collected()
    for version_id in _embedded_versions(workspace):
        while forgotten := _forget(workspace, version_id):
            collected.n_embeddings += len(forgotten)
            _remove_files(workspace, version_id, forgotten, collected)
            check()
    with workspace.write() as session:
        _let_be_asked_again(session, ~_has_row())
    for file in _orphans(workspace, check):
        if workspace.blobs.delete_untouched(file.path, workspace.settings.gc.orphan_after_s):
            collected.n_orphans += 1
            collected.n_orphan_bytes += file.n_bytes
    return collected


def plan(workspace: Workspace) -> Collected:
    """What `carry_out` would remove now; changes nothing."""
    collected = Collected()
    with workspace.read() as session:
        for version_id in _versions_with_rows(session):
            going = _going(session, workspace.settings, version_id)
            if going is None:
                continue
            columns = func.count(), func.count(Embedding.blob_sha256.distinct()), func.sum(Embedding.n_bytes)
            n_rows, n_files, n_bytes = session.execute(select(*columns).where(going)).one()
            collected.n_embeddings += n_rows
            collected.n_files += n_files
            collected.n_bytes += int(n_bytes or 0)
    for file in _orphans(workspace):
        if workspace.blobs.is_untouched(file.path, workspace.settings.gc.orphan_after_s):
            collected.n_orphans += 1
            collected.n_orphan_bytes += file.n_bytes
    return collected


def kept_versions(session: Session, settings: Settings, dataset_id: int) -> set[int]:
    """Versions whose embeddings all stay: the active one, one that is being warmed or gone back to, the
    gc.keep_versions that served last, and one that was left a moment ago."""
    active = session.get(ActiveModel, dataset_id)
    if active is None:
        here = ModelVersion.dataset_id == dataset_id
        return set(session.scalars(select(ModelVersion.id).where(here)))
    former = formerly_active(session, dataset_id)
    n_former = settings.gc.keep_versions
    if database_now(session) - active.activated_at < _JUST_LEFT:
        n_former = max(1, n_former)
    kept = {active.model_version_id, *former[:n_former]}
    asked = roll_back_asked(session, dataset_id)
    if asked is not None and asked.subject_id is not None:
        kept.add(asked.subject_id)
    return kept | _warming(session, active)


def _warming(session: Session, active: ActiveModel) -> set[int]:
    """Promoted against the version that serves now, and not switched to yet."""
    switched = exists().where(Event.kind == "model.activated", Event.subject_id == Decision.model_version_id)
    promoted = select(Decision).join(ModelVersion, ModelVersion.id == Decision.model_version_id)
    here = (ModelVersion.dataset_id == active.dataset_id) & (Decision.verdict == "promote")
    decisions = session.scalars(promoted.where(here, ~switched))
    return {one.model_version_id for one in decisions if one.figures["active_id"] == active.model_version_id}


def _embedded_versions(workspace: Workspace) -> list[int]:
    with workspace.read() as session:
        return _versions_with_rows(session)


def _versions_with_rows(session: Session) -> list[int]:
    embedded = exists().where(Embedding.model_version_id == ModelVersion.id)
    return list(session.scalars(select(ModelVersion.id).where(embedded).order_by(ModelVersion.id)))


def _going(session: Session, settings: Settings, version_id: int) -> ColumnElement[bool] | None:
    """The version's rows that nobody needs; None while all of them are kept."""
    version = session.get_one(ModelVersion, version_id)
    if version_id in kept_versions(session, settings, version.dataset_id):
        return None
    lately = database_now(session) - _STILL_DRAWING
    drawing = (Assignment.state == "expired") & (Assignment.ended_at > lately)
    pinned = exists().where(
        Assignment.image_id == Embedding.image_id,
        Assignment.model_version_id == version_id,
        or_(Assignment.state == "open", drawing),
    )
    return and_(Embedding.model_version_id == version_id, ~pinned)


def _forget(workspace: Workspace, version_id: int) -> list[tuple[str, int]]:
    """Deletes up to _ROWS of the version's rows that may go; (digest, length) of the files they named."""
    with workspace.write() as session:
        dataset_id = session.get_one(ModelVersion, version_id).dataset_id
        # Whoever switches or goes back locks this row as well: what is kept holds until the commit.
        session.get(ActiveModel, dataset_id, with_for_update=True)
        going = _going(session, workspace.settings, version_id)
        if going is None:
            return []
        columns = Embedding.id, Embedding.image_id, Embedding.blob_sha256, Embedding.n_bytes
        rows = session.execute(select(*columns).where(going).order_by(Embedding.id).limit(_ROWS)).all()
        session.execute(delete(Embedding).where(Embedding.id.in_([row.id for row in rows])))
        keys = [f"embed:{row.image_id}:{version_id}" for row in rows]
        _let_be_asked_again(session, Job.unique_key.in_(keys))
    return [(row.blob_sha256, row.n_bytes) for row in rows]


def _let_be_asked_again(session: Session, jobs: ColumnElement[bool]) -> None:
    """Frees the keys of finished embed jobs, or an image would never be embedded again after a roll-back."""
    used = (Job.kind == "embed") & (Job.state == "done") & ~Job.unique_key.contains(":collected-")
    freed = Job.unique_key + ":collected-" + cast(Job.id, String)
    session.execute(update(Job).where(used, jobs).values(unique_key=freed))


def _has_row() -> ColumnElement[bool]:
    return exists().where(
        Embedding.image_id == Job.arguments["image_id"].as_integer(),
        Embedding.model_version_id == Job.arguments["model_version_id"].as_integer(),
    )


def _remove_files(
    workspace: Workspace, version_id: int, forgotten: Sequence[tuple[str, int]], collected: Collected
) -> None:
    """Removes files of forgotten rows at once, however young: no orphan's grace is needed here.

    An embedding's digest covers pixels and weights, so only rows of the same weights name it; and such a row
    is written under a lock that this one excludes (SQLite's write lock, Postgres' lock on the table), with a
    look at the file inside it. Either the row is seen here, or its writer sees that the file is gone.
    """
    lengths = dict(forgotten)
    digests = list(lengths)
    for start in range(0, len(digests), _FILES):
        with workspace.write() as session:
            if session.get_bind().dialect.name == "postgresql":
                session.execute(text("LOCK TABLE embeddings IN SHARE ROW EXCLUSIVE MODE"))
            chunk = digests[start : start + _FILES]
            for sha256 in set(chunk) - _still_named(session, version_id, chunk):
                if workspace.blobs.delete(sha256):
                    collected.n_files += 1
                    collected.n_bytes += lengths[sha256]


def _still_named(session: Session, version_id: int, digests: list[str]) -> set[str]:
    weights = select(ModelVersion.weights_sha256).where(ModelVersion.id == version_id).scalar_subquery()
    twins = list(session.scalars(select(ModelVersion.id).where(ModelVersion.weights_sha256 == weights)))
    # By version, which has an index; by digest alone every look would read the whole table.
    named = Embedding.model_version_id.in_(twins) & Embedding.blob_sha256.in_(digests)
    return set(session.scalars(select(Embedding.blob_sha256).where(named)))


def _orphans(workspace: Workspace, check: Check = lambda: None) -> Iterator[StoredFile]:
    """Files that no row named when the walk began; a file put again since then is young."""
    named = _named_digests(workspace)
    for file in workspace.blobs.files():
        check()
        if not DIGEST.fullmatch(file.name):
            yield file
            continue
        start = np.uint64(int(file.name[:_SIXTEEN], 16))
        place = int(np.searchsorted(named, start))
        if place == len(named) or named[place] != start:
            yield file


def _named_digests(workspace: Workspace) -> NDArray[np.uint64]:
    """The first 64 bits of every digest a row names, sorted: 8 bytes a file. Two digests that share them
    would only spare a file."""
    with workspace.read() as session:
        found = (
            int(digest[:_SIXTEEN], 16)
            for column in blob_columns()
            for digest in session.scalars(select(column).execution_options(yield_per=10_000))
            if digest
        )
        return np.unique(np.fromiter(found, np.uint64))
