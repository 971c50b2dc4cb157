"""Serving by waitress until told to stop; then requests in hand end, and no new ones are taken."""

import logging
import signal
import time
from typing import Any

logger = logging.getLogger(__name__)

# From the signal to the end, below the 20 s that an operator waits; predictions take seconds at most.
GRACE_S = 15.0


def serve(server: Any) -> None:
    """Runs a waitress server until SIGTERM or SIGINT, then answers what has begun, for GRACE_S at most.

    Call it in the main thread, where signals arrive. The listening socket closes first, so a proxy turns to
    another process at once.
    """
    signals: list[int] = []

    def stop(number: int, _frame: object) -> None:
        signals.append(number)
        server.pull_trigger()

    before = {number: signal.signal(number, stop) for number in (signal.SIGTERM, signal.SIGINT)}
    try:
        while not signals:
            _turn(server, wait_s=1.0)
        _end(server)
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _turn(server: Any, wait_s: float) -> None:
    # One look at every socket; waitress's own `run` is this without an end.
    server.asyncore.loop(timeout=wait_s, map=server._map, use_poll=server.adj.asyncore_use_poll, count=1)


def _end(server: Any) -> None:
    deadline = time.monotonic() + GRACE_S
    # Not server.close(): that also closes the trigger, by which threads say that an answer is ready.
    server.del_channel()
    server.socket.close()
    while _n_busy(server) and time.monotonic() < deadline:
        _turn(server, wait_s=0.1)
    if n_busy := _n_busy(server):
        logger.warning("%d requests were cut off after %.0f s", n_busy, GRACE_S)
    server.task_dispatcher.shutdown(timeout=1)


def _n_busy(server: Any) -> int:
    """Connections with a request that is arriving, being answered, or whose answer is not sent yet."""
    channels = list(server.active_channels.values())
    return sum(bool(one.requests or one.request is not None or one.total_outbufs_len) for one in channels)
