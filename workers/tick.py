"""The tick: due work becomes job rows, waiting jobs become messages. Any number of processes may tick."""

import logging
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field

from celery import Celery
from celery.exceptions import OperationalError

from engine.errors import Unavailable
from engine.pipeline import loop
from engine.store.jobs import Due, due, n_running
from engine.store.session import Workspace
from workers.tasks import task_name

log = logging.getLogger(__name__)

Send = Callable[[Due], None]

# Jobs less urgent than this take minutes (evaluations, training): see `Tick.n_slow`.
SLOW_ABOVE = 40


def sender(app: Celery) -> Send:
    """How a tick sends: the id to the queue, without a long wait. Unavailable when the broker is away."""

    def send(job: Due) -> None:
        try:
            app.send_task(task_name(job.kind), args=[job.job_id], queue=job.queue, retry=False)
        except OperationalError as error:
            raise Unavailable(f"the broker does not answer, jobs wait for it ({error})") from error

    return send


@dataclass
class Tick:
    """One call looks once. A message may be lost: the same waiting job is sent again after `again_s`."""

    workspace: Workspace
    send: Send
    # Messages on their way at once; a broker's queue knows no urgency, so it is kept short.
    limit: int = 100
    # In one embedded worker: how many slow jobs may run at once, so that an annotator's image finds a thread.
    n_slow: int | None = None
    again_s: float = 15.0
    _sent_at: dict[tuple[int, int], float] = field(default_factory=dict)

    def __call__(self) -> int:
        """Asks for due work and sends waiting jobs; returns how many messages went out."""
        self._ask()
        with self.workspace.read() as session:
            waiting = due(session, limit=self.limit)
            n_slow_running = n_running(session, SLOW_ABOVE)
        return sum(self._send_once(job) for job in self._with_room(waiting, n_slow_running))

    def _ask(self) -> None:
        try:
            with self.workspace.write() as session:
                loop.due(session, self.workspace.settings)
        except Unavailable:
            raise
        except Exception:
            # One dataset that the loop stumbles over must not keep everyone's waiting jobs from being sent.
            log.exception("due work could not be asked for; the next tick tries again")

    def _with_room(self, waiting: list[Due], n_slow_running: int) -> list[Due]:
        if self.n_slow is None:
            return waiting
        urgent = [job for job in waiting if job.priority <= SLOW_ABOVE]
        slow = [job for job in waiting if job.priority > SLOW_ABOVE]
        return urgent + slow[: max(0, self.n_slow - n_slow_running)]

    def _send_once(self, job: Due) -> bool:
        # The attempt is part of the key: a job that came back to the queue is sent at once.
        now, key = time.monotonic(), (job.job_id, job.attempt)
        self._sent_at = {old: at for old, at in self._sent_at.items() if now - at < self.again_s}
        if key in self._sent_at:
            return False
        self.send(job)
        self._sent_at[key] = now
        return True


def keep_ticking(tick: Tick, stopped: threading.Event) -> None:
    """Ticks every tick_s until stopped; whatever is down is said once and tried again."""
    trouble = ""
    while not stopped.wait(tick.workspace.settings.worker.tick_s):
        try:
            tick()
        except (Unavailable, OSError) as error:
            if str(error) != trouble:
                log.warning("no tick: %s", error)
            trouble = str(error)
        except Exception:
            log.exception("a tick failed; the next one tries again")
        else:
            trouble = ""
