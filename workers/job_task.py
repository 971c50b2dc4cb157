"""The body that all tasks share: open the workspace once per process, run the job the message names."""

import logging
import mmap
import os
import secrets
import socket
import threading

from engine.config import Settings
from engine.errors import MaskloopError, Unavailable
from engine.pipeline import loop
from engine.store.jobs import give_back_all
from engine.store.runner import run_job
from engine.store.session import Workspace, open_workspace

log = logging.getLogger(__name__)


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
    """Runs jobs by id, in threads or in forked children."""

    def __init__(self, settings: Settings, worker: str = "") -> None:
        self.settings = settings
        self.worker = worker or worker_name()
        self.stopping = StopFlag()
        self._opening = threading.Lock()
        # By process: a forked child opens its own and leaves its parent's connections alone.
        self._opened: dict[int, Workspace] = {}

    def __call__(self, job_id: int) -> None:
        """Runs the job; what goes wrong outside of it is logged, and the tick sends its id again."""
        if self.stopping.is_set():
            return
        try:
            workspace = self.workspace()
            state = run_job(workspace, job_id, loop.arrow, f"{self.worker}/{os.getpid()}", self.stopping)
        except MaskloopError as error:
            log.warning("job %s was not run: %s", job_id, error)
        else:
            log.info("job %d: %s", job_id, state)

    def workspace(self) -> Workspace:
        """This process's workspace, opened when first asked for."""
        with self._opening:
            if os.getpid() not in self._opened:
                self._opened[os.getpid()] = open_workspace(self.settings)
            return self._opened[os.getpid()]

    def give_back(self) -> int:
        """Queues again every job this worker and its children still hold; returns how many."""
        try:
            with self.workspace().write() as session:
                return give_back_all(session, f"{self.worker}/")
        except Unavailable as error:
            log.warning("jobs not given back, their leases will run out: %s", error)
            return 0
