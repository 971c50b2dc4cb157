"""Processes of ours that a command starts, watches and stops: the page, workers."""

from __future__ import annotations

import subprocess
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from engine.errors import Unavailable

# The worker gives its jobs back within 15 s of being told to stop.
STOPPED_WITHIN_S = 20.0
# A worker that died begins again after 1, 2, 4, ... seconds; one that had lived for long, after one again.
LONGEST_PAUSE_S = 60.0
LONG_LIVED_S = 300.0


@dataclass
class Child:
    """`python -m module ...`, begun when made; what it prints goes to its log."""

    name: str
    command: Sequence[str]
    log: Path
    environment: Mapping[str, str]
    pause_s: float = 1.0
    again_at: float | None = None
    process: subprocess.Popen[bytes] = field(init=False)
    began_at: float = field(init=False)

    def __post_init__(self) -> None:
        self._begin()

    def runs(self) -> bool:
        """True until it ended."""
        return self.process.poll() is None

    def lines(self) -> list[str]:
        """What it printed so far, without empty lines."""
        return [line for line in self.log.read_text("utf-8", "replace").splitlines() if line.strip()]

    def epitaph(self) -> str:
        """Its own last words where they are a sentence of ours, else where to read them."""
        last = (self.lines() or ["without a word"])[-1][-300:]
        for stated in ("annotator_ui: ", "error: "):
            if last.startswith(stated):
                return last.removeprefix(stated)
        return f"the {self.name} ended by itself (code {self.process.returncode}): {last} (see {self.log})"

    def keep_alive(self) -> None:
        """Begins it again after a pause if it died, and says so; to be called often. Raises Unavailable for a
        fault it has stated, such as settings it refuses: it would only state that again."""
        if self.runs():
            return
        if self.again_at is not None:
            self._begin_again_if_time()
            return
        if self.process.returncode == 1 and self.lines() and self.lines()[-1].startswith("error: "):
            raise Unavailable(self.epitaph())
        if time.monotonic() - self.began_at > LONG_LIVED_S:
            self.pause_s = 1.0
        print(f"maskloop: {self.epitaph()}; it begins again in {self.pause_s:.0f} s", file=sys.stderr)
        self.again_at = time.monotonic() + self.pause_s

    def _begin_again_if_time(self) -> None:
        if self.again_at is not None and time.monotonic() >= self.again_at:
            self._begin()
            self.again_at = None
            self.pause_s = min(2 * self.pause_s, LONGEST_PAUSE_S)

    def _begin(self) -> None:
        with self.log.open("ab") as sink:
            # A session of their own: Ctrl+C reaches only us, and we stop them in good order.
            self.process = subprocess.Popen(
                [sys.executable, "-m", *self.command],
                env=dict(self.environment),
                stdin=subprocess.DEVNULL,
                stdout=sink,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
        self.began_at = time.monotonic()


@contextmanager
def children(
    commands: Mapping[str, Sequence[str]], logs: Path, environment: Mapping[str, str]
) -> Iterator[list[Child]]:
    """A child for each name and its module with arguments; all are stopped when the block ends, however it
    ends."""
    logs.mkdir(parents=True, exist_ok=True)
    started: list[Child] = []
    try:
        for name, command in commands.items():
            log = logs / f"{name}.log"
            log.unlink(missing_ok=True)
            started.append(Child(name, command, log, environment))
        yield started
    finally:
        _stop(started)


def _stop(children: Sequence[Child]) -> None:
    """Asks all to end, waits together for at most STOPPED_WITHIN_S, then ends them by force."""
    for child in children:
        if child.runs():
            child.process.terminate()
    deadline = time.monotonic() + STOPPED_WITHIN_S
    try:
        for child in children:
            child.process.wait(max(0.0, deadline - time.monotonic()))
    except (subprocess.TimeoutExpired, KeyboardInterrupt):
        for child in children:
            if child.runs():
                child.process.kill()
