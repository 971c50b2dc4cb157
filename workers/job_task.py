"""The body that all tasks share: open the workspace once per process, run what is due, most urgent first."""

import logging
import mmap
import os
import secrets
import socket
import threading
import time
from collections.abc import Collection, Sequence

from engine.config import Settings
from engine.errors import MaskloopError, Unavailable
from engine.pipeline import loop
from engine.store.jobs import QUEUES, end_attempts_of, give_back_all, workers_at_work
from engine.store.runner import run_next
from engine.store.session import Workspace, open_workspace

log = logging.getLogger(__name__)

# Before a job whose process died is tried again: long enough for memory to be free again.
AFTER_A_DEATH_S = 2.0
# On the way out running arrows get this long to reach their next step, then their jobs are given back.
GRACE_S = 15.0
# How a process ends that a stuck job holds. Not 1: that is a stated fault, which another start would repeat.
EXIT_STUCK = 70


def worker_name() -> str:
    """A name no other process has or will have: machine, process and a random part."""
    return f"{socket.gethostname()}:{os.getpid()}:{secrets.token_hex(3)}"


class StopFlag:
    """A flag that forked children see. One shared byte, so a killed child can leave no lock behind."""

    def __init__(self) -> None:
        self._byte = mmap.mmap(-1, 1)

    def set(self) -> None:
        """Asks every running arrow to stop at its next step."""
        self._byte[0] = 1

    def is_set(self) -> bool:
        """Whether the worker is on its way out."""
        return self._byte[0] == 1


class JobTask:
    """Runs jobs of some queues, in threads or in forked children.

    `slow_places` of the worker's places may run jobs that take minutes; None sets no bound.
    """

    def __init__(
        self,
        settings: Settings,
        worker: str = "",
        queues: Sequence[str] = QUEUES,
        slow_places: int | None = None,
    ) -> None:
        self.settings, self.queues, self.slow_places = settings, queues, slow_places
        self.worker = worker or worker_name()
        self.stopping = StopFlag()
        self._process_id = os.getpid()
        self._opening = threading.Lock()
        # By process: a forked child opens its own and leaves its parent's connections alone.
        self._opened: dict[int, Workspace] = {}

    def __call__(self, job_id: int) -> None:
        """Woken by a message, works until nothing is due; the id is only what the message was sent for.

        The ledger says what comes first, not the broker, which keeps the order of sending. What goes wrong
        outside of a job is logged, and the tick sends another message.
        """
        name = f"{self.worker}/{os.getpid()}"
        log.debug("woken for job %s", job_id)
        while not self.stopping.is_set():
            try:
                ended = run_next(
                    self.workspace(),
                    self.queues,
                    loop.arrow,
                    name,
                    self.stopping,
                    self.end_process,
                    slow_places=self.slow_places,
                )
            except MaskloopError as error:
                log.warning("woken for job %s, but no job was run: %s", job_id, error)
                return
            if ended is None:
                return
            log.info("job %d: %s", *ended)

    def workspace(self) -> Workspace:
        """This process's workspace, opened when first asked for."""
        with self._opening:
            if os.getpid() not in self._opened:
                # A child runs the code that its parent began with: when the database was upgraded since, the
                # children begun before and after go on alike, until the operator ends them all.
                begins = os.getpid() == self._process_id
                self._opened[os.getpid()] = open_workspace(self.settings, check_revision=begins)
            return self._opened[os.getpid()]

    def give_back(self) -> int:
        """Queues again every job this worker and its children still hold; returns how many."""
        try:
            with self.workspace().write() as session:
                return give_back_all(session, f"{self.worker}/")
        except Unavailable as error:
            log.warning("jobs not given back, their leases will run out: %s", error)
            return 0

    def end_process(self, reason: str) -> None:
        """Ends this process, which a stuck job holds for good; the attempt has ended in the ledger.

        A forked child runs nothing else, and its parent begins another. Where jobs are threads of one process
        the others get until their next step, then they are given back; `maskloop up` begins it again.
        """
        try:
            log.error("%s; its process ends", reason)
            if os.getpid() == self._process_id:
                self.stopping.set()
                end = time.monotonic() + GRACE_S
                while self._is_at_work() and time.monotonic() < end:
                    time.sleep(0.2)
                self.give_back()
        finally:
            os._exit(EXIT_STUCK)

    def _is_at_work(self) -> bool:
        try:
            with self.workspace().read() as session:
                return bool(workers_at_work(session, f"{self.worker}/"))
        except Unavailable:
            return False

    def bury(self, living: Collection[int], cause: str) -> list[int]:
        """Ends the attempts of children that are not among the `living` process ids; returns the jobs' ids.

        Without it the jobs would wait for their leases to run out, and no one would know the cause.
        """
        try:
            with self.workspace().write() as session:
                names = workers_at_work(session, f"{self.worker}/")
                lost = [name for name in names if int(name.rsplit("/", 1)[1]) not in living]
                ids = end_attempts_of(session, lost, cause, AFTER_A_DEATH_S)
        except Unavailable as error:
            log.warning("jobs of a dead process wait for their leases to run out: %s", error)
            return []
        for job_id in ids:
            log.warning("job %d: %s", job_id, cause)
        return ids
