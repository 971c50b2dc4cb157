"""An installation of a drill's own: a home on private servers, processes that work on it, its ledger."""

import os
import signal
import subprocess
import sys
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from sqlalchemy import func, select

from engine.config import environment_of
from engine.store import jobs
from engine.store.base import database_now
from engine.store.blobs import BlobStore
from engine.store.events import Event
from engine.store.jobs import Job
from engine.store.session import Workspace
from tests.conftest import REPOSITORY
from tests.faults.sleepy import DEED

NAP_S = (0.05, 0.3)
# A storm may hit one job several times by chance; the three attempts people have would end it as failed.
ATTEMPTS = 20


@dataclass
class Crew:
    """Processes by role; whoever is lost is replaced by the drill, as a supervisor would."""

    workspace: Workspace
    overrides: dict[str, dict[str, Any]]
    log: Path
    members: dict[str, subprocess.Popen[bytes]] = field(default_factory=dict)

    def start(
        self, name: str, *options: str, module: str = "tests.faults.sleepy", code: Path = REPOSITORY
    ) -> subprocess.Popen[bytes]:
        """A process under that name, in a group of its own; it needs seconds until it works. `code` is the
        folder whose packages it runs."""
        ours = environment_of(self.workspace.settings.home, self.overrides) | {"OMP_NUM_THREADS": "1"}
        with open(self.log, "ab") as said:
            self.members[name] = subprocess.Popen(
                [sys.executable, "-m", module, *options],
                cwd=code,
                env=os.environ | ours,
                stdout=said,
                stderr=said,
                start_new_session=True,
            )
        return self.members[name]

    def kill(self, name: str) -> None:
        """kill -9 to the process and all its children, as when a machine loses power."""
        process = self.members.pop(name)
        if process.poll() is None:
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()

    def children(self, name: str) -> list[int]:
        """The process ids of a worker's living children."""
        process_id = self.members[name].pid
        try:
            return [
                int(n) for n in Path(f"/proc/{process_id}/task/{process_id}/children").read_text().split()
            ]
        except OSError:
            return []

    def close(self) -> None:
        """Kills whoever is left and closes the workspace."""
        for name in list(self.members):
            self.kill(name)
        self.workspace.close()

    def said(self) -> str:
        """The end of what all processes said."""
        return self.log.read_text()[-3000:] if self.log.exists() else ""

    def ask(
        self,
        kinds: Sequence[str],
        n: int,
        rng: np.random.Generator,
        *,
        queues: Sequence[str] = ("cpu",),
        **more: Any,
    ) -> list[int]:
        """`n` jobs of these kinds in turn, each of 50 to 300 ms unless `seconds` says otherwise."""
        start = self._n_jobs()
        with self.workspace.write() as session:
            return [
                jobs.ask(
                    session,
                    kinds[number % len(kinds)],
                    {"number": number, "seconds": more.get("seconds", float(rng.uniform(*NAP_S)))},
                    f"drill:{number}",
                    queue=queues[number % len(queues)],
                    priority=30,
                    max_attempts=more.get("attempts", ATTEMPTS),
                ).id
                for number in range(start, start + n)
            ]

    def _n_jobs(self) -> int:
        with self.workspace.read() as session:
            return session.scalar(select(func.count()).select_from(Job)) or 0

    def states(self, ids: Sequence[int]) -> Counter[str]:
        """How many of these jobs are in which state."""
        mine = select(Job.state, func.count()).where(Job.id.between(min(ids), max(ids))).group_by(Job.state)
        with self.workspace.read() as session:
            return Counter({state: n for state, n in session.execute(mine)})

    def n_open(self, ids: Sequence[int]) -> int:
        """How many of these jobs have not ended."""
        states = self.states(ids)
        return states["queued"] + states["running"]

    def past_lease_s(self) -> float:
        """How long the longest abandoned job has waited since its lease ran out; 0 when there is none."""
        with self.workspace.read() as session:
            oldest = session.scalar(select(func.min(Job.lease_until)).where(Job.state == "running"))
            return 0.0 if oldest is None else (database_now(session) - oldest).total_seconds()

    def deeds(self, ids: Sequence[int]) -> Counter[int]:
        """How often each of these jobs had its effect, by job id."""
        numbers = self._ids_by_number(ids)
        with self.workspace.read() as session:
            done = session.scalars(select(Event.subject_id).where(Event.kind == DEED))
            return Counter(numbers[number] for number in done if number in numbers)

    def _ids_by_number(self, ids: Sequence[int]) -> dict[int, int]:
        here = select(Job.id, Job.arguments).where(Job.id.between(min(ids), max(ids)))
        with self.workspace.read() as session:
            return {arguments["number"]: job_id for job_id, arguments in session.execute(here)}

    def n_lost_and_doubled(self, ids: Sequence[int]) -> tuple[int, int]:
        """(jobs without their effect or not done, effects too many): what every drill wants to be (0, 0)."""
        deeds, states = self.deeds(ids), self.states(ids)
        lost = sum(1 for job_id in ids if not deeds[job_id])
        return max(lost, len(ids) - states["done"]), sum(n - 1 for n in deeds.values() if n > 1)

    def n_missing_files(self) -> int:
        """Effects that name a file which is not there."""
        blobs: BlobStore = self.workspace.blobs
        with self.workspace.read() as session:
            payloads = list(session.scalars(select(Event.payload).where(Event.kind == DEED)))
        named = [payload["content"] for payload in payloads if payload.get("content")]
        return sum(1 for sha256 in named if not blobs.exists(sha256))
