"""`doctor`, `db backup` and `db restore` as they are typed."""

import sqlite3
from pathlib import Path

from tests.cli.conftest import Maskloop


def test_a_sound_home_passes_and_a_lost_file_is_named(
    boxes: Path, maskloop: Maskloop, pictures: Path
) -> None:
    maskloop("masks", "import", pictures / "truth.json", "--home", boxes)
    sound = maskloop("doctor", "--deep", "--home", boxes)
    assert (sound.code, sound.err) == (0, "") and "rules hold" in sound.out
    with sqlite3.connect(boxes / "maskloop.db") as connection:
        (digest,) = connection.execute("SELECT pixels_sha256 FROM images WHERE id = 3").fetchone()
    (boxes / "blobs" / digest[:2] / digest[2:4] / digest).unlink()
    ill = maskloop("doctor", "--home", boxes)
    assert ill.code == 1 and ill.err.count("\n") == 1 and "1 of" in ill.err
    assert f"files_exist: images 3: no file {digest}" in ill.out and "from a backup" in ill.out
    as_json = maskloop("doctor", "--json", "--home", boxes)
    assert as_json.code == 1
    (finding,) = as_json.json["findings"]
    assert (as_json.json["ok"], finding["check"], finding["n"]) == (False, "files_exist", 1)


def test_what_is_backed_up_is_restored_into_a_new_home(
    boxes: Path, maskloop: Maskloop, pictures: Path, tmp_path: Path
) -> None:
    maskloop("masks", "import", pictures / "truth.json", "--home", boxes)
    done = maskloop("db", "backup", "--out", tmp_path / "backup", "--home", boxes, "--json")
    assert done.code == 0 and done.json["blobs"] == 8, done.err
    restored = maskloop("db", "restore", tmp_path / "backup", "--home", tmp_path / "new")
    assert restored.code == 0 and "restored and sound" in restored.out, restored.err
    assert maskloop("db", "check", "--home", tmp_path / "new").code == 0
    exports = []
    for home in (boxes, tmp_path / "new"):
        maskloop("export", "--home", home, "--out", home / "out")
        exports.append((home / "out" / "annotations.json").read_bytes())
    assert exports[0] == exports[1]
    again = maskloop("db", "restore", tmp_path / "backup", "--home", tmp_path / "new")
    assert again.code == 1 and "has rows already" in again.err and again.err.count("\n") == 1


def test_a_folder_that_is_no_backup_is_refused_in_a_sentence(
    home: Path, maskloop: Maskloop, tmp_path: Path
) -> None:
    ended = maskloop("db", "restore", tmp_path, "--home", home)
    assert ended.code == 1 and "it has no manifest.json" in ended.err
