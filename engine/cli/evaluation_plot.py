"""An evaluation as a picture: mean IoU by clicks, a line per model. matplotlib is the extra `plot`."""

import importlib.util
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from engine.errors import BadInput, Unavailable

SUFFIXES = (".svg", ".png")


def check_plot(path: Path) -> None:
    """Refuses, before anything is measured, a file that could not be drawn."""
    if path.suffix.lower() not in SUFFIXES:
        raise BadInput(f"--plot writes .svg or .png, not {path.suffix or 'a file without a suffix'}")
    if not path.absolute().parent.is_dir():
        raise BadInput(f"there is no folder {path.parent} to write {path.name} to: make it first")
    if importlib.util.find_spec("matplotlib") is None:
        raise Unavailable("--plot draws with matplotlib: pip install 'maskloop[plot]'")


def plot_figures(told: Sequence[Mapping[str, Any]], path: Path) -> None:
    """Draws what `models evaluate` tells: means and intervals of all masks, the oracle dashed. The file
    appears whole or not at all; equal figures give equal bytes."""
    from matplotlib import rc_context
    from matplotlib.figure import Figure

    # Names of parts that hang on nothing but this word, and letters as letters: the file can be compared.
    with rc_context({"svg.hashsalt": "maskloop", "svg.fonttype": "none"}):
        figure = Figure(figsize=(7.0, 4.5), layout="constrained")
        axes = figure.add_subplot()
        for number, one in enumerate(told):
            everything = one["figures"]["all"]
            _draw(axes, everything["miou"], f"C{number}", one["name"])
            if everything["oracle_miou"] is not None:
                _draw(axes, everything["oracle_miou"], f"C{number}", None)
        axes.set_xlabel("clicks")
        axes.set_ylabel("mean IoU")
        axes.set_xticks([int(n) for n in told[0]["figures"]["all"]["miou"]])
        axes.set_title(f"{told[0]['masks']} masks of {told[0]['images']} images (dashed: oracle)")
        axes.grid(alpha=0.3)
        axes.legend()
        kind = path.suffix.lower().removeprefix(".")
        draft = path.with_name(f".{path.name}.{os.getpid()}")
        try:
            figure.savefig(draft, format=kind, dpi=150, metadata={"Date": None} if kind == "svg" else None)
            os.replace(draft, path)
        finally:
            draft.unlink(missing_ok=True)


def _draw(
    axes: Any, by_clicks: Mapping[str, Mapping[str, float | None]], colour: str, label: str | None
) -> None:
    """A line with its intervals; without a label it is the oracle's."""
    clicks = [int(n) for n in by_clicks]
    means = [interval["mean"] for interval in by_clicks.values()]
    style = {"marker": "o"} if label else {"linestyle": "--", "alpha": 0.6}
    axes.plot(clicks, means, color=colour, label=label, **style)
    bands = [(interval["low"], interval["high"]) for interval in by_clicks.values()]
    if label and all(low is not None for low, _ in bands):
        axes.fill_between(clicks, *zip(*bands, strict=True), color=colour, alpha=0.15, linewidth=0)
