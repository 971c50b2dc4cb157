"""What every drill has in common: its scale, its seed, a hard end, one printed line of figures."""

import os
import signal
import time
from collections.abc import Callable, Collection, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from types import FrameType

import numpy as np
import pytest

from engine.pipeline.doctor import examine
from engine.store.session import Workspace

# `make faults SCALE=0.1` runs a tenth of everything.
FULL = float(os.environ.get("FAULTS_SCALE", "1"))
SEED = int(os.environ.get("FAULTS_SEED", "20261122"))


def short_and_full(short: float) -> pytest.MarkDecorator:
    """The drill runs at its short scale in `make test` and whole in `make faults`."""
    scales = [pytest.param(short, id="short"), pytest.param(FULL, id="full", marks=pytest.mark.faults)]
    return pytest.mark.parametrize("scale", scales)


def full_only() -> pytest.MarkDecorator:
    """The drill runs in `make faults` only."""
    return pytest.mark.parametrize("scale", [pytest.param(FULL, id="full", marks=pytest.mark.faults)])


@dataclass
class Drill:
    """One run of one drill. `claim` holds figures against goals, `end` prints and judges them."""

    name: str
    scale: float
    say: Callable[[str], None]
    seed: int = SEED
    figures: list[str] = field(default_factory=list)
    missed: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.rng = np.random.default_rng(self.seed)
        self.began = time.monotonic()

    def n(self, full: int, least: int = 1) -> int:
        """So many at this scale."""
        return max(least, round(full * self.scale))

    def claim(self, what: str, figure: float, most: float) -> None:
        """A figure that is to be `most` at most; the goal comes from RELIABILITY section 6 or issue 3."""
        written = f"{what} {figure:.4g} (goal <= {most:g})"
        self.figures.append(written)
        if figure > most:
            self.missed.append(written)

    def claim_least(self, what: str, figure: float, least: float) -> None:
        """A figure that is to be `least` at least."""
        written = f"{what} {figure:.4g} (goal >= {least:g})"
        self.figures.append(written)
        if figure < least:
            self.missed.append(written)

    def note(self, what: str, figure: float) -> None:
        """A figure without a goal."""
        self.figures.append(f"{what} {figure:.4g}")

    def examined(self, workspace: Workspace, but: Collection[str] = ()) -> None:
        """What the doctor says of what the drill left behind: every drill ends with it. `but` names the
        rules that the drill breaks by what it is."""
        found = [finding for finding in examine(workspace).findings if finding.check not in but]
        self.claim("doctor's findings", len(found), 0)
        self.missed += [f"{finding.check}: {finding.first}" for finding in found]

    def end(self) -> None:
        """Prints the drill's one line; fails when a goal was missed."""
        took = f"{time.monotonic() - self.began:.0f} s"
        self.say(f"{self.name}: {', '.join(self.figures)}; scale {self.scale:g}, seed {self.seed}, {took}")
        assert not self.missed, f"{self.name} missed: {'; '.join(self.missed)}"


@contextmanager
def hard_limit(seconds: float) -> Iterator[None]:
    """Fails whatever is still going on inside after so long, even where it waits without an end."""

    def too_long(_number: int, _frame: FrameType | None) -> None:
        raise TimeoutError(f"the drill did not end within {seconds:g} s")

    def told_to_end(_number: int, _frame: FrameType | None) -> None:
        raise KeyboardInterrupt

    before = signal.signal(signal.SIGALRM, too_long)
    # As Ctrl-C, so that the fixtures end the drill's servers and workers on the way out.
    before_term = signal.signal(signal.SIGTERM, told_to_end)
    signal.setitimer(signal.ITIMER_REAL, seconds)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)
        signal.signal(signal.SIGTERM, before_term)


def wait_for(reached: Callable[[], bool], seconds: float, what: str, every_s: float = 0.1) -> float:
    """Seconds until it was so; fails the drill when it does not come about."""
    began = time.monotonic()
    while not reached():
        assert time.monotonic() - began < seconds, f"waited {seconds:g} s in vain: {what}"
        time.sleep(every_s)
    return time.monotonic() - began
