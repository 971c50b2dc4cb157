"""Two ways to do the same work, timed in turns on a machine that is never quiet: only their ratio counts."""

import json
import os
import platform
import statistics
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field

import torch

# A run whose matrix products moved by more than this was disturbed (PERFORMANCE section 8).
MOST_DRIFT = 0.3


@dataclass(frozen=True)
class Goal:
    """Ratios to reach: what is asked for, and what would be fine."""

    floor: float
    ambition: float | None = None

    def verdict(self, ratio: float) -> str:
        """Which of the two is reached: ambition, floor, or missed."""
        if self.ambition is not None and ratio >= self.ambition:
            return "ambition"
        return "floor" if ratio >= self.floor else "missed"

    def __str__(self) -> str:
        return f"x{self.floor:g}" + (f" / x{self.ambition:g}" if self.ambition else "")


@dataclass(frozen=True)
class Row:
    """One line of the table: seconds per unit of both ways, in the order they were measured."""

    what: str
    unit: str
    ours_s: list[float]
    plain_s: list[float]
    goal: Goal | None = None
    difference: float | None = None
    ratios: list[float] = field(init=False)

    def __post_init__(self) -> None:
        ratios = [plain / ours for ours, plain in zip(self.ours_s, self.plain_s, strict=True)]
        object.__setattr__(self, "ratios", ratios)

    @property
    def ratio(self) -> float:
        """How many times as fast ours is: the median over the pairs."""
        return statistics.median(self.ratios)

    @property
    def verdict(self) -> str:
        """Whether the goal is met; empty without one."""
        return self.goal.verdict(self.ratio) if self.goal else ""

    def cells(self) -> list[str]:
        """The row as it is printed."""
        spread = f"x{self.ratio:.2f} ({min(self.ratios):.2f} to {max(self.ratios):.2f}, n={len(self.ratios)})"
        difference = "" if self.difference is None else f"{self.difference:.0e}"
        figures = [self._figure(self.ours_s), self._figure(self.plain_s), spread]
        return [self.what, *figures, str(self.goal or ""), self.verdict, difference]

    def _figure(self, seconds: list[float]) -> str:
        median = statistics.median(seconds)
        return f"{median * 1e3:.1f} ms" if self.unit == "ms" else f"{1 / median:.3g} {self.unit}"


HEADS = ("what", "ours", "plain", "ratio (spread)", "goal", "met", "differ by")


def timed(work: Callable[[], object], clock: Callable[[], float] = time.perf_counter) -> float:
    """Seconds of one call, by a clock of the wall or of the processor."""
    began = clock()
    work()
    return clock() - began


def in_pairs(
    ours: Callable[[], object],
    plain: Callable[[], object],
    n_pairs: int,
    clock: Callable[[], float],
    units: tuple[int, int] = (1, 1),
) -> tuple[list[float], list[float]]:
    """Seconds per unit of each, in turns, the first one changing; `units` are how many a call does. A first
    call of each, which fills caches and compiles, is not counted."""
    ours(), plain()
    seconds: tuple[list[float], list[float]] = ([], [])
    for number in range(n_pairs):
        for side in (0, 1) if number % 2 == 0 else (1, 0):
            seconds[side].append(timed((ours, plain)[side], clock) / units[side])
    return seconds


def gemm_gflops(clock: Callable[[], float], n_tries: int = 7) -> float:
    """Median rate of one matrix product of a ViT-B, in GFLOP/s: how quiet the machine is."""
    a, b = torch.randn(2048, 768), torch.randn(768, 3072)
    seconds = statistics.median(timed(lambda: a @ b, clock) for _ in range(n_tries))
    return 2 * 2048 * 768 * 3072 / seconds / 1e9


def machine() -> str:
    """What this ran on, in one line."""
    load = os.getloadavg()[0] if hasattr(os, "getloadavg") else float("nan")
    cores = f"{torch.get_num_threads()} of {os.cpu_count()} cores, {torch.backends.cpu.get_cpu_capability()}"
    return f"{platform.machine()}, {cores}, torch {torch.__version__}, load {load:.1f}"


def as_table(rows: Sequence[Row]) -> str:
    """The rows as a Markdown table."""
    lines = [list(HEADS), *(row.cells() for row in rows)]
    widths = [max(len(line[column]) for line in lines) for column in range(len(HEADS))]
    lines.insert(1, ["-" * width for width in widths])
    padded = ([cell.ljust(width) for cell, width in zip(line, widths, strict=True)] for line in lines)
    return "\n".join(f"| {' | '.join(cells)} |" for cells in padded)


def as_json(rows: Sequence[Row], notes: dict[str, object]) -> str:
    """The same with every pair, for other programs."""
    written = [asdict(row) | {"ratio": row.ratio, "verdict": row.verdict} for row in rows]
    return json.dumps(notes | {"rows": written}, indent=1)
