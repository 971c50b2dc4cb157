"""`python -m tests.workers.rough`: a worker with arrows that no installation has, some of them deadly."""

import os
import re
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

KINDS = ("note", "linger", "with_torch", "segfault", "leave", "devour", "hang", "freeze")


def note(work: Work, *, number: int, seconds: float = 0.0) -> Write:
    """Takes its time; its only effect is an event."""
    time.sleep(seconds)

    def write(session: Session) -> dict[str, Any]:
        record_event(session, "noted", subject_id=number)
        return {}

    return write


def linger(work: Work, *, number: int) -> Write:
    """Works until it is asked to stop."""
    while True:
        work.stop_if_cancelled()
        time.sleep(0.05)


def with_torch(work: Work, *, number: int) -> Write:
    """Loads what every model needs."""
    import torch

    assert torch.zeros(1).sum() == 0
    return note(work, number=number)


def segfault(work: Work, *, number: int) -> Write:
    """What a broken native library does."""
    os.kill(os.getpid(), signal.SIGSEGV)
    return note(work, number=number)


def leave(work: Work, *, number: int) -> Write:
    """What a library does that ends the process by itself."""
    os._exit(3)


def devour(work: Work, *, number: int) -> Write:
    """What the kernel does to a process that took all memory."""
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    os.kill(os.getpid(), signal.SIGKILL)
    return note(work, number=number)


def hang(work: Work, *, number: int) -> Write:
    """Waits for what never comes; other threads of the process go on."""
    while True:
        time.sleep(1)


def freeze(work: Work, *, number: int) -> Write:
    """Native code that lets no other thread run: a pattern whose tries double with every letter."""
    re.match(r"(a+)+$", "a" * 60 + "b")
    return note(work, number=number)


def register() -> None:
    """Makes the arrows known; one is looked for in engine.pipeline, by the name of its module."""
    sys.modules["engine.pipeline.rough"] = sys.modules[__name__]
    for kind in KINDS:
        loop.ARROWS[kind] = f"rough:{kind}"


if __name__ == "__main__":
    register()
    sys.exit(main())
