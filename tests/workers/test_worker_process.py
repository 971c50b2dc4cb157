"""Real worker processes: killed, stopped and started again, the work is done exactly once."""

import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from sqlalchemy import select

from engine.config import Settings, load_settings
from engine.errors import Unavailable
from engine.store.embeddings import Embedding
from engine.store.jobs import Due
from engine.store.session import Workspace
from tests.conftest import REPOSITORY, a_home
from tests.workers.conftest import Farm, open_stage, wait_for
from workers.__main__ import main
from workers.app import make_app
from workers.tick import CeleryBroker


def embedded_images(workspace: Workspace) -> list[int]:
    with workspace.read() as session:
        return sorted(session.scalars(select(Embedding.image_id)))


def test_a_killed_worker_loses_nothing_and_repeats_nothing(farm: Farm, tiny_weights: bytes) -> None:
    images = open_stage(farm.workspace, tiny_weights, n_images=2)
    first = farm.start()
    wait_for(lambda: "running" in farm.states())
    farm.kill(first)
    assert embedded_images(farm.workspace) == []
    second = farm.start()
    wait_for(lambda: farm.states() == {"done"})
    assert embedded_images(farm.workspace) == sorted(images)
    assert [len(farm.jobs()), max(job.attempt for job in farm.jobs())] == [2, 2]
    second.send_signal(signal.SIGTERM)
    assert second.wait(timeout=20) == 0


def test_a_stopped_worker_gives_its_jobs_back_within_twenty_seconds(farm: Farm, tiny_weights: bytes) -> None:
    open_stage(farm.workspace, tiny_weights, n_images=2)
    worker, began = farm.start(), time.monotonic()
    wait_for(lambda: "running" in farm.states())
    worker.send_signal(signal.SIGTERM)
    assert worker.wait(timeout=20) == 0 and time.monotonic() - began < 40
    assert farm.states() <= {"queued", "done"}


def test_a_worker_that_cannot_start_says_why_in_one_line(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    home = a_home(tmp_path / "home").home
    assert main(["--home", str(home)]) == 1
    assert main(["--home", str(home), "--no-tick"]) == 1
    no_database, no_tick = capsys.readouterr().err.splitlines()
    assert "maskloop db upgrade" in no_database and "--no-tick" in no_tick


@pytest.mark.slow
def test_a_broker_that_is_away_is_said_quickly(settings: Settings) -> None:
    away = load_settings(settings.home, {"worker": {"broker": "redis://127.0.0.1:1/0"}})
    began = time.monotonic()
    broker = CeleryBroker(make_app(away))
    with pytest.raises(Unavailable, match="broker does not answer"):
        broker.send(Due(1, "embed", "cpu", 0, 10))
    with pytest.raises(Unavailable, match="broker does not answer"):
        broker.n_unread(["cpu"])
    assert time.monotonic() - began < 30


def test_an_unknown_queue_is_refused_in_a_line(
    settings: Settings, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["--home", str(settings.home), "--queues", "cpu,fast"]) == 1
    assert "no queue is called fast: choose of cpu, gpu, train, export" in capsys.readouterr().err


def test_importing_the_worker_leaves_torch_out() -> None:
    program = "import sys, workers.__main__; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", program], cwd=REPOSITORY, timeout=60).returncode == 0
