"""Who holds which device, tried by real processes on names of devices that this machine does not have."""

import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from engine.config import Settings, load_settings
from engine.errors import BadInput
from engine.store.device_slots import device_slot
from tests.conftest import REPOSITORY

HOLDER = """
import sys
from pathlib import Path
from engine.config import load_settings
from engine.store.device_slots import device_slot
home, kind = sys.argv[1:]
overrides = {"worker": {"devices": ["cuda:0", "cuda:1"]}}
with device_slot(load_settings(Path(home), overrides), kind) as slot:
    print(",".join(slot.devices), flush=True)
    sys.stdin.read()
"""


def with_devices(settings: Settings, *devices: str, processes: int = 1) -> Settings:
    overrides = {"worker": {"devices": list(devices)}, "train": {"processes": processes}}
    return load_settings(settings.home, overrides)


@pytest.fixture
def two_gpus(settings: Settings) -> Settings:
    return with_devices(settings, "cuda:0", "cuda:1")


@contextmanager
def another_process(settings: Settings, kind: str) -> Iterator[tuple[subprocess.Popen[str], str]]:
    """A process that holds a slot of that kind until the block ends, and the devices it was given."""
    command = [sys.executable, "-c", HOLDER, str(settings.home), kind]
    with subprocess.Popen(
        command, cwd=REPOSITORY, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as process:
        assert process.stdin is not None and process.stdout is not None
        yield process, process.stdout.readline().strip()
        process.stdin.close()


class Waited(Exception):
    """A training found no device free."""


def give_up() -> None:
    raise Waited


def test_on_a_machine_without_a_gpu_nothing_is_locked(settings: Settings) -> None:
    alone = with_devices(settings, "cpu", processes=2)
    with device_slot(alone, "train") as training, device_slot(alone, "embed") as embedding:
        assert (training.devices, embedding.devices) == (("cpu", "cpu"), ("cpu",))
    assert not (settings.home / "locks").exists()


def test_embedding_and_training_never_hold_one_device(two_gpus: Settings) -> None:
    with another_process(two_gpus, "train") as (_, trained_on):
        for _ in range(2):
            with device_slot(two_gpus, "embed") as slot:
                assert slot.device in {"cuda:0", "cuda:1"} - {trained_on}


def test_embeddings_share_a_device_and_a_training_waits_for_them(settings: Settings) -> None:
    one_gpu = with_devices(settings, "cuda:0")
    with device_slot(one_gpu, "embed") as first, device_slot(one_gpu, "evaluate") as second:
        assert first.device == second.device == "cuda:0"
        with pytest.raises(Waited), device_slot(one_gpu, "train", give_up):
            pass
    with device_slot(one_gpu, "train", give_up) as slot:
        assert slot.devices == ("cuda:0",)


def test_where_training_holds_every_device_an_image_is_embedded_on_the_cpu_at_once(
    two_gpus: Settings, caplog: pytest.LogCaptureFixture
) -> None:
    with another_process(two_gpus, "train") as (_, first), another_process(two_gpus, "train") as (_, second):
        assert {first, second} == {"cuda:0", "cuda:1"}
        began = time.monotonic()
        with device_slot(two_gpus, "embed") as slot:
            assert slot.device == "cpu" and time.monotonic() - began < 1
    assert "embed runs on the CPU" in caplog.text


def test_a_training_that_waits_lets_no_newcomer_in(settings: Settings) -> None:
    one_gpu = with_devices(settings, "cuda:0")
    devices_of_newcomers: list[str] = []

    def someone_comes() -> None:
        with device_slot(one_gpu, "embed") as newcomer:
            devices_of_newcomers.append(newcomer.device)
        raise Waited

    with device_slot(one_gpu, "embed"):
        with pytest.raises(Waited), device_slot(one_gpu, "train", someone_comes):
            pass
    assert devices_of_newcomers == ["cpu"]
    with device_slot(one_gpu, "embed") as afterwards:
        assert afterwards.device == "cuda:0", "a wait that was given up leaves nothing behind"


def test_a_killed_process_holds_nothing(two_gpus: Settings) -> None:
    two_at_once = with_devices(two_gpus, "cuda:0", "cuda:1", processes=2)
    with another_process(two_gpus, "train") as (holder, _):
        with pytest.raises(Waited), device_slot(two_at_once, "train", give_up):
            pass
        holder.kill()
        holder.wait()
        with device_slot(two_at_once, "train", give_up) as slot:
            assert slot.devices == ("cuda:0", "cuda:1")


def test_a_trainer_that_outlives_its_worker_keeps_the_device(settings: Settings) -> None:
    one_gpu = with_devices(settings, "cuda:0")
    with device_slot(one_gpu, "train") as slot:
        trainer = subprocess.Popen(["sleep", "60"], pass_fds=slot.lock_fds)
    try:
        with device_slot(one_gpu, "embed") as other:
            assert other.device == "cpu"
    finally:
        trainer.kill()
        trainer.wait()
    with device_slot(one_gpu, "embed") as other:
        assert other.device == "cuda:0"


def test_more_processes_than_devices_are_refused_in_a_sentence(settings: Settings) -> None:
    asked = with_devices(settings, "cuda:0", processes=2)
    with pytest.raises(BadInput, match=r"train\.processes is 2, but worker\.devices names 1"):
        with device_slot(asked, "train"):
            pass


def test_locks_are_files_of_this_machine_under_the_home(settings: Settings) -> None:
    with device_slot(with_devices(settings, "cuda:0"), "embed"):
        locks = list(Path(settings.home / "locks").glob("*/*.lock"))
    assert {lock.name for lock in locks} == {"cuda-0.lock", "cuda-0.door.lock"}
