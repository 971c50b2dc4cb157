"""What a published file name proves, and that no more is claimed."""

import hashlib
from pathlib import Path

import pytest

from engine.errors import BadInput
from engine.modeling.official import OFFICIAL, Digests, check_name, digests_of, official_named
from engine.modeling.sam_config import CONFIGS


def test_every_published_checkpoint_has_a_known_architecture_and_a_safe_address() -> None:
    assert set(OFFICIAL) == {"vit_b", "vit_l", "vit_h", "mobile"} <= set(CONFIGS)
    for official in OFFICIAL.values():
        assert official.url.startswith("https://") and official.file_name.startswith(
            ("sam_vit_", "mobile_sam")
        )
        assert (official.md5_prefix or "") in official.file_name


def test_both_digests_are_those_of_the_whole_file(tmp_path: Path) -> None:
    content = bytes(range(256)) * 9000
    (tmp_path / "file").write_bytes(content)
    assert digests_of(tmp_path / "file") == Digests(
        hashlib.sha256(content).hexdigest(), hashlib.md5(content).hexdigest()
    )


def test_the_six_digits_in_a_name_are_compared_and_called_a_part() -> None:
    said = check_name("sam_vit_b_01ec64.pth", Digests("0" * 64, "01ec64" + "f" * 26))
    assert said.startswith("in part:") and "24 of 128 bits" in said
    assert "verified" not in said


def test_a_file_that_is_not_what_its_name_says_is_refused_with_its_address() -> None:
    with pytest.raises(BadInput, match="damaged or another file.*fetch https://.*sam_vit_h_4b8939.pth again"):
        check_name("sam_vit_h_4b8939.pth", Digests("0" * 64, "01ec64" + "f" * 26))


@pytest.mark.parametrize("name", ["mobile_sam.pt", "mine.pth", "model_20240101.pth"])
def test_where_nothing_can_be_compared_that_is_said(name: str) -> None:
    assert check_name(name, Digests("0" * 64, "f" * 32)).startswith("with nothing: ")


def test_an_unknown_name_lists_the_published_ones() -> None:
    with pytest.raises(BadInput, match="vit_b, vit_l, vit_h, mobile"):
        official_named("vit_t")
