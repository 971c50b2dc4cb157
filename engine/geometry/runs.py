"""The two spellings of a COCO mask's runs: numbers, and the compressed string.

A mask is read column by column; its runs alternate background, foreground, background, ... (the first may
be 0).
In the string each run is written in 5-bit groups, lowest first, as characters 48..111 (bit 32: more follow,
bit 16 of the last group: negative); from the fourth run on, the difference to the run two before is written.
"""

import numpy as np
from numpy.typing import NDArray

from engine.errors import BadInput

Runs = NDArray[np.int64]

# Six groups hold +-2^29, ten times the largest image allowed. The C reader shifts a 32-bit int, so a
# seventh group is undefined behaviour there: it is refused here though some readers would take it.
MAX_CHARACTERS_PER_RUN = 6


def parse_runs(counts: str, *, max_runs: int | None = None) -> Runs:
    """Run lengths (N,) of a compressed string, all >= 0; raises BadInput if it is malformed or has more runs.

    Only the string is judged here; whether the runs fill an image is `check_total`'s part.
    """
    if not counts:
        raise BadInput("counts is empty: a mask has at least one run")
    if max_runs is not None and len(counts) > max_runs * MAX_CHARACTERS_PER_RUN:
        raise BadInput(f"counts has {len(counts)} characters, more than {max_runs} runs need: simplify it")
    groups = _groups(counts)
    ends = np.flatnonzero((groups & 32) == 0)
    n_characters = np.diff(ends, prepend=-1)
    if ends.size == 0 or ends[-1] != groups.size - 1:
        raise BadInput("counts ends in the middle of a run: the string was cut off")
    if n_characters.max() > MAX_CHARACTERS_PER_RUN:
        raise BadInput(f"counts has a run of more than {MAX_CHARACTERS_PER_RUN} characters: write it anew")
    if max_runs is not None and ends.size > max_runs:
        raise BadInput(f"counts has {ends.size} runs, more than the {max_runs} allowed: simplify the mask")
    return _undo_differences(_signed_values(groups, ends, n_characters))


def _groups(counts: str) -> NDArray[np.int64]:
    """The string as 6-bit groups, one for each character."""
    try:
        codes = np.frombuffer(counts.encode("ascii"), np.uint8)
    except UnicodeEncodeError:
        raise BadInput("counts has characters outside ASCII: only '0' to 'o' may occur") from None
    strange = (codes < 48) | (codes > 111)
    if strange.any():
        place = int(strange.argmax())
        raise BadInput(f"counts has {chr(codes[place])!r} at position {place}: only '0' to 'o' may occur")
    return codes.astype(np.int64) - 48


def _signed_values(groups: NDArray[np.int64], ends: Runs, n_characters: Runs) -> Runs:
    """Joins the groups of each run, lowest five bits first, and extends the sign."""
    starts = ends - n_characters + 1
    place = np.arange(groups.size) - np.repeat(starts, n_characters)
    values: Runs = np.add.reduceat((groups & 31) << (5 * place), starts)
    negative = (groups[ends] & 16) != 0
    values -= negative.astype(np.int64) << (5 * n_characters)
    return values


def _undo_differences(values: Runs) -> Runs:
    """Adds up the differences; the first three runs are written plain."""
    runs = values.copy()
    runs[1::2] = np.cumsum(values[1::2])
    runs[2::2] = np.cumsum(values[2::2])
    if runs.min() < 0:
        raise BadInput(f"counts has a negative run at position {int((runs < 0).argmax())}: write it anew")
    return runs


def format_runs(runs: Runs) -> str:
    """The compressed string of run lengths (N,), byte for byte as pycocotools writes it."""
    values = runs.astype(np.int64)
    values[3:] -= runs[1:-2]
    groups = np.zeros((values.size, MAX_CHARACTERS_PER_RUN), np.int64)
    needed = np.zeros(groups.shape, bool)
    open_ = np.ones(values.size, bool)
    for place in range(MAX_CHARACTERS_PER_RUN):
        group = values & 31
        values = values >> 5
        # A run is complete once the rest is nothing but its sign, as bit 16 of the last group tells it.
        more = open_ & (values != np.where(group & 16, -1, 0))
        groups[:, place] = group + 48 + 32 * more
        needed[:, place] = open_
        open_ = more
        if not more.any():
            break
    else:
        raise BadInput("a mask of more than 2^29 pixels has no compressed string: tile the image")
    return groups[needed].astype(np.uint8).tobytes().decode("ascii")


def check_total(runs: Runs, hw: tuple[int, int]) -> None:
    """Raises BadInput unless the runs fill the image exactly."""
    total, n_pixels = int(runs.sum()), hw[0] * hw[1]
    if total > n_pixels:
        raise BadInput(f"counts run past the image: {total} pixels for {hw[0]} x {hw[1]} = {n_pixels}")
    if total < n_pixels:
        raise BadInput(f"counts stop short of the image: {total} pixels for {hw[0]} x {hw[1]} = {n_pixels}")


def mask_to_runs(mask: NDArray[np.bool_]) -> Runs:
    """Run lengths of an (H, W) mask, canonical: only the first may be 0.

    Only the columns between the first and the last with foreground are read column by column.
    """
    height, width = mask.shape
    columns = np.flatnonzero(mask.any(axis=0))
    if columns.size == 0:
        return np.array([height * width], np.int64)
    first, last = int(columns[0]), int(columns[-1])
    band = np.zeros((last - first + 1) * height + 2, np.int8)
    band[1:-1] = mask[:, first : last + 1].T.reshape(-1)
    edges = np.flatnonzero(np.diff(band)) + first * height
    runs: Runs = np.diff(edges, prepend=0, append=height * width)
    return runs if runs[-1] else runs[:-1]


def runs_to_mask(runs: Runs, hw: tuple[int, int]) -> NDArray[np.bool_]:
    """The (H, W) mask of runs that fill it exactly."""
    values = (np.arange(runs.size) & 1).astype(bool)
    return np.repeat(values, runs).reshape(hw[1], hw[0]).T


def foreground_spans(runs: Runs) -> tuple[Runs, Runs]:
    """Starts and ends (exclusive), column-major positions, of the non-empty foreground runs."""
    stops = np.cumsum(runs)
    starts, ends = stops[0::2][: runs.size // 2], stops[1::2]
    filled = ends > starts
    return starts[filled], ends[filled]
