"""What a generated scene promises: the same bytes for the same seed, and masks that fit exactly."""

import hashlib
import subprocess
import sys

import numpy as np
import pytest

from engine.errors import BadInput
from engine.synthetic import THEMES, Scene, draw_dataset, draw_scene, scene_seed

SIZE_HW = (160, 208)


@pytest.fixture(scope="module", params=THEMES)
def scenes(request: pytest.FixtureRequest) -> list[Scene]:
    return [draw_scene(seed, size_hw=SIZE_HW, theme=request.param) for seed in range(8)]


def digest_of(scene: Scene) -> str:
    digest = hashlib.sha256(scene.image.tobytes())
    for mask in scene.masks:
        digest.update(f"{mask.name}|{mask.kind}|{mask.parent}|{mask.depth}".encode())
        digest.update(np.packbits(mask.mask).tobytes())
    return digest.hexdigest()


def test_image_and_masks_have_the_promised_shapes_and_types(scenes: list[Scene]) -> None:
    for scene in scenes:
        assert scene.image.shape == (*SIZE_HW, 3) and scene.image.dtype == np.uint8
        assert len(scene.masks) >= 3
        assert all(m.mask.shape == SIZE_HW and m.mask.dtype == np.bool_ for m in scene.masks)


def test_every_mask_shows_at_least_twelve_pixels(scenes: list[Scene]) -> None:
    assert min(m.mask.sum() for scene in scenes for m in scene.masks) >= 12


def test_objects_do_not_overlap(scenes: list[Scene]) -> None:
    for scene in scenes:
        layers = sum(m.mask.astype(int) for m in scene.masks if m.kind == "object")
        assert np.max(layers) == 1


def test_a_part_lies_in_its_parent_and_is_smaller(scenes: list[Scene]) -> None:
    for scene in scenes:
        for part in (m for m in scene.masks if m.kind == "part"):
            assert part.parent is not None
            parent = scene.masks[part.parent]
            assert not np.any(part.mask & ~parent.mask)
            assert part.mask.sum() < parent.mask.sum()
            assert part.depth == parent.depth


def test_a_whole_comes_before_its_parts_and_has_no_parent(scenes: list[Scene]) -> None:
    for scene in scenes:
        for index, mask in enumerate(scene.masks):
            assert mask.kind in ("object", "part")
            assert (mask.parent is None) == (mask.kind == "object")
            assert mask.parent is None or mask.parent < index


def test_objects_come_farthest_first(scenes: list[Scene]) -> None:
    for scene in scenes:
        depths = [m.depth for m in scene.masks if m.kind == "object"]
        assert depths == sorted(set(depths))


def test_every_mask_is_named_in_plain_words(scenes: list[Scene]) -> None:
    for scene in scenes:
        assert all(m.name == m.name.strip().lower() and m.name for m in scene.masks)


@pytest.mark.parametrize("theme", THEMES)
def test_another_process_draws_the_same_scene(theme: str) -> None:
    # The test's own folder is on the path of neither process, so the digest is spelled out again.
    program = (
        "import hashlib, numpy as np; from engine.synthetic import draw_scene;"
        f"s = draw_scene(5, size_hw=(96, 96), theme={theme!r});"
        "print(hashlib.sha256(s.image.tobytes() + b''.join(m.mask.tobytes() for m in s.masks)).hexdigest())"
    )
    scene = draw_scene(5, size_hw=(96, 96), theme=theme)
    here = hashlib.sha256(scene.image.tobytes() + b"".join(m.mask.tobytes() for m in scene.masks)).hexdigest()
    there = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert there.stdout.strip() == here


@pytest.mark.parametrize("theme", THEMES)
def test_other_seeds_draw_other_scenes(theme: str) -> None:
    digests = {digest_of(draw_scene(seed, size_hw=(64, 64), theme=theme)) for seed in range(6)}
    assert len(digests) == 6


def test_a_dataset_can_be_entered_anywhere() -> None:
    whole = [digest_of(scene) for scene in draw_dataset(3, 4, size_hw=(64, 64), themes=THEMES[:2])]
    tail = [digest_of(scene) for scene in draw_dataset(3, 2, size_hw=(64, 64), themes=THEMES[:2], start=2)]
    assert tail == whole[2:]
    assert digest_of(draw_scene(scene_seed(3, 0), size_hw=(64, 64), theme=THEMES[0])) == whole[0]


def test_still_life_holds_both_specks_and_large_bodies() -> None:
    scenes = draw_dataset(0, 12, size_hw=(256, 256))
    shares = [m.mask.mean() for scene in scenes for m in scene.masks if m.kind == "object"]
    assert min(shares) < 0.001 and max(shares) > 0.1
    assert 0.001 < np.median(shares) < 0.02


@pytest.mark.parametrize("size_hw", [(32, 32), (33, 100), (100, 41)])
@pytest.mark.parametrize("theme", THEMES)
def test_odd_and_smallest_sizes_are_drawn(theme: str, size_hw: tuple[int, int]) -> None:
    for seed in range(3):
        assert draw_scene(seed, size_hw=size_hw, theme=theme).image.shape == (*size_hw, 3)


def test_an_unknown_theme_names_the_known_ones() -> None:
    with pytest.raises(BadInput, match="still_life"):
        draw_scene(0, theme="battle")


@pytest.mark.parametrize(("seed", "size_hw"), [(-1, (64, 64)), (0, (31, 64))])
def test_a_negative_seed_or_a_tiny_picture_is_refused(seed: int, size_hw: tuple[int, int]) -> None:
    with pytest.raises(BadInput, match="at least"):
        draw_scene(seed, size_hw=size_hw)
