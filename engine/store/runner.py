"""Running one job: claim, heartbeat, compute without a session, then effect and end in one transaction.

Works the same inside a Celery task, in `maskloop work` and in a test; DESIGN section 5 is the contract.
"""

import logging
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from types import TracebackType
from typing import Any, Protocol, Self

from sqlalchemy.exc import OperationalError
from sqlalchemy.orm import Session

from engine import logs
from engine.errors import MaskloopError, Unavailable
from engine.store import jobs
from engine.store.jobs import Claim, ClaimLost
from engine.store.session import Workspace

log = logging.getLogger(__name__)

Write = Callable[[Session], dict[str, Any]]
Progress = Callable[[dict[str, Any]], None]
ArrowOf = Callable[[str], Callable[..., Write]]
# Told in a sentence that a job is stuck for good; expected to end the process.
OnStuck = Callable[[str], None]


class Stopping(Protocol):
    """A flag such as threading.Event: set while the worker is on its way out."""

    def is_set(self) -> bool: ...


# What may be gone in a moment: the database, the disk, a peer. Everything else fails the job at once.
TRANSIENT = (Unavailable, OperationalError)
PROGRESS_EVERY_S = 1.0
LONGEST_REASON = 500
# A stuck arrow that still asks `cancelled` gets this long to leave: a silent trainer is ended in good order.
LEAVE_S = 15.0


class Cancelled(Exception):
    """Raised by `Work.stop_if_cancelled` to leave an arrow between two steps; not a failure."""


@dataclass(frozen=True)
class Work:
    """What an arrow may ask of its caller: the workspace, a place for progress, and whether to stop.

    An arrow that calls neither `progress` nor `stop_if_cancelled` for `worker.stall_s` is taken for stuck and
    ended. `cancelled` alone is no sign of life: one may ask it for ever while nothing moves.
    """

    workspace: Workspace
    on_progress: Progress
    is_cancelled: Callable[[], bool]
    on_life: Callable[[], None] = lambda: None

    @classmethod
    def inline(cls, workspace: Workspace, on_progress: Progress | None = None) -> Self:
        """For a direct call without a job: never cancelled."""
        return cls(workspace, on_progress or (lambda _progress: None), lambda: False)

    def progress(self, progress: dict[str, Any]) -> None:
        """Shows how far the work is, such as {"step": 12, "steps": 400}; cheap enough to call every step."""
        self.on_life()
        self.on_progress(progress)

    def cancelled(self) -> bool:
        """True once the work is of no use: cancel asked, lease lost, worker stopping. Ask between steps."""
        return self.is_cancelled()

    def stop_if_cancelled(self) -> None:
        """Leaves the arrow by `Cancelled` once `cancelled()` is true; a sign that the work goes on."""
        self.on_life()
        if self.cancelled():
            raise Cancelled


def commit(workspace: Workspace, write: Write) -> dict[str, Any]:
    """Carries out an arrow's write outside of a job, in one transaction; returns its outcome."""
    with workspace.write() as session:
        return write(session)


def run_job(
    workspace: Workspace,
    job_id: int,
    arrow_of: ArrowOf,
    worker: str,
    stopping: Stopping | None = None,
    on_stuck: OnStuck | None = None,
) -> str:
    """Runs the job if it can be claimed and returns the state it is in afterwards.

    `arrow_of(kind)` gives the arrow, called as `arrow(work, **arguments)` to compute the write. A job that is
    not due, or is another worker's, is left alone, so a message delivered twice changes nothing. While
    `stopping` is set the job is given back. `on_stuck` is called from another thread once a stuck attempt has
    ended in the ledger and its arrow has not left. Raises NotFound for an unknown id.
    """
    with workspace.write() as session:
        claim = jobs.claim(session, job_id, worker, workspace.settings.worker.lease_s)
    if claim is not None:
        with logs.bound(job_id=job_id, worker=worker):
            return _run(workspace, claim, arrow_of, stopping or threading.Event(), on_stuck)
    with workspace.read() as session:
        return jobs.state_of(session, job_id)


def run_next(
    workspace: Workspace,
    queues: Sequence[str],
    arrow_of: ArrowOf,
    worker: str,
    stopping: Stopping | None = None,
    on_stuck: OnStuck | None = None,
    *,
    slow_places: int | None = None,
) -> tuple[int, str] | None:
    """Runs the most urgent due job of these queues; its id and the state it is in afterwards, or None when
    nothing was there to take. See `jobs.claim_next` for `slow_places`, `run_job` for the rest."""
    lease_s = workspace.settings.worker.lease_s
    with workspace.write() as session:
        claim = jobs.claim_next(session, queues, worker, lease_s, slow_places=slow_places)
    if claim is None:
        return None
    with logs.bound(job_id=claim.job_id, worker=worker):
        return claim.job_id, _run(workspace, claim, arrow_of, stopping or threading.Event(), on_stuck)


def _run(
    workspace: Workspace, claim: Claim, arrow_of: ArrowOf, stopping: Stopping, on_stuck: OnStuck | None
) -> str:
    log.info("job %d: %s, attempt %d", claim.job_id, claim.kind, claim.attempt)
    pulse = _Pulse(workspace, claim, stopping, on_stuck)
    _settle(workspace, claim, _attempt(workspace, claim, arrow_of, pulse))
    with workspace.read() as session:
        return jobs.state_of(session, claim.job_id)


@dataclass(frozen=True)
class _Failure:
    """Why an attempt gave no write; `retry_in_s` is None when trying again would not help."""

    reason: str
    retry_in_s: float | None


def _attempt(
    workspace: Workspace, claim: Claim, arrow_of: ArrowOf, pulse: "_Pulse"
) -> Write | _Failure | None:
    """The arrow's write, the failure, or None when it stopped because it was asked to."""
    try:
        with pulse:
            work = Work(workspace, pulse.progress, pulse.is_stopped, pulse.show_life)
            return arrow_of(claim.kind)(work, **claim.arguments)
    except Cancelled:
        return pulse.complaint() if pulse.is_stuck else None
    except (KeyboardInterrupt, SystemExit):
        _settle(workspace, claim, None)
        raise
    except Exception as error:
        return _failure(claim, error)


def _settle(workspace: Workspace, claim: Claim, found: Write | _Failure | None) -> None:
    """Ends the attempt; what cannot be written now is left to the sweeper, once the lease has run out."""
    try:
        with workspace.write() as session:
            _end(session, claim, found, workspace.settings.worker.lease_s)
    except ClaimLost as error:
        log.warning("%s", error)
    except Exception as error:
        if callable(found):
            # A failed COMMIT may have happened: then the row has ended, and this second ending is refused.
            _settle(workspace, claim, _failure(claim, error))
        elif isinstance(error, TRANSIENT):
            log.warning("job %d: its end could not be written: %s", claim.job_id, error)
        else:
            raise


def _end(session: Session, claim: Claim, found: Write | _Failure | None, lease_s: float) -> None:
    # The heartbeat locks the row first: no other attempt can begin between the effect and the end.
    beat = jobs.heartbeat(session, claim, lease_s)
    if not beat.kept:
        raise ClaimLost(claim)
    if beat.cancel_requested:
        jobs.cancel_done(session, claim)
    elif found is None:
        jobs.give_back(session, claim)
    elif isinstance(found, _Failure):
        jobs.fail(session, claim, found.reason, retry_in_s=found.retry_in_s)
    else:
        jobs.finish(session, claim, found(session))


def _failure(claim: Claim, error: Exception) -> _Failure:
    stated = isinstance(error, MaskloopError)
    log.log(
        logging.WARNING if stated else logging.ERROR,
        "job %d (%s), attempt %d: %s",
        claim.job_id,
        claim.kind,
        claim.attempt,
        error,
        exc_info=not stated,
    )
    lines = str(error).strip().splitlines() or ["no message"]
    reason = lines[0] if stated else f"{type(error).__name__}: {lines[0]}"
    retry_in_s = _retry_in_s(claim) if isinstance(error, TRANSIENT) else None
    return _Failure(reason[:LONGEST_REASON], retry_in_s)


def _retry_in_s(claim: Claim) -> float:
    """5 s, 20 s, 80 s: long enough for a database to come back, short enough for a person to wait."""
    return float(5 * 4 ** (claim.attempt - 1))


class _Pulse:
    """The heartbeat thread of one attempt, and what it last learned."""

    def __init__(
        self, workspace: Workspace, claim: Claim, stopping: Stopping, on_stuck: OnStuck | None
    ) -> None:
        self._workspace, self._claim, self._stopping = workspace, claim, stopping
        self._on_stuck, self.is_stuck = on_stuck, False
        self._ended, self._useless = threading.Event(), threading.Event()
        self._thread = threading.Thread(target=self._beat, name=f"heartbeat-{claim.job_id}", daemon=True)
        self._shown_at, self._lived_at = float("-inf"), time.monotonic()

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._ended.set()
        self._thread.join()

    def is_stopped(self) -> bool:
        return self._useless.is_set() or self._stopping.is_set()

    def show_life(self) -> None:
        self._lived_at = time.monotonic()

    def complaint(self) -> _Failure:
        """Why a stuck attempt ended; it may have been the machine, so it is tried again."""
        stall_s = self._workspace.settings.worker.stall_s
        reason = f"it showed no progress for {stall_s:g} s (worker.stall_s) and was ended"
        return _Failure(reason, _retry_in_s(self._claim))

    def progress(self, progress: dict[str, Any]) -> None:
        if time.monotonic() - self._shown_at < PROGRESS_EVERY_S:
            return
        self._shown_at = time.monotonic()
        try:
            with self._workspace.write() as session:
                jobs.report_progress(session, self._claim, progress)
        except TRANSIENT as error:
            log.info("job %d: progress not written: %s", self._claim.job_id, error)

    def _beat(self) -> None:
        settings = self._workspace.settings.worker
        while not self._ended.wait(settings.heartbeat_s):
            silent_s = time.monotonic() - self._lived_at
            if silent_s > settings.stall_s:
                self.is_stuck = True
                self._useless.set()
            try:
                if silent_s > settings.stall_s + min(LEAVE_S, settings.stall_s):
                    self._end_stuck()
                    return
                with self._workspace.write() as session:
                    beat = jobs.heartbeat(session, self._claim, settings.lease_s)
            except TRANSIENT as error:
                log.warning("job %d: heartbeat missed: %s", self._claim.job_id, error)
                continue
            if beat.cancel_requested or not beat.kept:
                self._useless.set()

    def _end_stuck(self) -> None:
        """Ends the attempt in the ledger, then the process: a thread that is stuck cannot be ended alone."""
        failure = self.complaint()
        try:
            with self._workspace.write() as session:
                _end(session, self._claim, failure, self._workspace.settings.worker.lease_s)
        except ClaimLost as error:
            # Somebody else has the job by now, and still this thread holds a place of its worker.
            log.warning("%s", error)
        (self._on_stuck or log.error)(f"job {self._claim.job_id} ({self._claim.kind}): {failure.reason}")
