"""Jobs that never come back, in real processes: the attempt ends with its reason, all other work goes on."""

import subprocess
import sys
import time
from collections import Counter
from pathlib import Path

import pytest

from engine.config import environment_of
from engine.store.jobs import Job
from tests.conftest import REPOSITORY
from tests.workers.conftest import Farm, wait_for
from tests.workers.test_pool import LEASE_S, ROUGH, ask, children_of, ended, n_effects, rows
from workers.job_task import EXIT_STUCK

STALL_S = 1.5
REASON = "it showed no progress for 1.5 s (worker.stall_s) and was ended"
FROZEN = 1


@pytest.fixture
def hasty(farm: Farm) -> Farm:
    """Both ways to run, where a job that is silent for a second and a half is stuck."""
    farm.overrides["worker"] |= {"stall_s": STALL_S}
    if not is_embedded(farm):
        farm.overrides["worker"] |= {"lease_s": LEASE_S}
    return farm


def is_embedded(farm: Farm) -> bool:
    return "broker" not in farm.overrides["worker"]


def until_ended(farm: Farm, ids: list[int]) -> list[int]:
    """Waits for the jobs and begins the worker again as `up` does; how the ones before ended."""
    worker, codes = farm.start(module=ROUGH), []
    end = time.monotonic() + 90
    while not ended(farm, ids):
        assert time.monotonic() < end, [(job.kind, job.state, job.reason) for job in farm.jobs()]
        if worker.poll() is not None:
            codes.append(worker.returncode)
            worker = farm.start(module=ROUGH)
        time.sleep(0.1)
    if not is_embedded(farm):
        assert worker.poll() is None
        wait_for(lambda: len(children_of(worker.pid)) == 2)
    return codes


def test_a_stuck_job_is_tried_again_then_failed_and_no_other_is_harmed(hasty: Farm) -> None:
    notes, lingering, stuck = ask(hasty, "note", n=5), ask(hasty, "linger"), ask(hasty, "hang")
    codes = until_ended(hasty, stuck + notes)
    if is_embedded(hasty):
        # The last one may not have ended yet.
        assert codes and set(codes) == {EXIT_STUCK}
    else:
        assert codes == []
    (job,) = rows(hasty, stuck)
    assert (job.state, job.attempt, job.reason) == ("failed", 2, REASON)
    assert {one.state for one in rows(hasty, notes)} == {"done"} and n_effects(hasty) == Counter(range(5))
    # What ran beside it was given back at no cost.
    wait_for(lambda: rows(hasty, lingering)[0].state in ("queued", "running"))
    other: Job = rows(hasty, lingering)[0]
    assert other.reason is None and other.max_attempts - other.attempt >= 1


def test_native_code_that_stops_all_of_python_is_ended_by_the_watchdog(hasty: Farm) -> None:
    frozen = ask(hasty, "freeze")
    codes = until_ended(hasty, frozen)
    assert set(codes) == ({FROZEN} if is_embedded(hasty) else set())
    (job,) = rows(hasty, frozen)
    assert (job.state, job.attempt) == ("failed", 2)
    # The parent sees its child die and says so, unless the lease has run out before it looked.
    told = ("without an answer",) if is_embedded(hasty) else ("exit code 1", "without an answer")
    assert any(words in str(job.reason) for words in told)


def test_a_command_that_works_by_itself_ends_with_one_line(farm: Farm, tmp_path: Path) -> None:
    (stuck,) = ask(farm, "hang")
    program = "from tests.workers import rough; rough.register(); from engine.cli import main; main(['work'])"
    variables = environment_of(
        farm.workspace.settings.home, farm.overrides | {"worker": {"stall_s": STALL_S}}
    )
    command = [sys.executable, "-c", program]
    done = subprocess.run(
        command, cwd=REPOSITORY, env=variables, stderr=subprocess.PIPE, text=True, timeout=60
    )
    assert done.returncode == 1
    assert done.stderr.splitlines() == [f"maskloop: job {stuck} (hang): {REASON}"]
    (job,) = rows(farm, [stuck])
    assert (job.state, job.attempt, job.reason) == ("queued", 1, REASON)
