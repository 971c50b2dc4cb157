"""`python -m annotator_ui` as a process: it says where it serves, or in one line why it cannot."""

import json
import re
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from urllib.request import urlopen

import pytest

ROOT = Path(__file__).resolve().parents[2]
PREDICT = """
import sys
from pathlib import Path
from annotator_ui.app import create_app
from engine.config import load_settings
app = create_app(load_settings(Path(sys.argv[1])))
client = app.test_client()
body = {"name": "ann", "password": "a long enough password"}
headers = {"X-CSRF-Token": client.post("/api/v1/sign-in", json=body).json["csrf_token"]}
found = client.post("/api/v1/datasets/cells/assignments", json={}, headers=headers).json["assignment"]
click = {"prompts": [{"kind": "point", "x": 30, "y": 30, "label": 1}], "chosen": []}
where = f"/api/v1/assignments/{found['id']}/predictions"
assert len(client.post(where, json=click, headers=headers).json["candidates"]) == 3
print("torch" in sys.modules)
"""


def run(*arguments: str, timeout: float = 60) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, *arguments], cwd=ROOT, capture_output=True, text=True, timeout=timeout, check=False
    )


@pytest.fixture
def server(home: Path) -> Iterator[tuple[subprocess.Popen[str], str]]:
    """A serving process and its address, read from its own line."""
    command = [sys.executable, "-m", "annotator_ui", "--home", str(home), "--port", "0"]
    process = subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    line = process.stdout.readline()
    found = re.fullmatch(r"serving (http://127\.0\.0\.1:\d+)\n", line)
    assert found, line
    yield process, found[1]
    process.terminate()
    process.wait(10)
    process.stdout.close()


def test_the_server_says_where_it_serves_and_answers_there(
    server: tuple[subprocess.Popen[str], str], home: Path
) -> None:
    _, url = server
    with urlopen(f"{url}/healthz") as reply:
        assert json.load(reply)["status"] == "ok"
        assert "waitress" not in str(reply.headers)
    busy = run("-m", "annotator_ui", "--home", str(home), "--port", url.rpartition(":")[2])
    assert busy.returncode == 1 and busy.stderr.count("\n") == 1
    assert "--port" in busy.stderr and "Traceback" not in busy.stderr


@pytest.mark.parametrize(
    ("options", "word"),
    [(["--host", "no.such.host.invalid"], "cannot serve"), (["--port", "99999"], "settings refused")],
)
def test_an_address_that_cannot_be_served_is_one_line(home: Path, options: list[str], word: str) -> None:
    failed = run("-m", "annotator_ui", "--home", str(home), *options)
    assert failed.returncode == 1 and failed.stderr.count("\n") == 1 and word in failed.stderr


def test_a_home_without_a_database_is_one_line_that_says_what_to_run(tmp_path: Path) -> None:
    failed = run("-m", "annotator_ui", "--home", str(tmp_path / "none"))
    assert failed.returncode == 1 and failed.stderr.count("\n") == 1
    assert "maskloop db upgrade" in failed.stderr and not (tmp_path / "none").exists()


def test_a_prediction_in_the_web_process_loads_no_torch(home: Path) -> None:
    done = run("-c", PREDICT, str(home))
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip() == "False"


def test_a_port_that_is_taken_by_anybody_is_named(home: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = str(taken.getsockname()[1])
        failed = run("-m", "annotator_ui", "--home", str(home), "--port", port)
    assert failed.returncode == 1 and port in failed.stderr
