"""The tick: due work becomes job rows, waiting jobs become messages. Any number of processes may tick."""

import logging
import threading
import time
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any, Protocol

from celery import Celery
from celery.exceptions import OperationalError

from engine.errors import Unavailable
from engine.pipeline import health, loop
from engine.store.jobs import QUEUES, Due, due
from engine.store.session import Workspace
from workers.tasks import task_name

log = logging.getLogger(__name__)


class Broker(Protocol):
    """What a tick needs of a broker."""

    def send(self, job: Due) -> None:
        """A wake-up to the job's queue; Unavailable when the broker is away."""
        ...

    def n_unread(self, queues: Iterable[str]) -> dict[str, int]:
        """How many messages of each queue no worker has read yet."""
        ...


class CeleryBroker:
    """The broker of a Celery app. Neither call waits long for a broker that is away."""

    def __init__(self, app: Celery) -> None:
        self.app = app

    def send(self, job: Due) -> None:
        """See Broker."""
        try:
            self.app.send_task(task_name(job.kind), args=[job.job_id], queue=job.queue, retry=False)
        except OperationalError as error:
            raise _away(error) from error

    def n_unread(self, queues: Iterable[str]) -> dict[str, int]:
        """See Broker."""
        with self.app.connection_for_write() as connection:
            try:
                connection.ensure_connection(max_retries=1, timeout=5)
                return {queue: _n_messages(connection, queue) for queue in queues}
            except (OperationalError, *connection.connection_errors) as error:
                raise _away(error) from error


def _n_messages(connection: Any, queue: str) -> int:
    try:
        return int(connection.default_channel.queue_declare(queue=queue, passive=True).message_count)
    except connection.channel_errors:
        # A queue that nobody has written to since the broker began, or since it was read to its end.
        return 0


def _away(error: Exception) -> Unavailable:
    return Unavailable(f"the broker does not answer, jobs wait for it ({error})")


@dataclass
class Tick:
    """One call looks once. Messages may be lost: what still waits is sent for again after `again_s`.

    A message only wakes a worker, who takes the most urgent job there is; so a few are enough, and a queue
    that nobody reads stays short. Without `asks` nothing new is asked for: somebody else turns the loop.
    """

    workspace: Workspace
    broker: Broker
    # Unread messages of one queue, at most: more than all workers together have places.
    limit: int = 32
    again_s: float = 5.0
    asks: bool = True
    _sent: dict[str, tuple[float, list[Due]]] = field(default_factory=dict)

    def __call__(self) -> int:
        """Asks for due work and wakes workers for waiting jobs; returns how many messages went out."""
        if self.asks:
            self._ask()
        with self.workspace.read() as session:
            waiting = {queue: due(session, [queue], limit=self.limit) for queue in QUEUES}
        # An attempt is part of what is compared: for a job that came back to the queue one is woken at once.
        news = {queue: jobs for queue, jobs in waiting.items() if jobs and self._is_news(queue, jobs)}
        n_unread = self.broker.n_unread(news) if news else {}
        return sum(self._wake(queue, jobs, len(jobs) - n_unread[queue]) for queue, jobs in news.items())

    def _ask(self) -> None:
        try:
            with self.workspace.write() as session:
                loop.due(session, self.workspace.settings)
        except Unavailable:
            raise
        except Exception:
            # One dataset that the loop stumbles over must not keep everyone's waiting jobs from being sent.
            log.exception("due work could not be asked for; the next tick tries again")

    def _is_news(self, queue: str, jobs: list[Due]) -> bool:
        sent_at, sent = self._sent.get(queue, (float("-inf"), []))
        return jobs != sent or time.monotonic() - sent_at >= self.again_s

    def _wake(self, queue: str, jobs: list[Due], n_messages: int) -> int:
        for job in jobs[: max(0, n_messages)]:
            self.broker.send(job)
        self._sent[queue] = (time.monotonic(), jobs)
        return max(0, n_messages)


def keep_ticking(tick: Tick, stopped: threading.Event) -> None:
    """Ticks every tick_s until stopped; whatever is down is said once and tried again."""
    trouble = ""
    while not stopped.wait(tick.workspace.settings.worker.tick_s):
        try:
            tick()
            health.record_tick(tick.workspace.settings)
        except (Unavailable, OSError) as error:
            if str(error) != trouble:
                log.warning("no tick: %s", error)
            trouble = str(error)
        except Exception:
            log.exception("a tick failed; the next one tries again")
        else:
            trouble = ""
