"""Simulations whose jobs run in worker processes, and such as give the same bytes whoever runs them."""

from __future__ import annotations

import os
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from engine.cli.processes import Child, children
from engine.errors import BadInput

if TYPE_CHECKING:
    from engine.store.session import Workspace

Overrides = dict[str, dict[str, object]]

# Enough for the bundled model to learn something of a new dataset, few enough for one thread.
TRAIN_STEPS, DETECTOR_STEPS = 40, 200


def in_lockstep(home: Path | None) -> Overrides:
    """Settings under which nothing depends on a clock: steps are counted, and nothing is collected between.

    Also bounds this process and its children to one thread for sums, whose order decides their last bits;
    to be called before anything imports torch.
    """
    from engine.config import load_settings

    settings = load_settings(home)
    os.environ["OMP_NUM_THREADS"] = "1"
    return {
        "train": {"steps": settings.train.steps or TRAIN_STEPS},
        "detector": {"steps": settings.detector.steps or DETECTOR_STEPS},
        "gc": {"every_s": 0},
        "worker": {"tick_s": 0.3},
    }


@dataclass
class WorkerProcesses:
    """Workers of one run, which are woken for what waits and ask for nothing themselves."""

    workspace: Workspace
    running: Sequence[Child]

    def until_idle(self) -> None:
        """Asks for what is due, waits until it is done, and so on until nothing is due any more."""
        from engine.pipeline import loop

        while True:
            with self.workspace.write() as session:
                n_asked = loop.due(session, self.workspace.settings)
            if not n_asked and not self._n_open():
                return
            while self._n_open():
                for child in self.running:
                    child.keep_alive()
                time.sleep(0.1)

    def _n_open(self) -> int:
        from engine.store import jobs

        with self.workspace.read() as session:
            return jobs.n_open(session)


def check_broker(home: Path | None) -> None:
    """BadInput where several processes could not be woken."""
    from engine.config import load_settings

    if load_settings(home).worker.broker.startswith("memory:"):
        raise BadInput(
            "--workers needs a broker between processes: MASKLOOP_WORKER__BROKER=redis://HOST:6379/0"
        )


@contextmanager
def worker_processes(workspace: Workspace, n: int, overrides: Mapping[str, Any]) -> Iterator[WorkerProcesses]:
    """`n` worker processes on this home until the block ends."""
    from engine.config import environment_of

    settings = workspace.settings
    commands = {f"worker-{number}": ["workers", "--no-tick"] for number in range(1, n + 1)}
    commands["waker"] = ["workers", "--only-wake"]
    environment = os.environ | environment_of(settings.home, overrides)
    with children(commands, settings.home / "logs", environment) as running:
        yield WorkerProcesses(workspace, running)


def fingerprint(workspace: Workspace, dataset: str) -> dict[str, Any]:
    """What two runs are compared by: rows of every table, the digest of a COCO file of all masks."""
    from engine.formats.manifest import file_sha256
    from engine.pipeline import snapshot
    from engine.pipeline.export import export
    from engine.store.datasets import dataset_named
    from engine.store.dump import row_counts

    with workspace.write() as session:
        rows = row_counts(session)
        taken = snapshot.take(session, dataset_named(session, dataset).id, "release")
    with tempfile.TemporaryDirectory() as folder:
        written = export(workspace, dataset, taken.id, Path(folder) / "coco", include_images=False)
        digest = file_sha256(written.folder / "annotations.json")
    return {"rows": rows, "masks": written.n_masks, "export_sha256": digest}
