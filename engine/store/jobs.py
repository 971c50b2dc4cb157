"""The jobs ledger: the only truth about work (DESIGN section 5). A broker's message is one id, no more."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

from sqlalchemy import CheckConstraint, ColumnElement, ForeignKey, Index, func, select, update
from sqlalchemy.dialects.postgresql import insert as postgresql_insert
from sqlalchemy.dialects.sqlite import insert as sqlite_insert
from sqlalchemy.orm import Mapped, Session, mapped_column

from engine.config import Settings
from engine.errors import Conflict, NotFound
from engine.store.base import Base, RowId, database_now, utc_now

QUEUES = ("cpu", "gpu", "train", "export")
# Kinds that run a model: where a machine has a GPU they are sent to the workers that have it.
ON_DEVICE = frozenset({"embed", "propose", "generate", "evaluate", "train-detector"})
STATES = ("queued", "running", "done", "failed", "cancelled")
# Jobs less urgent than this may take minutes (bulk, evaluations, training); see `claim_next`.
SLOW_ABOVE = 40


class Job(Base):
    """One run of one arrow. `attempt` is the fencing token: a write of an older attempt is refused."""

    __tablename__ = "jobs"
    __table_args__ = (
        CheckConstraint("state in ('queued', 'running', 'done', 'failed', 'cancelled')", name="state"),
        Index("ix_jobs_state_queue_priority_id", "state", "queue", "priority", "id"),
    )
    id: Mapped[RowId]
    kind: Mapped[str]
    dataset_id: Mapped[int | None] = mapped_column(ForeignKey("datasets.id"))
    arguments: Mapped[dict[str, Any]]
    # Image + weights digest + settings digest, by kind: asking twice returns the first row.
    unique_key: Mapped[str] = mapped_column(unique=True)
    queue: Mapped[str] = mapped_column(default="cpu")
    # Smaller runs first: an annotator's next image before bulk.
    priority: Mapped[int] = mapped_column(default=100)
    state: Mapped[str] = mapped_column(default="queued")
    attempt: Mapped[int] = mapped_column(default=0)
    max_attempts: Mapped[int] = mapped_column(default=3)
    not_before: Mapped[datetime | None]
    lease_until: Mapped[datetime | None]
    cancel_requested: Mapped[bool] = mapped_column(default=False)
    progress: Mapped[dict[str, Any] | None]
    outcome: Mapped[dict[str, Any] | None]
    reason: Mapped[str | None]
    worker: Mapped[str | None]
    created_at: Mapped[datetime] = mapped_column(default=utc_now)
    started_at: Mapped[datetime | None]
    ended_at: Mapped[datetime | None]


@dataclass(frozen=True)
class Claim:
    """The right to run one attempt of a job. `attempt` goes into the condition of every later write."""

    job_id: int
    kind: str
    arguments: dict[str, Any]
    attempt: int
    dataset_id: int | None


@dataclass(frozen=True)
class Due:
    """A job that waits for a worker. (job_id, attempt) changes with every claim."""

    job_id: int
    kind: str
    queue: str
    attempt: int
    priority: int


class ClaimLost(Conflict):
    """The job went on without this worker: the lease ran out, or it was ended by hand."""

    def __init__(self, claim: Claim) -> None:
        attempt = f"job {claim.job_id}, attempt {claim.attempt}"
        super().__init__(f"{attempt}, is no longer this worker's: nothing was written")


@dataclass(frozen=True)
class Beat:
    """What a heartbeat learns: is the claim still ours, and has someone asked for the job to stop."""

    kept: bool
    cancel_requested: bool


def ask(
    session: Session,
    kind: str,
    arguments: dict[str, Any],
    unique_key: str,
    *,
    dataset_id: int | None = None,
    queue: str = "cpu",
    priority: int = 100,
    max_attempts: int = 3,
) -> Job:
    """Writes the job down, in the caller's transaction; asking twice with one key returns the first row."""
    row = {"kind": kind, "arguments": arguments, "unique_key": unique_key, "dataset_id": dataset_id}
    row |= {"queue": queue, "priority": priority, "max_attempts": max_attempts}
    insert = sqlite_insert if session.get_bind().dialect.name == "sqlite" else postgresql_insert
    session.execute(insert(Job).values(row).on_conflict_do_nothing(index_elements=["unique_key"]))
    return session.scalars(select(Job).where(Job.unique_key == unique_key)).one()


def queue_of(kind: str, settings: Settings) -> str:
    """The queue jobs of that kind wait in: `train`, `export`, and for what runs a model `gpu` where any of
    `worker.devices` is one; everything else is for `cpu`. Every process of an installation must agree on
    whether there are GPUs, or workers will wait at a queue that nobody fills."""
    if kind in ("train", "train-detector"):
        return "train"
    if kind == "export":
        return kind
    return "gpu" if kind in ON_DEVICE and any(name != "cpu" for name in settings.worker.devices) else "cpu"


def n_waiting(session: Session, queue: str | None = None) -> int:
    """How many jobs are queued, in one queue or in all: a bulk asker looks at it before it asks for more."""
    waiting = select(func.count()).select_from(Job).where(Job.state == "queued")
    return session.scalar(waiting if queue is None else waiting.where(Job.queue == queue)) or 0


def n_open(session: Session) -> int:
    """How many jobs are queued or running; at 0 the ledger is drained."""
    return (
        session.scalar(select(func.count()).select_from(Job).where(Job.state.in_(("queued", "running")))) or 0
    )


def due(session: Session, queues: Sequence[str] | None = None, limit: int = 100) -> list[Due]:
    """What a worker may claim now, most urgent first: queued and due, or running with its lease run out."""
    columns = (Job.id, Job.kind, Job.queue, Job.attempt, Job.priority)
    found: list[Due] = []
    for ready in _ready(queues or QUEUES, database_now(session)):
        most_urgent = select(*columns).where(ready).order_by(Job.priority, Job.id).limit(limit)
        found += [Due(*row) for row in session.execute(most_urgent)]
    return sorted(found, key=lambda job: (job.priority, job.job_id))[:limit]


def due_ids(session: Session, queues: Sequence[str] | None = None, limit: int = 100) -> list[int]:
    """The ids of `due`."""
    return [job.job_id for job in due(session, queues, limit)]


def claim_next(
    session: Session, queues: Sequence[str], worker: str, lease_s: float, *, slow_places: int | None = None
) -> Claim | None:
    """Takes the most urgent due job of these queues, the oldest of equals; None when there is none to take.

    What `worker` (HOST:PID:RANDOM/PLACE) shares before the slash names one worker of several places; of its
    slow jobs at most `slow_places` run at once, so that an annotator's image need not wait for a training.
    """
    now = database_now(session)
    only_urgent = slow_places is not None and _n_slow_of(session, worker.split("/")[0], now) >= slow_places
    while (job_id := _most_urgent(session, queues, now, only_urgent)) is not None:
        # None ends a job at its cap or cancelled, which is then no longer due.
        if (taken := claim(session, job_id, worker, lease_s)) is not None:
            return taken
    return None


def _most_urgent(session: Session, queues: Sequence[str], now: datetime, only_urgent: bool) -> int | None:
    found: list[tuple[int, int]] = []
    for ready in _ready(queues, now):
        rows = select(Job.priority, Job.id).where(ready).order_by(Job.priority, Job.id).limit(1)
        if only_urgent:
            rows = rows.where(Job.priority <= SLOW_ABOVE)
        # Racing workers each see rows of their own; SQLite has one writer at a time and needs no lock.
        row = session.execute(rows.with_for_update(skip_locked=True)).first()
        found += [] if row is None else [(row.priority, row.id)]
    return min(found)[1] if found else None


def _n_slow_of(session: Session, worker: str, now: datetime) -> int:
    if session.get_bind().dialect.name == "postgresql":
        # Two places of one worker would count before either has claimed; the lock ends with the transaction.
        session.execute(select(func.pg_advisory_xact_lock(func.hashtext(worker))))
    mine = Job.worker.startswith(f"{worker}/", autoescape=True) & (Job.priority > SLOW_ABOVE)
    live = (Job.state == "running") & (Job.lease_until > now)
    return session.scalar(select(func.count()).select_from(Job).where(live, mine)) or 0


def claim(session: Session, job_id: int, worker: str, lease_s: float) -> Claim | None:
    """Takes a due job with the next attempt number; None when it is not due, taken, ended or at its cap.

    One conditional UPDATE: of two workers that race, the second finds the condition false. A job whose
    workers stopped without an answer `max_attempts` times ends here as failed.
    """
    now = database_now(session)
    due = (Job.id == job_id) & _is_due(now)
    taken = session.execute(
        update(Job)
        .where(due, Job.attempt < Job.max_attempts, ~Job.cancel_requested)
        .values(
            state="running",
            attempt=Job.attempt + 1,
            worker=worker,
            started_at=now,
            lease_until=now + timedelta(seconds=lease_s),
            not_before=None,
            progress=None,
        )
        .returning(Job.id, Job.kind, Job.arguments, Job.attempt, Job.dataset_id)
    ).one_or_none()
    if taken is None:
        _end_hopeless(session, due, now)
        return None
    return Claim(*taken)


def heartbeat(session: Session, claim: Claim, lease_s: float) -> Beat:
    """Moves the lease on; `kept` is False once another attempt runs or the job has ended."""
    until = database_now(session) + timedelta(seconds=lease_s)
    renewed = update(Job).where(_is_mine(claim)).values(lease_until=until).returning(Job.cancel_requested)
    cancel_requested = session.scalar(renewed)
    return Beat(cancel_requested is not None, bool(cancel_requested))


def report_progress(session: Session, claim: Claim, progress: dict[str, Any]) -> None:
    """Replaces the progress people see; a zombie's report changes nothing."""
    session.execute(update(Job).where(_is_mine(claim)).values(progress=progress))


def finish(session: Session, claim: Claim, outcome: dict[str, Any]) -> None:
    """Ends the job as done, in the transaction of its effect; ClaimLost refuses a zombie's whole write."""
    _move(session, claim, state="done", outcome=outcome, reason=None, ended_at=database_now(session))


def fail(session: Session, claim: Claim, reason: str, *, retry_in_s: float | None) -> str:
    """Ends an attempt: queued again in `retry_in_s` while attempts are left, else failed. Gives its state."""
    now = database_now(session)
    attempts_left = session.scalar(select(Job.max_attempts).where(Job.id == claim.job_id)) or 0
    if retry_in_s is not None and claim.attempt < attempts_left:
        later = now + timedelta(seconds=retry_in_s)
        _move(session, claim, state="queued", reason=reason, not_before=later)
        return "queued"
    _move(session, claim, state="failed", reason=reason, ended_at=now)
    return "failed"


def give_back(session: Session, claim: Claim) -> None:
    """Queues the job again at once, for a worker that stops in good order: it costs the job no attempt."""
    _move(session, claim, state="queued", max_attempts=Job.max_attempts + 1)


def give_back_all(session: Session, worker: str) -> int:
    """Gives back every running job whose worker's name begins with `worker`; returns how many."""
    of_worker = (Job.state == "running") & Job.worker.startswith(worker, autoescape=True)
    values = {"state": "queued", "max_attempts": Job.max_attempts + 1, "lease_until": None}
    return len(session.scalars(update(Job).where(of_worker).values(values).returning(Job.id)).all())


def end_attempts_of(session: Session, lost: Sequence[str], reason: str, retry_in_s: float) -> list[int]:
    """Ends at once the attempts of workers whose processes died, instead of after their leases: queued again
    in `retry_in_s` while attempts are left, else failed with the reason. Returns the ids of the jobs."""
    now = database_now(session)
    theirs = (Job.state == "running") & Job.worker.in_(lost)
    ended = {"state": "failed", "reason": reason, "ended_at": now, "lease_until": None}
    last = update(Job).where(theirs, Job.attempt >= Job.max_attempts).values(ended).returning(Job.id)
    next_try = now + timedelta(seconds=retry_in_s)
    later = {"state": "queued", "reason": reason, "lease_until": None, "not_before": next_try}
    ids = list(session.scalars(last))
    return ids + list(session.scalars(update(Job).where(theirs).values(later).returning(Job.id)))


def workers_at_work(session: Session, worker: str) -> list[str]:
    """Names of those whose name begins with `worker` and who hold a job now."""
    held = (Job.state == "running") & Job.worker.startswith(worker, autoescape=True)
    return [name for name in session.scalars(select(Job.worker).where(held).distinct()) if name]


def cancel_done(session: Session, claim: Claim) -> None:
    """Ends the job as cancelled: its arrow has seen the request and stopped."""
    _move(session, claim, state="cancelled", ended_at=database_now(session))


def request_cancel(session: Session, job_id: int) -> str:
    """Cancels a queued job at once and asks a running one to stop; returns the state it is in now.

    Raises NotFound for an unknown id and Conflict for a job that has ended.
    """
    now = database_now(session)
    waiting = (Job.id == job_id) & (Job.state == "queued")
    values = {"state": "cancelled", "cancel_requested": True, "ended_at": now}
    if session.scalar(update(Job).where(waiting).values(values).returning(Job.id)) is not None:
        return "cancelled"
    running = (Job.id == job_id) & (Job.state == "running")
    if session.scalar(update(Job).where(running).values(cancel_requested=True).returning(Job.id)) is not None:
        return "running"
    raise Conflict(f"job {job_id} is already {state_of(session, job_id)}: there is nothing to cancel")


def retry(session: Session, job_id: int, attempts: int = 3) -> None:
    """Queues a failed or cancelled job again with `attempts` more; NotFound or Conflict otherwise."""
    ended = (Job.id == job_id) & Job.state.in_(("failed", "cancelled"))
    fresh: dict[str, Any] = {"state": "queued", "cancel_requested": False}
    fresh |= dict.fromkeys(("reason", "ended_at", "not_before"))
    # The attempt number is the fencing token and never goes back, so the cap moves instead.
    fresh["max_attempts"] = Job.attempt + attempts
    if session.scalar(update(Job).where(ended).values(fresh).returning(Job.id)) is None:
        state = state_of(session, job_id)
        raise Conflict(f"job {job_id} is {state}: only a failed or cancelled job is retried")


def state_of(session: Session, job_id: int) -> str:
    """The job's state as the database has it now; NotFound for an unknown id."""
    state = session.scalar(select(Job.state).where(Job.id == job_id))
    if state is None:
        raise NotFound(f"there is no job {job_id}: `maskloop jobs list` shows them")
    return state


def _is_due(now: datetime) -> ColumnElement[bool]:
    return ((Job.state == "queued") & _may_begin(now)) | _is_abandoned(now)


def _is_abandoned(now: datetime) -> ColumnElement[bool]:
    return (Job.state == "running") & (Job.lease_until <= now)


def _ready(queues: Sequence[str], now: datetime) -> Iterator[ColumnElement[bool]]:
    """`_is_due` in parts that the index on state, queue, priority and id yields in order: with 20,000 jobs
    waiting, one condition for all of them costs a sort of them all for every claim."""
    for queue in queues:
        yield (Job.queue == queue) & (Job.state == "queued") & _may_begin(now)
        yield (Job.queue == queue) & _is_abandoned(now)


def _may_begin(now: datetime) -> ColumnElement[bool]:
    return Job.not_before.is_(None) | (Job.not_before <= now)


def _is_mine(claim: Claim) -> ColumnElement[bool]:
    return (Job.id == claim.job_id) & (Job.attempt == claim.attempt) & (Job.state == "running")


def _move(session: Session, claim: Claim, **values: Any) -> None:
    moved = update(Job).where(_is_mine(claim)).values(lease_until=None, **values).returning(Job.id)
    if session.scalar(moved) is None:
        raise ClaimLost(claim)


def _end_hopeless(session: Session, due: ColumnElement[bool], now: datetime) -> None:
    cancelled = {"state": "cancelled", "ended_at": now, "lease_until": None}
    session.execute(update(Job).where(due, Job.cancel_requested).values(cancelled))
    reason = "its worker stopped without an answer at every attempt (killed, or out of memory?)"
    failed = {"state": "failed", "ended_at": now, "lease_until": None, "reason": reason}
    session.execute(update(Job).where(due, Job.attempt >= Job.max_attempts).values(failed))
