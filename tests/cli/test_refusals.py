"""Bad input: exit 1 and one line that says what to do; wrong usage: exit 2."""

import sqlite3
import subprocess
import sys
from pathlib import Path

import pytest

from tests.cli.conftest import Ended, Maskloop


def assert_stated(ended: Ended, *words: str) -> None:
    assert ended.code == 1
    assert ended.err.startswith("maskloop: ") and ended.err.count("\n") == 1, ended.err
    for word in words:
        assert word in ended.err


def test_an_unknown_dataset_is_answered_by_those_there_are(boxes: Path, maskloop: Maskloop) -> None:
    ended = maskloop("report", "--dataset", "bxoes", "--home", boxes)
    assert_stated(ended, "no dataset named 'bxoes'", "there are: boxes")


def test_without_any_dataset_the_next_step_is_named(home: Path, maskloop: Maskloop) -> None:
    assert_stated(maskloop("report", "--home", home), "there is no dataset yet", "maskloop images import")


def test_with_several_datasets_one_must_be_named(boxes: Path, maskloop: Maskloop, pictures: Path) -> None:
    maskloop("images", "import", pictures, "--dataset", "other", "--home", boxes)
    assert_stated(maskloop("report", "--home", boxes), "name one by --dataset", "boxes, other")


def test_an_empty_folder_makes_no_dataset(home: Path, maskloop: Maskloop, tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    ended = maskloop("images", "import", tmp_path / "empty", "--dataset", "new", "--home", home)
    assert_stated(ended, "no picture found", ".png")
    assert_stated(maskloop("report", "--home", home), "there is no dataset yet")


def test_a_path_that_does_not_exist_is_named(home: Path, maskloop: Maskloop) -> None:
    ended = maskloop("images", "import", "/no/such", "--dataset", "new", "--home", home)
    assert_stated(ended, "/no/such")


def test_a_home_without_a_database_is_not_made_by_looking_at_it(maskloop: Maskloop, tmp_path: Path) -> None:
    assert_stated(maskloop("report", "--home", tmp_path / "typo"), "maskloop db upgrade")
    assert not (tmp_path / "typo").exists()


def test_a_newer_database_is_refused_and_left_as_it_is(home: Path, maskloop: Maskloop) -> None:
    with sqlite3.connect(home / "maskloop.db") as connection:
        connection.execute("UPDATE alembic_version SET version_num = '9999_from_the_future'")
    for verb in (("report",), ("stage", "show"), ("jobs", "list"), ("work", "--until-idle"), ("db", "check")):
        assert_stated(maskloop(*verb, "--home", home), "newer", "update Maskloop")
    with sqlite3.connect(home / "maskloop.db") as connection:
        assert connection.execute("SELECT version_num FROM alembic_version").fetchone()[0].startswith("9999")


def test_a_damaged_reference_is_found_by_db_check(boxes: Path, maskloop: Maskloop) -> None:
    assert maskloop("db", "check", "--home", boxes, "--json").json["ok"]
    with sqlite3.connect(boxes / "maskloop.db") as connection:
        connection.execute("PRAGMA foreign_keys = OFF")
        connection.execute(
            "INSERT INTO image_progress VALUES (999, 'assisted_manual', 'done', NULL, '2026-01-01')"
        )
    assert_stated(maskloop("db", "check", "--home", boxes), "damaged", "image_progress")


def test_upgrading_twice_changes_nothing(maskloop: Maskloop, tmp_path: Path) -> None:
    first = maskloop("db", "upgrade", "--home", tmp_path / "new", "--json").json
    second = maskloop("db", "upgrade", "--home", tmp_path / "new", "--json").json
    assert first["before"] is None and first["after"] == second["before"] == second["after"]


def test_an_unknown_key_in_the_settings_is_named(home: Path, maskloop: Maskloop) -> None:
    (home / "config.toml").write_text("[train]\nmin_new_mask = 3\n")
    assert_stated(maskloop("report", "--home", home), "unknown key train.min_new_mask")


def test_unknown_ids_and_names_are_answered(boxes: Path, maskloop: Maskloop, tmp_path: Path) -> None:
    assert_stated(maskloop("jobs", "show", 99, "--home", boxes), "no job 99")
    assert_stated(maskloop("users", "link", "zoe", "--home", boxes), "no user named 'zoe'")
    assert_stated(maskloop("verify", tmp_path / "nothing"), "does not exist")
    out = tmp_path / "out"
    assert_stated(maskloop("export", "--out", out, "--format", "yolo", "--home", boxes), "no format 'yolo'")
    assert_stated(maskloop("stage", "open", "stage-9", "--home", boxes), "no stage named", "assisted_manual")


def test_a_file_that_is_no_coco_changes_nothing(boxes: Path, maskloop: Maskloop, tmp_path: Path) -> None:
    (tmp_path / "no.json").write_text("[1, 2")
    assert_stated(maskloop("masks", "import", tmp_path / "no.json", "--home", boxes), "no.json")
    assert maskloop("report", "--home", boxes, "--json").json["masks"] == 0


@pytest.mark.parametrize(
    "wrong", [["nonsense"], ["report", "--nonsense"], ["images", "import"], ["jobs", "show", "x"]]
)
def test_wrong_usage_ends_with_two(maskloop: Maskloop, wrong: list[str]) -> None:
    assert maskloop(*wrong).code == 2


def test_no_serve_takes_no_pictures_of_ones_own(maskloop: Maskloop, tmp_path: Path) -> None:
    assert_stated(maskloop("demo", "--no-serve", "--images", tmp_path), "leave out --images")


def test_the_demo_turn_replaces_nothing_that_it_did_not_make(boxes: Path, maskloop: Maskloop) -> None:
    assert_stated(maskloop("demo", "--no-serve", "--home", boxes), "holds something else")
    assert (boxes / "maskloop.db").is_file()


def test_the_command_itself_ends_with_one_and_no_traceback(home: Path) -> None:
    command = [sys.executable, "-m", "engine", "report", "--home", str(home)]
    ended = subprocess.run(command, capture_output=True, text=True, timeout=120)
    assert (ended.returncode, ended.stdout) == (1, "")
    assert "Traceback" not in ended.stderr and ended.stderr.count("\n") == 1
