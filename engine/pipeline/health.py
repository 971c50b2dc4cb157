"""Whether this installation can serve and whether its work moves: what /readyz and the probes ask.

A worker that is "up" may have stopped taking jobs, so the canary is work itself: jobs that wait while nobody
takes one. Sentences name no address and no secret, because strangers may read them.
"""

import os
import shutil
import time
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from functools import cache
from pathlib import Path

from sqlalchemy import ColumnElement, func, inspect, select, text
from sqlalchemy.orm import Session

from engine.config import Settings
from engine.errors import Unavailable
from engine.store.base import database_now
from engine.store.jobs import Job
from engine.store.session import Workspace, head_revision


@dataclass(frozen=True)
class Limits:
    """When to call something wrong. Units are in the names."""

    # Two images of the largest upload and their embeddings for each of a few workers.
    min_free_mb: int = 500
    # Longer than a lease and a sweep (75 s) and than the wait behind a few embeddings.
    canary_s: float = 300.0
    tick_s: float = 60.0


@dataclass(frozen=True)
class Check:
    """One question's name and answer: "ok", or a sentence that says what is wrong and what to do."""

    name: str
    answer: str

    @property
    def is_ok(self) -> bool:
        """Whether nothing is wrong."""
        return self.answer == "ok"


def readiness(workspace: Workspace, limits: Limits | None = None) -> list[Check]:
    """Database, files, disk, tick and jobs, in this order; never raises for what it asks about."""
    limits = limits or Limits()
    database = _database(workspace)
    checks = [
        database,
        _files(workspace),
        _disk(workspace.settings, limits),
        tick(workspace.settings, limits),
    ]
    return [*checks, jobs(workspace, None, limits)] if database.is_ok else checks


def jobs(workspace: Workspace, queues: Sequence[str] | None, limits: Limits | None = None) -> Check:
    """The canary of those queues (all of them for None): jobs that wait while nobody takes one."""
    limits = limits or Limits()
    try:
        with workspace.read() as session:
            stuck = [_stuck(session, queue, limits) for queue in _waiting_queues(session, queues, limits)]
    except Unavailable:
        return Check("jobs", "the database does not answer: start it, then look again")
    return Check("jobs", next((sentence for sentence in stuck if sentence), "ok"))


def tick(settings: Settings, limits: Limits | None = None, *, must_tick: bool = False) -> Check:
    """How long ago this home ticked. That it never did is no fault unless `must_tick`: another home may."""
    limits = limits or Limits()
    try:
        age_s = time.time() - _tick_file(settings).stat().st_mtime
    except OSError:
        return Check("tick", "no tick was seen yet: start `python -m workers`" if must_tick else "ok")
    if age_s <= limits.tick_s:
        return Check("tick", "ok")
    return Check("tick", f"due work was last looked for {age_s:.0f} s ago: start `python -m workers`")


def record_tick(settings: Settings) -> None:
    """Leaves the time of a finished tick in the home, for `tick` to find. OSError when the disk refuses."""
    file = _tick_file(settings)
    try:
        os.utime(file)
    except FileNotFoundError:
        file.parent.mkdir(parents=True, exist_ok=True)
        file.touch()


def free_mb(settings: Settings) -> dict[str, int]:
    """Free space in MB below the home and, where they are local, below the files."""
    folders = {"home": settings.home}
    if settings.files.url.startswith("file://"):
        folders["files"] = Path(settings.files.url.removeprefix("file://"))
    return {name: shutil.disk_usage(_existing(folder)).free // 1_000_000 for name, folder in folders.items()}


def _tick_file(settings: Settings) -> Path:
    return settings.home / "tick.alive"


def _existing(folder: Path) -> Path:
    """The folder or the nearest one above it that is there: the files' appears with the first blob."""
    return next(found for found in (folder, *folder.parents) if found.exists())


@cache
def _wanted_revision() -> str:
    return head_revision()


def _database(workspace: Workspace) -> Check:
    try:
        with workspace.read() as session:
            known = inspect(session.connection()).has_table("alembic_version")
            found = session.scalar(text("SELECT version_num FROM alembic_version")) if known else None
    except Unavailable:
        return Check("database", "the database does not answer: start it, then look again")
    if found == _wanted_revision():
        return Check("database", "ok")
    state = f"is at revision {found}" if found else "has no tables"
    advice = "`maskloop db upgrade`, or the newer code where the database is ahead"
    return Check("database", f"the database {state}, the code wants {_wanted_revision()}: {advice}")


def _files(workspace: Workspace) -> Check:
    """Writes, reads and removes a few bytes; the same ones each time, so that no empty folders pile up."""
    try:
        content = b"maskloop: can files be written?"
        sha256 = workspace.blobs.put(content)
        workspace.blobs.read(sha256)
        workspace.blobs.delete(sha256)
    except Unavailable:
        return Check("files", "files cannot be written: look after the disk or the object store of files.url")
    return Check("files", "ok")


def _disk(settings: Settings, limits: Limits) -> Check:
    name, free = min(free_mb(settings).items(), key=lambda place: place[1])
    if free >= limits.min_free_mb:
        return Check("disk", "ok")
    return Check(
        "disk", f"{free} MB are left for the {name}, {limits.min_free_mb} are needed: free some space"
    )


def _waiting_queues(session: Session, queues: Sequence[str] | None, limits: Limits) -> list[str]:
    """The queues with a job that has been due for longer than the canary may live."""
    since = database_now(session) - timedelta(seconds=limits.canary_s)
    waiting = select(Job.queue).where(*_due_since(since)).distinct().order_by(Job.queue)
    if queues is not None:
        waiting = waiting.where(Job.queue.in_(queues))
    return list(session.scalars(waiting))


def _due_since(since: datetime) -> tuple[ColumnElement[bool], ...]:
    due = (Job.not_before.is_(None) & (Job.created_at <= since)) | (Job.not_before <= since)
    # A job that was given back or failed an attempt has waited since that attempt, not since it was asked.
    return Job.state == "queued", due, Job.started_at.is_(None) | (Job.started_at <= since)


def _stuck(session: Session, queue: str, limits: Limits) -> str:
    """A sentence if nobody runs, took or finished a job of the queue within the canary's life, else empty."""
    now = database_now(session)
    since = now - timedelta(seconds=limits.canary_s)
    live = (Job.state == "running") & (Job.lease_until > now)
    moves = live | (Job.started_at > since) | (Job.ended_at > since)
    if session.scalar(select(Job.id).where(Job.queue == queue, moves).limit(1)) is not None:
        return ""
    n_waiting, oldest = session.execute(
        select(func.count(), func.min(Job.created_at)).where(Job.queue == queue, *_due_since(since))
    ).one()
    # Another process may have taken the last one between the two questions.
    if oldest is None:
        return ""
    age_s = (now - oldest).total_seconds()
    what = f"work waits in queue {queue} (jobs: {n_waiting}, the oldest for {age_s:.0f} s)"
    return f"{what} and no worker takes it: start one with `python -m workers --queues {queue}`, and the tick"
