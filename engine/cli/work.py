"""Due jobs, run here without a broker: `work`; a round asked for by hand: `train`."""

from __future__ import annotations

import os
import socket
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Annotated, Any

import typer

from engine.cli.opening import dataset_meant, opened
from engine.cli.options import AsJson, DatasetName, Home
from engine.cli.showing import PLAIN_EVERY_S, print_json, say

if TYPE_CHECKING:
    from engine.store.runner import Work, Write
    from engine.store.session import Workspace


def add_to(app: typer.Typer) -> None:
    """Hangs the verbs into the command."""
    app.command("work")(work)
    app.command("train")(train)


def work(
    until_idle: Annotated[bool, typer.Option("--until-idle", help="Stop when nothing is left.")] = False,
    home: Home = None,
    as_json: AsJson = False,
) -> None:
    """Run due jobs here, most urgent first: embeddings, training rounds, evaluations, promotions."""
    with opened(home) as workspace:
        worker = LocalWorker(workspace)
        worker.until_idle()
        while not until_idle:
            time.sleep(workspace.settings.worker.tick_s)
            worker.until_idle()
    if as_json:
        print_json(worker.n_jobs)
    else:
        print(", ".join(f"{n} {state}" for state, n in worker.n_jobs.items()) or "nothing was due")


def train(dataset: DatasetName = None, home: Home = None, as_json: AsJson = False) -> None:
    """Ask for a training round now; the worker of `up`, or `maskloop work`, carries it out."""
    from engine.pipeline import loop

    with opened(home) as workspace, workspace.write() as session:
        meant = dataset_meant(session, dataset)
        number = loop.start_round(session, workspace.settings, meant.id)
    if as_json:
        print_json({"dataset": meant.name, "round": number})
    else:
        print(f"round {number} of {meant.name} is asked for: a worker, or `maskloop work`, runs it")


def end_stuck(reason: str) -> None:
    """Ends the command, whose main thread is held by a stuck job: one line on stderr, exit 1."""
    say("maskloop: " + reason)
    os._exit(1)


@dataclass
class LocalWorker:
    """Claims and runs jobs in this process as any worker does; counts how they ended in `n_jobs`."""

    workspace: Workspace
    n_jobs: dict[str, int] = field(default_factory=dict)

    def until_idle(self) -> None:
        """Runs what is due and what becomes due by it, and waits for jobs that retry; then returns."""
        from engine.pipeline import loop
        from engine.store import jobs

        while True:
            with self.workspace.write() as session:
                n_asked = loop.due(session, self.workspace.settings)
                ids = jobs.due_ids(session, limit=1)
            if ids:
                self.run(ids[0])
            elif not n_asked and not self._waits_for_retry():
                return

    def run(self, job_id: int) -> str:
        """Runs one job if it can be claimed; the state it is in afterwards."""
        from engine.pipeline import loop
        from engine.store.runner import run_job

        name = f"{socket.gethostname()}-{os.getpid()}-cli"

        def arrow_of(kind: str) -> Callable[..., Write]:
            arrow = loop.arrow(kind)
            return lambda job, **arguments: arrow(_spoken(job, f"{kind} (job {job_id})"), **arguments)

        began = time.monotonic()
        state = run_job(self.workspace, job_id, arrow_of, name, on_stuck=end_stuck)
        self.n_jobs[state] = self.n_jobs.get(state, 0) + 1
        self._tell(job_id, state, time.monotonic() - began)
        return state

    def _tell(self, job_id: int, state: str, seconds: float) -> None:
        from engine.store.jobs import Job

        with self.workspace.read() as session:
            job = session.get_one(Job, job_id)
        if state != "done":
            say(f"{job.kind} (job {job_id}): {state}, {job.reason}")
        elif job.kind not in ("embed", "propose"):
            verdict = (job.outcome or {}).get("reason")
            say(f"{job.kind} (job {job_id}): done in {seconds:.0f} s" + (f", {verdict}" if verdict else ""))

    def _waits_for_retry(self) -> bool:
        """True after a short sleep when a failed attempt is queued for later."""
        from engine.pipeline import report

        with self.workspace.read() as session:
            if not report.job_list(session, state="queued", limit=1):
                return False
        time.sleep(0.5)
        return True


def _spoken(work: Work, what: str) -> Work:
    """The same work whose progress is also said here, now and then."""
    over = sys.stderr.isatty()
    every_s = 1.0 if over else PLAIN_EVERY_S
    spoken_at = time.monotonic()

    def tell(progress: dict[str, Any]) -> None:
        nonlocal spoken_at
        work.on_progress(progress)
        if time.monotonic() - spoken_at < every_s:
            return
        spoken_at = time.monotonic()
        line = f"{what}: " + ", ".join(f"{name} {n}" for name, n in progress.items())
        # On a terminal the line is written over the one before.
        sys.stderr.write(f"\r\x1b[K{line}" if over else f"{line}\n")
        sys.stderr.flush()

    return replace(work, on_progress=tell)
