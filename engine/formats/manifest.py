"""The manifest of an export: which files, how long, which digests, and the query that chose the masks."""

import hashlib
import os
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import orjson

from engine.errors import BadInput
from engine.formats.coco_writer import sync_folder
from engine.formats.json_fields import file_name_of, mapping_of, record_of
from engine.formats.json_stream import JsonStream, check_file

MANIFEST_NAME = "manifest.json"
_VERSION = 1
_MOST_BYTES = 64 * 2**20
_CHUNK_BYTES = 2**20


@dataclass(frozen=True, slots=True)
class ManifestFile:
    """One file of an export, by its path relative to the manifest, with forward slashes."""

    path: str
    n_bytes: int
    sha256: str


@dataclass(frozen=True)
class Manifest:
    """What an export says of itself."""

    files: tuple[ManifestFile, ...]
    query: dict[str, Any]
    counts: dict[str, Any]


def file_sha256(path: Path) -> str:
    """Digest of a file, read in pieces."""
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while chunk := file.read(_CHUNK_BYTES):
            digest.update(chunk)
    return digest.hexdigest()


def write_manifest(
    folder: Path, files: Iterable[Path], query: Mapping[str, Any], counts: Mapping[str, Any]
) -> Path:
    """Writes `folder`/manifest.json over files that lie in `folder`, last of all, and returns its path.

    Equal files, query and counts give equal bytes. Raises BadInput if a file is missing or lies elsewhere.
    """
    entries = sorted((_entry(folder, path) for path in files), key=lambda entry: entry.path)
    text = orjson.dumps(
        {
            "format": "maskloop-manifest",
            "version": _VERSION,
            "query": dict(query),
            "counts": dict(counts),
            "files": [{"path": e.path, "n_bytes": e.n_bytes, "sha256": e.sha256} for e in entries],
        },
        option=orjson.OPT_INDENT_2 | orjson.OPT_SORT_KEYS,
    )
    target = folder / MANIFEST_NAME
    partial = target.with_name(f".{MANIFEST_NAME}.partial")
    with partial.open("wb") as file:
        file.write(text + b"\n")
        file.flush()
        os.fsync(file.fileno())
    partial.replace(target)
    sync_folder(folder)
    return target


def read_manifest(folder: Path) -> Manifest:
    """Reads `folder`/manifest.json; raises BadInput if it is malformed or names a path outside."""
    path = folder / MANIFEST_NAME
    check_file(path, _MOST_BYTES)
    with path.open(encoding="utf-8-sig", newline="") as file:
        stream = JsonStream(file, MANIFEST_NAME)
        fields = record_of(stream.value(), MANIFEST_NAME)
        stream.end()
    if fields.get("format") != "maskloop-manifest" or fields.get("version") != _VERSION:
        raise BadInput(f"{MANIFEST_NAME} is no manifest of version {_VERSION}: export anew")
    listed = fields.get("files")
    if not isinstance(listed, list):
        raise BadInput(f"{MANIFEST_NAME}: files has to be a list")
    entries = tuple(_read_entry(one, f"{MANIFEST_NAME}: file {place}") for place, one in enumerate(listed))
    query, counts = (mapping_of(fields, key, MANIFEST_NAME) for key in ("query", "counts"))
    return Manifest(entries, query, counts)


def _entry(folder: Path, path: Path) -> ManifestFile:
    if not path.is_file() or not path.resolve().is_relative_to(folder.resolve()):
        raise BadInput(f"{path} is not a file in {folder}: a manifest lists what lies beside it")
    relative = path.resolve().relative_to(folder.resolve()).as_posix()
    return ManifestFile(relative, path.stat().st_size, file_sha256(path))


def _read_entry(value: object, name: str) -> ManifestFile:
    fields = record_of(value, name)
    n_bytes, digest = fields.get("n_bytes"), fields.get("sha256")
    if type(n_bytes) is not int or not isinstance(digest, str) or len(digest) != 64:
        raise BadInput(f"{name}: it needs n_bytes and a sha256 of 64 characters")
    return ManifestFile(file_name_of(fields, "path", name), n_bytes, digest.lower())
