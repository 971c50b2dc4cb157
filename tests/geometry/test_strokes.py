"""Strokes: the raster rule against a slow reading of it, against the page's, and what is refused.

`python -m tests.geometry.test_strokes` writes the cases again that the page's own tests read.
"""

import json
import random
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from engine.errors import BadInput
from engine.geometry.rle import Rle, decode, encode
from engine.geometry.strokes import check_strokes, cover_of, paint

CASES = Path(__file__).parents[2] / "annotator_ui" / "web" / "test" / "core" / "stroke_cases.json"
HW = (40, 56)


def a_path(rng: random.Random, n: int, step: float) -> list[float]:
    """A wandering path that now and then leaves the image, repeats a point or runs level."""
    x, y = rng.uniform(-5, HW[1] + 5), rng.uniform(-5, HW[0] + 5)
    points: list[float] = []
    for _ in range(n):
        points += [round(x, 1), round(y, 1)]
        x += rng.choice([0, rng.uniform(-step, step)])
        y += rng.choice([0, rng.uniform(-step, step)])
    return points


def a_stroke(rng: random.Random) -> dict[str, Any]:
    kind = rng.choice(["brush", "erase", "lasso", "lasso", "fill_holes", "remove_specks"])
    if kind == "lasso":
        return {"kind": kind, "label": rng.choice([0, 1, 1]), "points": a_path(rng, rng.randint(1, 14), 16)}
    if kind in ("brush", "erase"):
        points = a_path(rng, rng.choice([1, 2, 5, 9]), 12)
        return {"kind": kind, "size": rng.choice([1, 2, 3, 7, 12, 31]), "points": points}
    x, y = rng.randrange(HW[1] - 4), rng.randrange(HW[0] - 4)
    spots = np.zeros(HW, bool)
    spots[y : y + rng.randint(1, 4), x : x + rng.randint(1, 4)] = True
    return {"kind": kind, "counts": encode(spots)["counts"]}


def a_case(seed: int) -> dict[str, Any]:
    rng = random.Random(seed)
    mask = np.zeros(HW, bool)
    if seed % 3:
        mask[8:30, 10:40] = True
    strokes = [a_stroke(rng) for _ in range(rng.randint(1, 6))]
    return {"size": list(HW), "under": encode(mask)["counts"], "strokes": strokes}


def painted(case: dict[str, Any]) -> str:
    under = decode(Rle(size=case["size"], counts=case["under"]))
    return encode(paint(under, case["strokes"]))["counts"]


def is_within(px: int, py: int, points: list[Fraction], radius: Fraction) -> bool:
    """Whether a pixel's centre is within `radius` of the path, in fractions."""
    corners = list(zip(points[::2], points[1::2], strict=True))
    for a, b in zip(corners, corners[1:] or corners, strict=False):
        dx, dy, ux, uy = b[0] - a[0], b[1] - a[1], px - a[0], py - a[1]
        length_2 = dx * dx + dy * dy
        t = min(max((ux * dx + uy * dy) / length_2, Fraction(0)), Fraction(1)) if length_2 else Fraction(0)
        if (ux - t * dx) ** 2 + (uy - t * dy) ** 2 <= radius * radius:
            return True
    return False


def winding(px: int, py: int, points: list[Fraction]) -> int:
    """How often the closed path goes around a pixel's centre."""
    corners = list(zip(points[::2], points[1::2], strict=True))
    turns = 0
    for a, b in zip(corners, corners[1:] + corners[:1], strict=True):
        if (a[1] <= py) == (b[1] <= py):
            continue
        crossing = a[0] + (py - a[1]) * (b[0] - a[0]) / (b[1] - a[1])
        turns += (1 if a[1] < b[1] else -1) if px < crossing else 0
    return turns


@pytest.mark.parametrize("seed", range(12))
def test_paths_cover_exactly_the_pixels_that_the_rule_names(seed: int) -> None:
    rng = random.Random(100 + seed)
    brush = {
        "kind": "brush",
        "size": rng.choice([1, 2, 5, 9]),
        "points": a_path(rng, rng.choice([1, 3, 6]), 12),
    }
    lasso = {"kind": "lasso", "label": 1, "points": a_path(rng, 8, 16)}
    for stroke in (brush, lasso):
        exact = [Fraction(round(value * 10), 10) for value in stroke["points"]]
        got = paint(np.zeros(HW, bool), [stroke])
        for y in range(HW[0]):
            for x in range(HW[1]):
                if stroke is brush:
                    assert got[y, x] == is_within(x, y, exact, Fraction(brush["size"], 2)), (x, y, stroke)
                else:
                    assert got[y, x] == (winding(x, y, exact) != 0), (x, y, stroke)


def test_the_page_paints_the_same_pixels() -> None:
    cases = json.loads(CASES.read_text())
    assert len(cases) >= 60
    for case in cases:
        check_strokes(case["strokes"], HW)
        assert painted(case) == case["painted"]


def test_the_last_stroke_over_a_pixel_decides_and_painting_again_changes_nothing() -> None:
    for seed in range(40):
        case = a_case(seed)
        under = decode(Rle(size=case["size"], counts=case["under"]))
        once = paint(under, case["strokes"])
        assert np.array_equal(paint(once, case["strokes"]), once)
        x, y, pixels = cover_of(case["strokes"][-1], HW)
        last = case["strokes"][-1]
        expected = last["kind"] in ("brush", "fill_holes") or last.get("label") == 1
        assert (once[y : y + pixels.shape[0], x : x + pixels.shape[1]][pixels] == expected).all()


def test_a_long_wide_stroke_is_painted_in_portions_as_in_one() -> None:
    rng = random.Random(5)
    points = [round(rng.uniform(0, 900), 1) for _ in range(1200)]
    whole = paint(np.zeros((900, 900), bool), [{"kind": "brush", "size": 40, "points": points}])
    parts = [{"kind": "brush", "size": 40, "points": points[i : i + 4]} for i in range(0, 1198, 2)]
    assert np.array_equal(whole, paint(np.zeros((900, 900), bool), parts))


def test_a_path_outside_the_image_paints_nothing() -> None:
    for points in ([-30.0, 5.0, -20.0, 9.0], [5.0, 80.0]):
        assert not paint(np.zeros(HW, bool), [{"kind": "brush", "size": 9, "points": points}]).any()
        assert not paint(np.zeros(HW, bool), [{"kind": "lasso", "label": 1, "points": points}]).any()


BRUSH = {"kind": "brush", "size": 5, "points": [3.0, 4.0]}


@pytest.mark.parametrize(
    "stroke, reason",
    [
        ("brush", "kind must be one of"),
        ({"kind": "spray"}, "kind must be one of"),
        (BRUSH | {"size": 0}, "size must be"),
        (BRUSH | {"size": 2.5}, "size must be"),
        (BRUSH | {"size": 501}, "size must be"),
        (BRUSH | {"points": []}, "at least one pair"),
        (BRUSH | {"points": [1.0, 2.0, 3.0]}, "at least one pair"),
        (BRUSH | {"points": [1.0, float("nan")]}, "finite numbers"),
        (BRUSH | {"points": [1.0, "2"]}, "finite numbers"),
        (BRUSH | {"points": [1.0, True]}, "finite numbers"),
        (BRUSH | {"points": [1.0, 5000.0]}, "leaves the image of 56 x 40 px"),
        (BRUSH | {"points": [1.0, 2.0] * 50_001}, "more than 50000 points"),
        ({"kind": "lasso", "points": [1.0, 2.0]}, "label must be"),
        ({"kind": "fill_holes"}, "counts must be"),
        ({"kind": "fill_holes", "counts": "12"}, "counts|runs"),
        ({"kind": "remove_specks", "counts": "\x7f"}, "counts"),
    ],
)
def test_a_stroke_that_cannot_be_painted_is_refused_with_the_reason(stroke: object, reason: str) -> None:
    with pytest.raises(BadInput, match=reason):
        check_strokes([BRUSH, stroke], HW)


def test_strokes_have_bounds_together() -> None:
    with pytest.raises(BadInput, match="at most 1000 strokes"):
        check_strokes([BRUSH] * 1001, HW)
    with pytest.raises(BadInput, match="at most 50000 points"):
        check_strokes([BRUSH | {"points": [1.0, 2.0] * 30_000}] * 2, HW)
    with pytest.raises(BadInput, match="too long and wide"):
        check_strokes([BRUSH | {"points": [0.0, 0.0, 0.0, 9999.0] * 2000}], (9999, 9999))


if __name__ == "__main__":
    written = [case | {"painted": painted(case)} for case in map(a_case, range(60))]
    CASES.write_text("[\n" + ",\n".join(json.dumps(case) for case in written) + "\n]\n")
