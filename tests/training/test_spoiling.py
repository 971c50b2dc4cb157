import numpy as np
import pytest
from numpy.typing import NDArray

from engine.training.evaluate import iou
from engine.training.spoiling import SPOILERS, bite, dilate, erode, radius_px, spill, spoil, spoil_all

HW = (120, 160)


def disc(x: int, y: int, radius: float) -> NDArray[np.bool_]:
    rows, columns = np.mgrid[: HW[0], : HW[1]]
    return np.asarray((rows - y) ** 2 + (columns - x) ** 2 <= radius**2)


MASK, NEIGHBOUR = disc(60, 60, 20), disc(104, 60, 20)


def spoilt(name: str, n: int = 40, others: tuple[NDArray[np.bool_], ...] = ()) -> list[NDArray[np.bool_]]:
    return [spoil(MASK, others, SPOILERS[name], np.random.default_rng(seed)) for seed in range(n)]


def test_dilated_masks_hold_the_mask_and_eroded_ones_lie_in_it() -> None:
    for wide, narrow in zip(spoilt("dilation"), spoilt("erosion"), strict=True):
        assert (wide & MASK).sum() == MASK.sum() < wide.sum() and not (wide & ~disc(60, 60, 28.6)).any()
        assert narrow.sum() < MASK.sum() == (narrow | MASK).sum() and narrow[disc(60, 60, 12)].all()


def test_bites_take_pieces_off_the_border_and_leave_a_quarter() -> None:
    for bitten in spoilt("bites"):
        assert 0.25 * MASK.sum() <= bitten.sum() < MASK.sum() and not (bitten & ~MASK).any()


def test_a_mask_spills_into_its_neighbour_and_through_the_gap() -> None:
    gap = disc(82, 60, 2)
    for over in spoilt("spill", others=(MASK, NEIGHBOUR)):
        outside = over & ~MASK
        assert (outside & NEIGHBOUR).sum() > 20 and (outside & gap).any()
        assert over[MASK].all() and not (outside & ~(NEIGHBOUR | disc(82, 60, 22))).any()


def test_without_a_neighbour_near_it_spills_into_the_ground() -> None:
    far = disc(140, 20, 8)
    for over in spoilt("spill", others=(far,)):
        assert over[MASK].all() and over.sum() > MASK.sum() and not (over & far).any()


@pytest.mark.parametrize("name", SPOILERS)
def test_spoilt_masks_are_wrong_but_still_about_the_same_thing(name: str) -> None:
    ious = [iou(mask, MASK) for mask in spoilt(name, others=(NEIGHBOUR,))]
    assert 0.2 < min(ious) and max(ious) < 1 and np.std(ious) > 0.02


@pytest.mark.parametrize("name", SPOILERS)
def test_equal_seeds_spoil_alike_and_a_cut_changes_nothing(name: str) -> None:
    """The work is done in a frame around the mask; the whole picture gives the same."""
    framed = spoilt(name, 5, (NEIGHBOUR,))
    whole = [SPOILERS[name](MASK, [NEIGHBOUR], np.random.default_rng(seed)) for seed in range(5)]
    assert all(np.array_equal(one, other) for one, other in zip(framed, whole, strict=True))


@pytest.mark.parametrize("name", SPOILERS)
def test_dots_and_whole_pictures_come_out_as_masks(name: str) -> None:
    dot, full = np.zeros(HW, bool), np.ones(HW, bool)
    dot[0, 0] = True
    for seed in range(5):
        assert spoil(dot, [full], SPOILERS[name], np.random.default_rng(seed)).any()
        assert spoil(full, [dot], SPOILERS[name], np.random.default_rng(seed)).any()


def test_each_mask_of_a_batch_spills_into_masks_of_its_own_picture() -> None:
    batch = np.stack([MASK, NEIGHBOUR, MASK, disc(60, 16, 8)])
    drawn = [spoil_all(batch, 2, np.random.default_rng(seed)) for seed in range(60)]
    beyond = NEIGHBOUR & ~disc(60, 60, 40)
    assert any((one[0] & beyond).any() for one in drawn)
    assert not any((one[2] & beyond).any() for one in drawn)
    assert len({one.tobytes() for one in drawn}) == 60


def test_the_radius_is_that_of_the_disc_of_the_area() -> None:
    assert radius_px(MASK) == pytest.approx(20, rel=0.01)
    assert [spoiler for spoiler in SPOILERS.values()] == [dilate, erode, bite, spill]
