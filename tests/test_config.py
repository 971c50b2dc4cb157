"""Settings: their order, their refusals, and the signing key."""

import os
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from engine.config import configs_folder, environment_of, load_settings, read_toml
from engine.errors import BadInput


@pytest.fixture(autouse=True)
def clean_environment() -> Iterator[None]:
    """No MASKLOOP_ variable of the caller's shell reaches a test, and none of a test's outlives it."""
    kept = {name: value for name, value in os.environ.items() if name.startswith("MASKLOOP_")}
    for name in kept:
        del os.environ[name]
    yield
    for name in [name for name in os.environ if name.startswith("MASKLOOP_")]:
        del os.environ[name]
    os.environ.update(kept)


def test_defaults_name_the_home_and_create_nothing(tmp_path: Path) -> None:
    home = tmp_path / "home"
    settings = load_settings(home)
    assert settings.database.url == f"sqlite:///{home}/maskloop.db"
    assert settings.files.url == f"file://{home}/blobs"
    assert not home.exists()


def test_file_beats_default_variable_beats_file_override_beats_all(tmp_path: Path) -> None:
    (tmp_path / "config.toml").write_text("[web]\nport = 1111\nthreads = 3\n[embed]\nahead = 1\n")
    os.environ["MASKLOOP_WEB__PORT"] = "2222"
    os.environ["MASKLOOP_EMBED__AHEAD"] = "2"
    settings = load_settings(tmp_path, {"web": {"port": 3333}})
    assert (settings.web.port, settings.embed.ahead, settings.web.threads) == (3333, 2, 3)
    assert settings.web.host == "127.0.0.1"


def test_home_comes_from_argument_then_variable_then_user(tmp_path: Path) -> None:
    os.environ["MASKLOOP_HOME"] = str(tmp_path / "a")
    assert load_settings(tmp_path / "b").home == tmp_path / "b"
    assert load_settings().home == tmp_path / "a"
    del os.environ["MASKLOOP_HOME"]
    assert load_settings().home == Path("~/.maskloop").expanduser()


def test_relative_home_becomes_absolute_so_that_children_agree(tmp_path: Path) -> None:
    here = Path.cwd()
    os.chdir(tmp_path)
    try:
        assert load_settings(Path("here")).home == tmp_path / "here"
    finally:
        os.chdir(here)


@pytest.mark.parametrize(
    ("toml", "told"),
    [
        ("[web]\nprot = 1\n", "unknown key web.prot"),
        ("[wep]\nport = 1\n", "unknown key wep"),
        ("colour = 3\n", "unknown key colour"),
        ("[web]\nport = 'high'\n", "web.port"),
        ("[web]\nport = 70000\n", "web.port"),
        ("[embed]\ndtype = 'int8'\n", "embed.dtype"),
        ("[worker]\nheartbeat_s = 50\n", "half of lease_s"),
        ("[web\n", "not valid TOML"),
    ],
)
def test_bad_file_is_refused_with_the_key_and_the_file(tmp_path: Path, toml: str, told: str) -> None:
    (tmp_path / "config.toml").write_text(toml)
    with pytest.raises(BadInput) as refusal:
        load_settings(tmp_path)
    assert told in str(refusal.value)
    assert str(tmp_path / "config.toml") in str(refusal.value)
    assert "\n" not in str(refusal.value)


@pytest.mark.parametrize(
    "name", ["MASKLOOP_PORT", "MASKLOOP_WEB__PROT", "MASKLOOP_WEB", "maskloop_web__prot"]
)
def test_unknown_variable_is_refused_by_name(tmp_path: Path, name: str) -> None:
    os.environ[name] = "1"
    try:
        with pytest.raises(BadInput, match=name):
            load_settings(tmp_path)
    finally:
        del os.environ[name]


def test_reserved_variables_are_no_keys(tmp_path: Path) -> None:
    os.environ |= {"MASKLOOP_HOME": str(tmp_path), "MASKLOOP_SHARED": "x", "MASKLOOP_SKIP_PAGE": "1"}
    assert load_settings().home == tmp_path


def test_lists_in_variables_are_json(tmp_path: Path) -> None:
    os.environ["MASKLOOP_TRAIN__EVAL_CLICKS"] = "[1, 5]"
    assert load_settings(tmp_path).train.eval_clicks == (1, 5)
    os.environ["MASKLOOP_TRAIN__EVAL_CLICKS"] = "[1"
    with pytest.raises(BadInput, match="as JSON"):
        load_settings(tmp_path)


def test_child_process_sees_the_same_overrides(tmp_path: Path) -> None:
    overrides = {"web": {"port": 4444, "tls": True, "host": "::1"}, "train": {"eval_clicks": [2]}}
    os.environ |= environment_of(tmp_path, overrides)
    assert load_settings() == load_settings(tmp_path, overrides)


def test_settings_cannot_be_changed(tmp_path: Path) -> None:
    settings = load_settings(tmp_path)
    with pytest.raises(ValueError, match="frozen"):
        settings.web.port = 1  # type: ignore[misc]  # the refusal is what is tested


@pytest.mark.parametrize("name", ["test.toml", "production.toml"])
def test_shipped_examples_are_valid_as_home_files(tmp_path: Path, name: str) -> None:
    (tmp_path / "config.toml").write_bytes((configs_folder() / name).read_bytes())
    changed, default = load_settings(tmp_path), load_settings(tmp_path / "other")
    assert changed.worker != default.worker


def test_every_default_key_has_a_comment_above_it() -> None:
    lines = (configs_folder() / "default.toml").read_text().splitlines()
    for above, line in zip(lines, lines[1:], strict=False):
        explained = above.startswith("#") or " = " in above
        assert explained or not re.match(r"[a-z_]+ = ", line), f"explain: {line}"


def test_read_toml_names_the_missing_and_the_broken_file(tmp_path: Path) -> None:
    with pytest.raises(BadInput, match="no file .*stage.toml"):
        read_toml(tmp_path / "stage.toml")
    (tmp_path / "stage.toml").write_bytes(b"\xff")
    with pytest.raises(BadInput, match="not valid TOML"):
        read_toml(tmp_path / "stage.toml")
