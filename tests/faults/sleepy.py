"""`python -m tests.faults.sleepy`: a worker whose arrows sleep where real ones compute; some are deadly.

The ledger, the tick, Celery and the pool are the real ones. An arrow's effect is an event without any unique
key, so that an effect that happened twice shows.
"""

import os
import resource
import signal
import sys
import time
from typing import Any

from sqlalchemy.orm import Session

from engine.pipeline import loop
from engine.store.events import record_event
from engine.store.runner import Work, Write
from workers.__main__ import main

DEED = "drill.deed"
# Enough for the process as it is, not for what `leak` then asks for.
LEAK_LIMIT_BYTES = 1 << 30


def nap(work: Work, *, number: int, seconds: float) -> Write:
    """Nothing but time, and the deed."""
    time.sleep(seconds)
    return _deed(number)


def knead(work: Work, *, number: int, seconds: float) -> Write:
    """Leaves a file as an embedding does: before its row, under its digest."""
    time.sleep(seconds / 2)
    content = work.workspace.blobs.put(f"dough {number}".encode() * 1000)
    time.sleep(seconds / 2)
    return _deed(number, content)


def stroll(work: Work, *, number: int, seconds: float) -> Write:
    """Many steps, each asking whether to go on."""
    for _ in range(10):
        work.stop_if_cancelled()
        work.progress({"number": number})
        time.sleep(seconds / 10)
    return _deed(number)


def segfault(work: Work, *, number: int, seconds: float) -> Write:
    """What a broken native library does."""
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    os.kill(os.getpid(), signal.SIGSEGV)
    return _deed(number)


def leave(work: Work, *, number: int, seconds: float) -> Write:
    """What a library does that ends the process by itself."""
    os._exit(3)


def leak(work: Work, *, number: int, seconds: float) -> Write:
    """Takes memory until the limit of the process says no."""
    before = resource.getrlimit(resource.RLIMIT_AS)
    held = []
    try:
        resource.setrlimit(resource.RLIMIT_AS, (LEAK_LIMIT_BYTES, before[1]))
        while True:
            held.append(bytearray(1 << 26))
    finally:
        held.clear()
        resource.setrlimit(resource.RLIMIT_AS, before)


def whirl(work: Work, *, number: int, seconds: float) -> Write:
    """What native code does that never comes back; it sleeps, since the drill shares its machine."""
    while True:
        time.sleep(1)


def _deed(number: int, content: str | None = None) -> Write:
    process_id = os.getpid()

    def write(session: Session) -> dict[str, Any]:
        record_event(session, DEED, subject_id=number, process=process_id, content=content)
        return {}

    return write


ARROWS = {arrow.__name__: arrow for arrow in (nap, knead, stroll, segfault, leave, leak, whirl)}


if __name__ == "__main__":
    # An arrow is looked for in engine.pipeline, by the name of its module.
    sys.modules["engine.pipeline.sleepy"] = sys.modules[__name__]
    for kind in ARROWS:
        loop.ARROWS[kind] = f"sleepy:{kind}"
    sys.exit(main())
