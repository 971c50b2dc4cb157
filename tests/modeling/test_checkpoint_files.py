"""Weights on disk explain themselves, appear whole, and are refused with a reason."""

import pickle
import zipfile
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from engine.errors import BadInput, Unavailable
from engine.modeling import Sam, SamConfig, build_sam, read_header, read_state, save_checkpoint
from engine.modeling.sam_config import CONFIGS


def equal_states(first: dict[str, Tensor], second: dict[str, Tensor]) -> bool:
    return first.keys() == second.keys() and all(torch.equal(first[key], second[key]) for key in first)


def test_a_saved_model_says_what_it_is_and_comes_back_equal(tmp_path: Path, small_sam: Sam) -> None:
    path = save_checkpoint(
        tmp_path / "m.safetensors", small_sam.state_dict(), small_sam.config, {"steps": "7"}
    )
    assert read_header(path) == (small_sam.config, {"steps": "7"})
    assert equal_states(build_sam(checkpoint=path).state_dict(), small_sam.state_dict())


def test_half_precision_files_load_into_single_precision_models(tmp_path: Path, small_sam: Sam) -> None:
    state = small_sam.state_dict()
    path = save_checkpoint(tmp_path / "m.safetensors", state, small_sam.config, dtype=torch.float16)
    loaded = build_sam(checkpoint=path).state_dict()
    assert {tensor.dtype for tensor in loaded.values()} == {torch.float32, torch.int64}
    assert all(torch.allclose(loaded[key].float(), state[key].float(), atol=1e-2) for key in state)


def test_nothing_is_left_where_saving_fails(tmp_path: Path, small_sam: Sam) -> None:
    (tmp_path / "taken").mkdir()
    with pytest.raises(OSError):
        save_checkpoint(tmp_path / "taken", small_sam.state_dict(), small_sam.config)
    assert [path.name for path in tmp_path.iterdir()] == ["taken"]


def test_reserved_metadata_names_are_refused(tmp_path: Path, small_sam: Sam) -> None:
    with pytest.raises(BadInput, match="config"):
        save_checkpoint(tmp_path / "m.safetensors", {}, small_sam.config, {"config": "x"})
    assert list(tmp_path.iterdir()) == []


def test_official_torch_files_load(tmp_path: Path, small_sam: Sam) -> None:
    torch.save(small_sam.state_dict(), tmp_path / "m.pth")
    loaded = build_sam(small_sam.config, tmp_path / "m.pth")
    assert equal_states(loaded.state_dict(), small_sam.state_dict())


@pytest.mark.parametrize("name", ["model", "state_dict", "model_state_dict"])
def test_a_training_scripts_wrapper_is_taken_off(tmp_path: Path, small_sam: Sam, name: str) -> None:
    wrapped = {"epoch": 3, name: small_sam.state_dict(), "optimizer": {"state": {}, "lr": 0.1}}
    torch.save(wrapped, tmp_path / "m.pth")
    assert equal_states(read_state(tmp_path / "m.pth"), small_sam.state_dict())


def test_tensors_stay_in_the_file_until_they_are_used(tmp_path: Path) -> None:
    torch.save({"a": torch.zeros(50_000_000)}, tmp_path / "m.pth")
    before = Path("/proc/self/statm").read_text().split()[5]
    state = read_state(tmp_path / "m.pth")
    after = Path("/proc/self/statm").read_text().split()[5]
    assert state["a"].shape == (50_000_000,)
    # Pages of private data: the tensor alone would be 48 000 of them.
    assert int(after) - int(before) < 60_000


class Harmful:
    """Would run a command if it were unpickled."""

    def __reduce__(self) -> tuple[Any, ...]:
        return (print, ("code in the checkpoint ran",))


def test_code_in_a_torch_file_never_runs(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "m.pth").write_bytes(pickle.dumps({"a": Harmful()}, protocol=2))
    torch.save({"a": Harmful()}, tmp_path / "n.pth")
    for name in ("m.pth", "n.pth"):
        with pytest.raises(BadInput, match="holds code beside the tensors, which is never run") as refused:
            read_state(tmp_path / name)
        # torch's own words advise to run it.
        assert "weights_only" not in str(refused.value)
    assert capsys.readouterr().out == ""


CONTENTS = {
    "a web page": (
        b"<!doctype html><html>404</html>",
        "no torch file; the download may have stored a web page",
    ),
    "a picture": (b"\x89PNG\r\n\x1a\n" + bytes(range(90)), "cannot be read"),
    "nothing": (b"", "cut off"),
    "zeros": (bytes(5000), "cannot be read"),
    "half a zip": (b"PK\x03\x04" + bytes(300), "cut off"),
}


@pytest.mark.parametrize("what", CONTENTS)
def test_what_is_no_checkpoint_is_refused_in_one_sentence(tmp_path: Path, what: str) -> None:
    content, sentence = CONTENTS[what]
    (tmp_path / "m.pth").write_bytes(content)
    with pytest.raises(BadInput, match=sentence) as refused:
        read_state(tmp_path / "m.pth")
    assert "\n" not in str(refused.value)


def test_an_archive_that_unpacks_to_more_than_its_size_is_not_unpacked(tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "m.pth", "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("m/data.pkl", bytes(50_000_000))
    with pytest.raises(BadInput, match="compressed archive"):
        read_state(tmp_path / "m.pth")


@pytest.mark.parametrize("saved", [[1, 2], {"epoch": 3}, {}, {"a": [torch.zeros(2)]}, {3: torch.zeros(2)}])
def test_what_is_no_state_dictionary_is_refused(tmp_path: Path, saved: Any) -> None:
    torch.save(saved, tmp_path / "m.pth")
    with pytest.raises(BadInput, match="save model.state_dict"):
        read_state(tmp_path / "m.pth")


@given(st.integers(0, 10_000), st.binary(min_size=1, max_size=40))
@settings(max_examples=150, deadline=None)
def test_damage_anywhere_is_read_or_refused_and_never_breaks(
    damageable: tuple[Path, bytes], place: int, garbage: bytes
) -> None:
    path, content = damageable
    start = place * len(content) // 10_000
    path.write_bytes(content[:start] + garbage + content[start + len(garbage) :])
    try:
        assert all(isinstance(tensor, Tensor) for tensor in read_state(path).values())
    except BadInput as refused:
        assert str(path) in str(refused)


@pytest.fixture(scope="module", params=["archive", "legacy"])
def damageable(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Any:
    path = tmp_path_factory.mktemp("damage") / "m.pth"
    state = {"first.weight": torch.randn(3, 4), "second.bias": torch.randn(7)}
    torch.save(state, path, _use_new_zipfile_serialization=request.param == "archive")
    return path, path.read_bytes()


@pytest.mark.parametrize("name", ["m.pth", "m.safetensors"])
def test_a_truncated_file_is_named(tmp_path: Path, small_sam: Sam, name: str) -> None:
    path = tmp_path / name
    if name.endswith("pth"):
        torch.save(small_sam.state_dict(), path)
    else:
        save_checkpoint(path, small_sam.state_dict(), small_sam.config)
    path.write_bytes(path.read_bytes()[:-900])
    with pytest.raises(BadInput, match=name):
        read_state(path)


def test_a_missing_file_is_unavailable(tmp_path: Path, small_config: SamConfig) -> None:
    for config in (small_config, None):
        with pytest.raises(Unavailable, match="no checkpoint at"):
            build_sam(config, tmp_path / "none.safetensors")


def test_a_wrong_state_lists_missing_unknown_and_misshapen_keys(tmp_path: Path, small_sam: Sam) -> None:
    state = dict(small_sam.state_dict())
    state["surplus.weight"] = state.pop("mask_decoder.iou_token.weight")
    state["prompt_encoder.no_mask_embed.weight"] = torch.zeros(1, 3)
    path = save_checkpoint(tmp_path / "m.safetensors", state, small_sam.config)
    with pytest.raises(BadInput) as refused:
        build_sam(checkpoint=path)
    sentence = str(refused.value)
    assert "1 missing: mask_decoder.iou_token.weight" in sentence and "1 unknown: surplus.weight" in sentence
    assert "prompt_encoder.no_mask_embed.weight (1, 3) instead of (1, 16)" in sentence


def test_a_file_without_config_and_of_unknown_sizes_needs_a_config(tmp_path: Path, small_sam: Sam) -> None:
    from safetensors.torch import save_file

    save_file(small_sam.state_dict(), tmp_path / "bare.safetensors")
    with pytest.raises(BadInput, match="sizes that no known model has"):
        build_sam(checkpoint=tmp_path / "bare.safetensors")
    with pytest.raises(BadInput, match="name its architecture"):
        read_header(tmp_path / "bare.safetensors")
    assert build_sam(small_sam.config, tmp_path / "bare.safetensors")


@pytest.mark.parametrize("name", CONFIGS)
def test_every_config_survives_its_dictionary(name: str) -> None:
    assert SamConfig.from_dict(CONFIGS[name].to_dict()) == CONFIGS[name]


def test_unknown_and_missing_sizes_are_refused(small_config: SamConfig) -> None:
    written = small_config.to_dict()
    with pytest.raises(BadInput, match="surprise"):
        SamConfig.from_dict(written | {"surprise": 1})
    with pytest.raises(BadInput, match="incomplete"):
        SamConfig.from_dict({"encoder": written["encoder"]})
    with pytest.raises(BadInput, match="multiple of 16"):
        SamConfig.from_dict(written | {"img_size": 100})


@pytest.mark.parametrize(
    "absurd",
    [{"decoder_depth": 10**9}, {"img_size": "128"}, {"prompt_dim": -16}, {"mlp_dim": True}, {"name": 3}],
)
def test_sizes_that_nobody_means_are_refused_before_anything_is_built(
    small_config: SamConfig, absurd: dict[str, Any]
) -> None:
    with pytest.raises(BadInput, match=f"{next(iter(absurd))} in the model config cannot be"):
        SamConfig.from_dict(small_config.to_dict() | absurd)


def test_an_unknown_name_lists_the_known_ones() -> None:
    with pytest.raises(BadInput, match="vit_b"):
        build_sam("vit_x")


def test_a_seed_repeats_the_weights_and_leaves_the_global_generator_alone(small_config: SamConfig) -> None:
    torch.manual_seed(5)
    expected = torch.rand(3)
    torch.manual_seed(5)
    first, second = build_sam(small_config, seed=1), build_sam(small_config, seed=1)
    assert torch.equal(torch.rand(3), expected)
    assert equal_states(first.state_dict(), second.state_dict())
    assert not equal_states(first.state_dict(), build_sam(small_config, seed=2).state_dict())


def test_a_blob_without_suffix_is_known_by_its_content(tmp_path: Path, small_sam: Sam) -> None:
    for suffix in (".safetensors", ".pth"):
        path = tmp_path / f"m{suffix}"
        if suffix == ".pth":
            torch.save(small_sam.state_dict(), path)
        else:
            save_checkpoint(path, small_sam.state_dict(), small_sam.config)
        blob = path.rename(tmp_path / ("0" * 64))
        assert equal_states(read_state(blob), small_sam.state_dict())


def test_equal_weights_make_equal_files_whatever_the_order_of_their_notes(
    tmp_path: Path, small_sam: Sam
) -> None:
    notes = {name: name for name in ("steps", "seed", "recipe", "parent", "seconds", "loss")}
    one = save_checkpoint(tmp_path / "1.safetensors", small_sam.state_dict(), small_sam.config, notes)
    other = dict(reversed(notes.items()))
    two = save_checkpoint(tmp_path / "2.safetensors", small_sam.state_dict(), small_sam.config, other)
    assert one.read_bytes() == two.read_bytes()
    assert equal_states(read_state(one), small_sam.state_dict())
