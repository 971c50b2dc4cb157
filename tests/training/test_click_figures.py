import numpy as np
import pytest

from engine.training.click_figures import (
    Resampling,
    by_size,
    editing_figures,
    gains,
    with_interval,
)
from engine.training.editing import EditScores
from engine.training.evaluate import ClickScores

ONCE = Resampling(2000, 0)


def scores(one: list[float], area_px: list[int], sample_index: list[int]) -> ClickScores:
    """IoU grows by 0.1 a click from `one`, three clicks in all; ceilings are 0.2 above the first."""
    ious = np.array(one, np.float32)[:, None] + np.array([0, 0.1, 0.2], np.float32)
    n = len(one)
    clicks = np.full(n, 3, np.int64)
    numbers = np.array(area_px, np.int64), np.array(sample_index, np.int64), np.arange(n)
    return ClickScores(ious, clicks, *numbers, noc_iou=0.9, oracle_ious=ious + 0.05, ceilings=ious[:, 2])


def test_the_interval_of_independent_masks_is_that_of_their_mean() -> None:
    values = np.random.default_rng(1).normal(0.7, 0.2, 400)
    found = with_interval(values, np.arange(400), ONCE)
    assert found["mean"] == pytest.approx(values.mean())
    half = 1.96 * values.std() / 20
    assert found["low"] == pytest.approx(values.mean() - half, abs=0.1 * half)
    assert found["high"] == pytest.approx(values.mean() + half, abs=0.1 * half)


def test_more_masks_of_the_same_pictures_make_nothing_surer() -> None:
    """Two pictures whose masks are alike: the mean may be that of either, however many masks there are."""
    for n in (1, 500):
        values, groups = np.repeat([0.2, 0.8], n), np.repeat([3, 7], n)
        assert with_interval(values, groups, ONCE) == pytest.approx({"mean": 0.5, "low": 0.2, "high": 0.8})


def test_a_picture_with_more_masks_weighs_more_in_every_resample() -> None:
    values, groups = np.array([0.0, 0.0, 0.0, 1.0]), np.array([0, 0, 0, 1])
    found = with_interval(values, groups, ONCE)
    assert found == {"mean": 0.25, "low": 0.0, "high": 1.0}


def test_equal_seeds_give_equal_intervals_and_others_nearly() -> None:
    values, groups = np.random.default_rng(2).random(90), np.arange(90) // 3
    drawn = [with_interval(values, groups, Resampling(2000, seed)) for seed in (5, 5, 6)]
    assert drawn[0] == drawn[1] != drawn[2]
    assert drawn[0]["low"] == pytest.approx(drawn[2]["low"], abs=0.01)


def test_nothing_and_a_single_picture_have_no_interval() -> None:
    assert with_interval(np.zeros(0), np.zeros(0, np.int64), ONCE) == {
        "mean": None,
        "low": None,
        "high": None,
    }
    single = with_interval(np.array([0.2, 0.4]), np.array([4, 4]), ONCE)
    assert single == {"mean": pytest.approx(0.3), "low": None, "high": None}


def test_figures_are_told_by_cocos_sizes() -> None:
    found = by_size(
        scores([0.5, 0.6, 0.7, 0.9], [1023, 1024, 9215, 9216], [0, 0, 1, 2]), (1, 3), (0.85, 0.9), 3, ONCE
    )
    assert [found[size]["masks"] for size in ("all", "small", "medium", "large")] == [4, 1, 2, 1]
    everything, medium = found["all"], found["medium"]
    assert everything["images"] == 3 and medium["images"] == 2
    assert everything["miou"]["1"]["mean"] == pytest.approx(0.675)
    assert medium["oracle_miou"]["3"]["mean"] == pytest.approx(0.9)
    assert everything["noc"]["0.85"]["mean"] == pytest.approx((3 + 3 + 3 + 1) / 4)
    assert everything["reached"] == {"0.85": 0.5, "0.90": 0.5}
    assert everything["unreachable"] == {"0.85": 0.5, "0.90": 0.5}
    assert found["large"]["reached"]["0.90"] == 1.0


def test_sizes_without_a_mask_and_what_was_not_measured_are_none() -> None:
    bare = scores([0.5], [100], [0])
    found = by_size(
        ClickScores(bare.ious, bare.clicks, bare.area_px, bare.sample_index, bare.mask_index, 0.9),
        (1,), (0.85,), 3, ONCE,
    )  # fmt: skip
    assert found["large"]["masks"] == 0 and found["large"]["miou"]["1"]["mean"] is None
    assert found["large"]["reached"] == {"0.85": None}
    assert found["all"]["oracle_miou"] is None and found["all"]["unreachable"] is None


def test_a_gain_is_resampled_mask_by_mask() -> None:
    """Pictures differ much, the two models always by 0.05: only the pairs can tell."""
    rng = np.random.default_rng(3)
    one, groups = list(rng.uniform(0.2, 0.7, 40)), list(range(40))
    first = scores(one, [2000] * 40, groups)
    second = scores([value + 0.05 for value in one], [2000] * 40, groups)
    gain = gains(second, first, (1,), ONCE)["1"]
    assert gain == pytest.approx({"mean": 0.05, "low": 0.05, "high": 0.05}, abs=1e-6)
    alone = with_interval(second.ious[:, 0], second.sample_index, ONCE)
    assert alone["high"] - alone["low"] > 0.05


def test_editing_is_told_by_spoiler_and_of_all() -> None:
    spoilt = np.array([[0.5, 0.5, 0.7, 0.7], [0.6, 0.6, 0.6, 0.6]], np.float32)
    edits = EditScores(spoilt, spoilt + 0.2, np.array([0.7, 0.9], np.float32), np.array([0, 1]))
    found = editing_figures(edits, ONCE)
    assert list(found) == ["masks", "dilation", "erosion", "bites", "spill", "all"] and found["masks"] == 2
    assert found["bites"]["spoilt"]["mean"] == pytest.approx(0.65)
    assert found["all"]["gain_over_spoilt"]["mean"] == pytest.approx(0.2)
    assert found["all"]["gain_over_anew"]["mean"] == pytest.approx(0.8 - 0.8, abs=1e-6)
