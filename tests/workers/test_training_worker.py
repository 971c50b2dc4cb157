"""A training in a real worker: stopped it is saved and given back, then it goes on, cancelled it ends."""

import os
import re
import signal
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors import safe_open

from engine.geometry.rle import encode
from engine.store import jobs
from engine.store.jobs import Job
from engine.store.model_versions import ModelVersion
from engine.store.session import Workspace
from engine.store.snapshots import SnapshotImage, SnapshotMask
from tests import factories
from tests.conftest import REDIS
from tests.workers.conftest import Farm, reopened, wait_for
from tests.workers.test_pool import state_of

pytestmark = pytest.mark.slow


@pytest.fixture(params=[1, 2], ids=["one process", "two processes by torchrun"])
def farm(request: pytest.FixtureRequest, postgres_workspace: Workspace, redis_prefix: str) -> Any:
    """As in production; the recipe's time is longer than any test waits."""
    overrides: dict[str, dict[str, Any]] = {
        "database": {"url": postgres_workspace.settings.database.url},
        "worker": {"threads": 2, "broker": REDIS, "key_prefix": redis_prefix},
        "train": {"processes": request.param, "max_seconds": 3000.0},
    }
    opened = Farm(reopened(postgres_workspace.settings, overrides), overrides)
    yield opened
    opened.close()


def ask_for_training(workspace: Workspace, model: tuple[bytes, bytes]) -> int:
    """A frozen snapshot of three pictures with two masks each, and the job that trains on it."""
    weights_sha256, decoder_sha256 = (workspace.blobs.put(part) for part in model)
    pixels_sha256 = workspace.blobs.put(factories.png(96, 96))
    with workspace.write() as session:
        dataset = factories.a_dataset(session)
        parent = ModelVersion(dataset_id=dataset.id, name="small", architecture="small", config={})
        parent.weights_sha256, parent.decoder_sha256 = weights_sha256, decoder_sha256
        factories.add(session, parent)
        snapshot = factories.a_snapshot(session, dataset.id)
        for n in range(3):
            columns = {"width": 96, "height": 96, "pixels_sha256": pixels_sha256}
            image = factories.an_image(workspace, session, dataset.id, n, **columns)
            session.add(SnapshotImage(snapshot_id=snapshot.id, image_id=image.id))
            for left in (8, 52):
                region = np.zeros((96, 96), bool)
                region[20:60, left : left + 36] = True
                mask = factories.a_mask(
                    session, image, counts=encode(region)["counts"], area=int(region.sum())
                )
                session.add(SnapshotMask(snapshot_id=snapshot.id, mask_id=mask.id))
        arguments = {"snapshot_id": snapshot.id, "parent_id": parent.id}
        return jobs.ask(session, "train", arguments, "train:1", queue="train", priority=60).id


def job_of(farm: Farm, job_id: int) -> Job:
    with farm.workspace.read() as session:
        return session.get_one(Job, job_id)


def step_of(farm: Farm, job_id: int) -> int:
    return int((job_of(farm, job_id).progress or {}).get("step", 0))


def descendants(process_id: int) -> list[int]:
    found = []
    for task in Path(f"/proc/{process_id}/task").glob("*"):
        for child in map(int, (task / "children").read_text().split()):
            found += [child, *descendants(child)]
    return found


def saved_step(home: Path) -> int:
    (state,) = home.glob("training/*/run/finetune/state.safetensors")
    with safe_open(state, framework="pt") as stream:
        found = re.search(r'"step": (\d+)', stream.metadata()["progress"])
    assert found
    return int(found[1])


def test_a_training_is_stopped_in_good_order_goes_on_and_is_cancelled(
    farm: Farm, small_model: tuple[bytes, bytes]
) -> None:
    job_id = ask_for_training(farm.workspace, small_model)
    worker = farm.start("--queues", "train")
    wait_for(lambda: step_of(farm, job_id) >= 5, 180)
    processes = descendants(worker.pid)
    began = time.monotonic()
    os.kill(worker.pid, signal.SIGTERM)
    assert worker.wait(timeout=20) == 0
    print(f"stopped in {time.monotonic() - began:.1f} s")
    given_back = job_of(farm, job_id)
    assert (given_back.state, given_back.max_attempts - given_back.attempt) == ("queued", 3)
    wait_for(lambda: all(state_of(process_id) == "Z" for process_id in processes), 5)
    saved = saved_step(farm.workspace.settings.home)
    assert saved >= 5

    farm.start("--queues", "train")
    wait_for(lambda: step_of(farm, job_id) > saved, 180)
    with farm.workspace.write() as session:
        assert jobs.request_cancel(session, job_id) == "running"
    began = time.monotonic()
    wait_for(lambda: job_of(farm, job_id).state == "cancelled", 15)
    print(f"cancelled in {time.monotonic() - began:.1f} s")


def test_a_killed_worker_leaves_no_trainer_behind(farm: Farm, small_model: tuple[bytes, bytes]) -> None:
    job_id = ask_for_training(farm.workspace, small_model)
    worker = farm.start("--queues", "train")
    wait_for(lambda: step_of(farm, job_id) >= 5, 180)
    processes = descendants(worker.pid)
    for process_id in (worker.pid, *(child for child in processes if is_worker(child))):
        os.kill(process_id, signal.SIGKILL)
    wait_for(lambda: all(state_of(process_id) == "Z" for process_id in processes), 10)


def is_worker(process_id: int) -> bool:
    return "engine.training" not in Path(f"/proc/{process_id}/cmdline").read_text()


def test_a_trainer_that_falls_silent_is_ended_and_the_next_attempt_goes_on(
    farm: Farm, small_model: tuple[bytes, bytes]
) -> None:
    """As ranks that wait for each other for ever. Its listener leaves in good order, so its process stays."""
    farm.overrides["worker"] |= {"stall_s": 30.0}
    job_id = ask_for_training(farm.workspace, small_model)
    worker = farm.start("--queues", "train")
    wait_for(lambda: step_of(farm, job_id) >= 5, 180)
    before = descendants(worker.pid)
    trainers = [process_id for process_id in before if not is_worker(process_id)]
    for process_id in trainers:
        os.kill(process_id, signal.SIGSTOP)
    wait_for(lambda: "no progress for 30 s" in str(job_of(farm, job_id).reason), 60)
    wait_for(lambda: all(state_of(process_id) == "Z" for process_id in trainers), 5)
    wait_for(lambda: job_of(farm, job_id).attempt == 2 and step_of(farm, job_id) >= 5, 180)
    assert set(before) - set(trainers) <= set(descendants(worker.pid)), "its worker's child is another"
