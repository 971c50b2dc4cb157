"""An evaluation as tables for people: a figure with its interval below it in each cell."""

from collections.abc import Mapping, Sequence
from typing import Any

from engine.cli.showing import print_rows

EDITING_COLUMNS = {
    "name": "model",
    "spoiler": "spoilt by",
    "spoilt": "IoU as spoilt",
    "corrected": "corrected by a click",
    "anew": "anew with a click",
    "gain_over_spoilt": "gain over spoilt",
    "gain_over_anew": "gain over anew",
}


def print_figures(told: Sequence[Mapping[str, Any]]) -> None:
    """A line per model and mask size; sizes without a mask are left out."""
    rows, columns = [], {"name": "model", "size": "size", "masks": "masks"}
    for one in told:
        for size, figures in one["figures"].items():
            if figures["masks"]:
                rows.append({"name": one["name"], "size": size, "masks": figures["masks"]} | _cells(figures))
    for n in told[0]["figures"]["all"]["miou"]:
        columns[f"miou_{n}"] = "1 click" if n == "1" else f"{n} clicks"
    columns |= {"oracle": "1, oracle"} | {f"noc_{t}": f"NoC@{t}" for t in told[0]["figures"]["all"]["noc"]}
    columns |= {f"out_{t}": f"never {t}" for t in told[0]["figures"]["all"]["noc"]}
    print_rows(rows, columns, title="mean IoU after clicks, clicks to an IoU, 95 % intervals over images")
    gained = [
        {"name": one["name"], "over": name} | {n: _cell(interval) for n, interval in by_clicks.items()}
        for one in told
        for name, by_clicks in one.get("gain_over", {}).items()
    ]
    if gained:
        clicks = {n: f"{n} clicks" for n in told[0]["figures"]["all"]["miou"]}
        print_rows(gained, {"name": "model", "over": "gain in IoU over"} | clicks)


def print_editing(told: Sequence[Mapping[str, Any]]) -> None:
    """A line per model and spoiler, where it was asked for."""
    rows = [
        {"name": one["name"], "spoiler": spoiler} | {key: _cell(found) for key, found in figures.items()}
        for one in told
        for spoiler, figures in one.get("editing", {}).items()
        if spoiler != "masks"
    ]
    if rows:
        print_rows(rows, EDITING_COLUMNS, title="one click on a mask that is wrong, mean IoU")


def _cells(figures: Mapping[str, Any]) -> dict[str, str | None]:
    cells = {f"miou_{n}": _cell(interval) for n, interval in figures["miou"].items()}
    cells |= {f"noc_{target}": _cell(interval, 2) for target, interval in figures["noc"].items()}
    if figures["oracle_miou"] is not None:
        cells["oracle"] = _cell(next(iter(figures["oracle_miou"].values())))
    for target, share in (figures["unreachable"] or {}).items():
        cells[f"out_{target}"] = f"{share:.1%}"
    return cells


def _cell(interval: Mapping[str, float | None], n_digits: int = 3) -> str | None:
    if interval["mean"] is None:
        return None
    mean = f"{interval['mean']:.{n_digits}f}"
    if interval["low"] is None:
        return mean
    # Fewer digits: a line of its own must not break within a cell.
    return f"{mean}\n{interval['low']:.{n_digits - 1}f} to {interval['high']:.{n_digits - 1}f}"
