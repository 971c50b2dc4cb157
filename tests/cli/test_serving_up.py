"""`up`: page and worker as child processes, one link that signs in, and a clean end."""

import json
import os
import re
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from tests.cli.conftest import Maskloop


@contextmanager
def up(home: Path, environment: dict[str, str]) -> Iterator[tuple[subprocess.Popen[str], str]]:
    """A running `up` on a free port and the link it printed."""
    command = [sys.executable, "-m", "engine", "up", "--home", str(home), "--port", "0", "--json"]
    process = subprocess.Popen(
        command,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=environment,
        # A shell that runs the tests in the background has SIGINT ignored, and children inherit that.
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    )
    try:
        assert process.stdout is not None
        yield process, json.loads(process.stdout.readline() or "{}").get("link", "")
    finally:
        process.terminate()
        process.wait(30)


def children_of(process_id: int) -> list[int]:
    listed = Path(f"/proc/{process_id}/task/{process_id}/children").read_text()
    return [int(child) for child in listed.split()]


def is_gone(process_id: int) -> bool:
    status = Path(f"/proc/{process_id}/stat")
    return not status.exists() or status.read_text().rsplit(")", 1)[1].split()[0] == "Z"


def test_up_serves_signs_in_once_and_stops_both_processes(
    boxes: Path, maskloop: Maskloop, environment: dict[str, str]
) -> None:
    maskloop("stage", "open", "assisted-manual", "--home", boxes)
    with up(boxes, environment) as (process, link):
        found = re.fullmatch(r"(http://127\.0\.0\.1:\d+)/sign-in#token=(\S+)", link)
        assert found, process.stderr and process.stderr.read()
        request = urllib.request.Request(
            f"{found[1]}/api/v1/sign-in-link",
            data=json.dumps({"token": found[2]}).encode(),
            headers={"Content-Type": "application/json"},
        )
        with urllib.request.urlopen(request, timeout=30) as reply:
            assert json.load(reply)["user"]["role"] == "admin"
        assert len(children := children_of(process.pid)) == 2
        began = time.monotonic()
        process.send_signal(signal.SIGINT)
        assert process.wait(25) == 0
        assert time.monotonic() - began < 22
        assert all(is_gone(child) for child in children)


def test_a_worker_that_dies_begins_again_and_a_page_that_dies_ends_all(
    home: Path, environment: dict[str, str]
) -> None:
    with up(home, environment) as (process, link):
        assert link and process.stderr is not None
        page, worker = children_of(process.pid)
        os.kill(worker, signal.SIGKILL)
        said = process.stderr.readline()
        assert "the worker ended by itself (code -9)" in said and "begins again in 1 s" in said
        deadline = time.monotonic() + 30
        while len(children_of(process.pid)) < 2 and time.monotonic() < deadline:
            time.sleep(0.1)
        (heir,) = set(children_of(process.pid)) - {page}
        os.kill(page, signal.SIGKILL)
        assert process.wait(30) == 1
        assert "the page ended by itself" in process.stderr.read()
        assert is_gone(worker) and is_gone(heir)


def test_a_busy_port_is_one_line_that_names_the_option(home: Path, maskloop: Maskloop) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        ended = maskloop("up", "--home", home, "--port", taken.getsockname()[1])
    assert ended.code == 1
    assert "--port" in ended.err and ended.err.count("\n") == 1
