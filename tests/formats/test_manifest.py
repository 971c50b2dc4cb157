"""A manifest names every file of an export and its digest."""

import hashlib
import json
from pathlib import Path

import pytest

from engine.errors import BadInput
from engine.formats.manifest import MANIFEST_NAME, read_manifest, write_manifest


def export(folder: Path) -> list[Path]:
    (folder / "images").mkdir()
    files = [folder / "annotations.json", folder / "images" / "a.png"]
    for file in files:
        file.write_bytes(file.name.encode())
    return files


def test_a_manifest_comes_back_as_it_was_written(tmp_path: Path) -> None:
    write_manifest(tmp_path, export(tmp_path), {"stage": "assisted_manual"}, {"masks": 3})
    manifest = read_manifest(tmp_path)
    assert [file.path for file in manifest.files] == ["annotations.json", "images/a.png"]
    assert manifest.files[0].sha256 == hashlib.sha256(b"annotations.json").hexdigest()
    assert manifest.files[0].n_bytes == 16
    assert (manifest.query, manifest.counts) == ({"stage": "assisted_manual"}, {"masks": 3})


def test_equal_exports_have_equal_manifests(tmp_path: Path) -> None:
    files = export(tmp_path)
    first = write_manifest(tmp_path, files, {"a": 1, "b": 2}, {}).read_bytes()
    assert write_manifest(tmp_path, reversed(files), {"b": 2, "a": 1}, {}).read_bytes() == first
    assert str(tmp_path).encode() not in first
    assert sorted(path.name for path in tmp_path.iterdir()) == ["annotations.json", "images", MANIFEST_NAME]


def test_only_files_beside_the_manifest_are_listed(tmp_path: Path) -> None:
    folder = tmp_path / "export"
    folder.mkdir()
    (tmp_path / "elsewhere.json").write_text("{}")
    for path in (tmp_path / "elsewhere.json", folder / "absent.json"):
        with pytest.raises(BadInput, match="lies beside it"):
            write_manifest(folder, [path], {}, {})
    assert list(folder.iterdir()) == []


FILE = {"path": "a.json", "n_bytes": 1, "sha256": "0" * 64}


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"format": "other"}, "no manifest of version 1"),
        ({"version": 2}, "no manifest of version 1"),
        ({"files": {"a": 1}}, "files has to be a list"),
        ({"files": [7]}, "not an object"),
        ({"files": [FILE | {"path": "../../etc/passwd"}]}, "leaves its folder"),
        ({"files": [FILE | {"sha256": None}]}, "64 characters"),
        ({"query": [1]}, "query"),
    ],
)
def test_a_malformed_manifest_is_refused(tmp_path: Path, changes: dict[str, object], reason: str) -> None:
    content = {"format": "maskloop-manifest", "version": 1, "query": {}, "counts": {}, "files": [FILE]}
    (tmp_path / MANIFEST_NAME).write_text(json.dumps(content | changes))
    with pytest.raises(BadInput, match=reason):
        read_manifest(tmp_path)
