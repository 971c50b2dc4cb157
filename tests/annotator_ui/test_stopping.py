"""SIGTERM to a serving process: what has begun is answered whole, what has not is refused."""

import http.client
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from typing import Any

import pytest

from tests.conftest import REPOSITORY

SLOW_SERVER = """
import socket, sys, time
import waitress
from annotator_ui import serving

def app(environ, start_response):
    start_response("200 OK", [("Content-Type", "text/plain")])
    time.sleep(float(environ["QUERY_STRING"] or 0))
    return [b"x" * 300_000]

serving.GRACE_S = 3.0
listener = socket.create_server(("127.0.0.1", 0))
server = waitress.create_server(app, sockets=[listener], threads=2)
print(listener.getsockname()[1], flush=True)
serving.serve(server)
print("ended", flush=True)
"""


@pytest.fixture
def slow_server() -> Iterator[tuple[subprocess.Popen[str], int]]:
    """A process serving 300 kB after as many seconds as the query says, and its port."""
    command = [sys.executable, "-c", SLOW_SERVER]
    process = subprocess.Popen(command, cwd=REPOSITORY, stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    yield process, int(process.stdout.readline())
    if process.poll() is None:
        process.kill()
    process.wait()
    process.stdout.close()


def asked(port: int, seconds: float, answers: list[Any]) -> threading.Thread:
    """A client in a thread; its answer, (status, bytes) or the error, is appended."""

    def ask() -> None:
        connection = http.client.HTTPConnection("127.0.0.1", port, timeout=20)
        try:
            connection.request("GET", f"/?{seconds}")
            reply = connection.getresponse()
            answers.append((reply.status, len(reply.read())))
        except (OSError, http.client.HTTPException) as error:
            answers.append(error)
        finally:
            connection.close()

    thread = threading.Thread(target=ask)
    thread.start()
    return thread


def test_a_request_in_hand_ends_and_a_new_one_is_refused(
    slow_server: tuple[subprocess.Popen[str], int],
) -> None:
    process, port = slow_server
    answers: list[Any] = []
    client = asked(port, 1.5, answers)
    time.sleep(0.5)
    process.send_signal(signal.SIGTERM)
    time.sleep(0.3)
    with pytest.raises(ConnectionRefusedError):
        socket.create_connection(("127.0.0.1", port), timeout=2)
    client.join()
    assert answers == [(200, 300_000)]
    assert process.wait(timeout=5) == 0


def test_an_idle_connection_does_not_hold_the_server_up(
    slow_server: tuple[subprocess.Popen[str], int],
) -> None:
    process, port = slow_server
    with socket.create_connection(("127.0.0.1", port)):
        time.sleep(0.2)
        began = time.monotonic()
        process.send_signal(signal.SIGINT)
        assert process.wait(timeout=10) == 0 and time.monotonic() - began < 3


def test_a_request_without_end_is_cut_off_after_the_grace(
    slow_server: tuple[subprocess.Popen[str], int],
) -> None:
    process, port = slow_server
    answers: list[Any] = []
    client = asked(port, 15, answers)
    time.sleep(0.5)
    began = time.monotonic()
    process.send_signal(signal.SIGTERM)
    assert process.wait(timeout=10) == 0 and 2 < time.monotonic() - began < 8
    client.join()
    assert isinstance(answers[0], Exception)
