"""Weights on disk explain themselves, appear whole, and are refused with a reason."""

import pickle
from pathlib import Path
from typing import Any

import pytest
import torch
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


class Harmful:
    """Would run a command if it were unpickled."""

    def __reduce__(self) -> tuple[Any, ...]:
        return (print, ("code in the checkpoint ran",))


def test_code_in_a_torch_file_never_runs(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "m.pth").write_bytes(pickle.dumps({"a": Harmful()}, protocol=2))
    torch.save({"a": Harmful()}, tmp_path / "n.pth")
    for name in ("m.pth", "n.pth"):
        with pytest.raises(BadInput, match="cannot be read"):
            read_state(tmp_path / name)
    assert capsys.readouterr().out == ""


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
    assert "missing: mask_decoder.iou_token.weight" in sentence and "unknown: surplus.weight" in sentence
    assert "prompt_encoder.no_mask_embed.weight (1, 3) instead of (1, 16)" in sentence


def test_a_file_without_config_needs_a_name(tmp_path: Path, small_sam: Sam) -> None:
    from safetensors.torch import save_file

    save_file(small_sam.state_dict(), tmp_path / "bare.safetensors")
    with pytest.raises(BadInput, match="name its architecture"):
        build_sam(checkpoint=tmp_path / "bare.safetensors")
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
