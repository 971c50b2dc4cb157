"""A home with something to do, and real worker processes that do it."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

import pytest
import torch
from sqlalchemy import select

from engine.config import Settings, environment_of, load_settings
from engine.modeling.checkpoint import save_checkpoint
from engine.modeling.registry import build_sam
from engine.store.jobs import Job
from engine.store.model_versions import ActiveModel, ModelVersion
from engine.store.session import Workspace, open_workspace
from tests import factories
from tests.conftest import REDIS, REPOSITORY


@pytest.fixture(scope="session")
def tiny_weights(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    """A seeded random tiny model as our own checkpoint."""
    torch.set_num_threads(1)
    sam = build_sam("tiny", seed=0)
    path = tmp_path_factory.mktemp("weights") / "tiny.safetensors"
    return save_checkpoint(path, sam.state_dict(), sam.config).read_bytes()


def open_stage(workspace: Workspace, weights: bytes, n_images: int) -> list[int]:
    """A dataset whose stage is open, with a model and images without embeddings; returns the image ids."""
    weights_sha256, decoder_sha256 = workspace.blobs.put(weights), workspace.blobs.put(b"no decoder")
    with workspace.write() as session:
        dataset = factories.a_dataset(session, open_stage="assisted_manual")
        version = ModelVersion(
            dataset_id=dataset.id,
            name="random-tiny",
            architecture="tiny",
            config={},
            weights_sha256=weights_sha256,
            decoder_sha256=decoder_sha256,
        )
        factories.add(session, version)
        session.add(ActiveModel(dataset_id=dataset.id, model_version_id=version.id))
        return [factories.an_image(workspace, session, dataset.id, n).id for n in range(n_images)]


@dataclass
class Farm:
    """A workspace and the worker processes started on it, each in a process group of its own."""

    workspace: Workspace
    overrides: dict[str, dict[str, Any]]
    started: list[subprocess.Popen[str]] = field(default_factory=list)

    def start(self, *options: str, module: str = "workers") -> subprocess.Popen[str]:
        """A worker that has said it is ready."""
        process = subprocess.Popen(
            [sys.executable, "-m", module, *options],
            cwd=REPOSITORY,
            env=os.environ
            | environment_of(self.workspace.settings.home, self.overrides)
            | {"OMP_NUM_THREADS": "1"},
            stdout=subprocess.PIPE,
            text=True,
            start_new_session=True,
        )
        self.started.append(process)
        assert process.stdout is not None
        assert "ready" in process.stdout.readline()
        return process

    def kill(self, process: subprocess.Popen[str]) -> None:
        """kill -9 to the worker and its children, as the kernel does when memory runs out."""
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()

    def close(self) -> None:
        """Kills whoever still works."""
        for process in self.started:
            if process.poll() is None:
                self.kill(process)
        self.workspace.close()

    def jobs(self) -> list[Job]:
        with self.workspace.read() as session:
            return list(session.scalars(select(Job).order_by(Job.id)))

    def states(self) -> set[str]:
        return {job.state for job in self.jobs()}


def wait_for(reached: Callable[[], bool], seconds: float = 60.0) -> None:
    """Returns once it is so; fails the test when it does not come about."""
    end = time.monotonic() + seconds
    while not reached():
        assert time.monotonic() < end, "waited in vain"
        time.sleep(0.05)


@pytest.fixture(params=["sqlite and memory", "postgres and redis"])
def farm(request: pytest.FixtureRequest) -> Iterator[Farm]:
    """Both ways to run: embedded, and as in production."""
    overrides: dict[str, dict[str, Any]] = {"worker": {"threads": 2}}
    if request.param == "sqlite and memory":
        workspace: Workspace = request.getfixturevalue("sqlite_workspace")
    else:
        workspace = request.getfixturevalue("postgres_workspace")
        overrides["database"] = {"url": workspace.settings.database.url}
        overrides["worker"] |= {"broker": REDIS, "key_prefix": request.getfixturevalue("redis_prefix")}
    opened = Farm(reopened(workspace.settings, overrides), overrides)
    yield opened
    opened.close()


def reopened(settings: Settings, overrides: dict[str, dict[str, Any]]) -> Workspace:
    return open_workspace(load_settings(settings.home, overrides))
