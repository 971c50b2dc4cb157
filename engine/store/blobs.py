"""The files beside the tables: bytes under the SHA-256 of their content, on any fsspec URL.

A blob is written whole or not at all, never changed, and stored before the row that names it.
"""

import hashlib
import os
import re
import secrets
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from fsspec.core import url_to_fs
from fsspec.implementations.local import LocalFileSystem

from engine.errors import BadInput, NotFound, Unavailable

DIGEST = re.compile(r"[0-9a-f]{64}")
# Bytes stored again within this time are not sent to an object store once more.
_SENT_LATELY_S = 600.0


@dataclass(frozen=True)
class StoredFile:
    """A file as it lies below the store's root: a blob under its digest, or a draft left by a crash."""

    name: str
    path: str
    n_bytes: int


class BlobStore:
    """`ab/cd/abcd...` below `url`. Making one opens nothing; a local folder appears with its first blob."""

    def __init__(self, url: str, cache: Path | None = None) -> None:
        """`cache` is the local folder for copies of remote blobs that a library must map from disk."""
        self.url = url
        try:
            self._files, self._root = url_to_fs(url)
        except (ValueError, ImportError) as error:
            raise BadInput(f"files.url is no address of files ({error}): see configs/default.toml") from None
        self._cache = cache
        self._is_local = isinstance(self._files, LocalFileSystem)

    def put(self, content: bytes) -> str:
        """Stores `content` and returns its SHA-256 as hex. Bytes that are there already only become young
        again, so that nobody collects them before the row that will name them is there.

        Raises Unavailable when the disk is full, read-only or away; then nothing half-written has the name.
        """
        sha256 = hashlib.sha256(content).hexdigest()
        with _sentences(self.url):
            if self._size_or_none(sha256) == len(content) and self._renew(self._path(sha256)):
                return sha256
            if self._is_local:
                _write_whole(Path(self._path(sha256)), content)
            else:
                # Object stores show an object only when all of it has arrived.
                self._files.pipe_file(self._path(sha256), content)
        return sha256

    def read(self, sha256: str, verify: bool = True) -> bytes:
        """The bytes of that digest. NotFound when there are none, Unavailable when they are damaged."""
        with _sentences(self.url):
            try:
                content = bytes(self._files.cat_file(self._path(sha256)))
            except FileNotFoundError:
                raise NotFound(f"no file {sha256} in {self.url}: restore it from a backup") from None
        if verify and hashlib.sha256(content).hexdigest() != sha256:
            raise Unavailable(f"the file {sha256} in {self.url} is damaged: restore it from a backup")
        return content

    def exists(self, sha256: str) -> bool:
        """Whether there is such a blob."""
        with _sentences(self.url):
            return self._size_or_none(sha256) is not None

    def size(self, sha256: str) -> int:
        """Its length in bytes; NotFound when there is none."""
        with _sentences(self.url):
            size = self._size_or_none(sha256)
        if size is None:
            raise NotFound(f"no file {sha256} in {self.url}: restore it from a backup")
        return size

    def delete(self, sha256: str) -> bool:
        """Removes the bytes (takedown and gc only); False when there were none."""
        with _sentences(self.url):
            if self._cache is not None:
                (self._cache / sha256).unlink(missing_ok=True)
            try:
                self._files.rm_file(self._path(sha256))
            except FileNotFoundError:
                return False
        return True

    def files(self) -> Iterator[StoredFile]:
        """Every file below the root, one folder of the first two digits after the other."""
        with _sentences(self.url):
            if not self._files.exists(self._root):
                return
            for folder in sorted(self._files.ls(self._root, detail=False)):
                # A listing may be remembered by the file system; this one has to be of now.
                self._files.invalidate_cache(folder)
                for path, known in self._files.find(folder, detail=True).items():
                    yield StoredFile(path.rpartition("/")[2], path, int(known["size"]))

    def is_untouched(self, path: str, for_s: float) -> bool:
        """Whether the file at a `StoredFile.path` was neither stored nor put again for `for_s` seconds."""
        with _sentences(self.url):
            try:
                return self._age_s(path) >= for_s
            except FileNotFoundError:
                return False

    def delete_untouched(self, path: str, for_s: float) -> bool:
        """Removes the file at a `StoredFile.path` if it `is_untouched`; whether it did.

        Safe against a `put` of the same bytes at the same moment in a local folder. An object store knows no
        rename: there, bytes that are put within the milliseconds between look and removal, after nobody had
        named them for `for_s` seconds, are lost; `maskloop doctor` would name them.
        """
        if not self.is_untouched(path, for_s):
            return False
        with _sentences(self.url):
            try:
                if self._is_local:
                    return _unlink_untouched(Path(path), for_s)
                self._files.rm_file(path)
            except FileNotFoundError:
                return False
        if self._cache is not None:
            (self._cache / path.rpartition("/")[2]).unlink(missing_ok=True)
        return True

    def local_path(self, sha256: str) -> Path:
        """A path that torch, onnxruntime or safetensors can map; remote bytes are copied once, verified.

        NotFound when there is no such blob. The file belongs to the store: read it, never write it.
        """
        if self._is_local:
            self.size(sha256)
            return Path(self._path(sha256))
        if self._cache is None:
            raise Unavailable(f"{self.url} is remote and this store was given no folder for local copies")
        copy = self._cache / sha256
        if not copy.exists():
            content = self.read(sha256)
            with _sentences(str(self._cache)):
                _write_whole(copy, content)
        return copy

    def _path(self, sha256: str) -> str:
        if not DIGEST.fullmatch(sha256):
            raise BadInput(f"{sha256[:80]!r} is no SHA-256 digest")
        return f"{self._root}/{sha256[:2]}/{sha256[2:4]}/{sha256}"

    def _renew(self, path: str) -> bool:
        """Makes a blob that is there young; False when it has to be written, since it went or cannot be."""
        try:
            if self._is_local:
                os.utime(path)
                return True
            return self._age_s(path) < _SENT_LATELY_S
        except FileNotFoundError:
            return False

    def _age_s(self, path: str) -> float:
        return time.time() - float(self._files.modified(path).timestamp())

    def _size_or_none(self, sha256: str) -> int | None:
        try:
            return int(self._files.info(self._path(sha256))["size"])
        except FileNotFoundError:
            return None


def _write_whole(path: Path, content: bytes) -> None:
    """Temporary name, fsync, rename, fsync of the folder: after a power cut the name holds all or nothing."""
    _make_folder(path.parent)
    draft = path.with_name(f".{path.name}.{os.getpid()}-{secrets.token_hex(4)}")
    try:
        # Images may be private: readable by the owner of the process only.
        with os.fdopen(os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        os.replace(draft, path)
    finally:
        draft.unlink(missing_ok=True)
    _sync_folder(path.parent)


def _unlink_untouched(path: Path, for_s: float) -> bool:
    """A put that made the file young before it went aside is seen there, and the file comes back; a put that
    comes later finds nothing and writes."""
    aside = path.with_name(f".{path.name}.aside")
    os.rename(path, aside)
    if time.time() - aside.stat().st_mtime < for_s:
        os.replace(aside, path)
        return False
    aside.unlink()
    return True


def _make_folder(folder: Path) -> None:
    if folder.is_dir():
        return
    _make_folder(folder.parent)
    folder.mkdir(exist_ok=True)
    _sync_folder(folder.parent)


def _sync_folder(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


@contextmanager
def _sentences(place: str) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise Unavailable(f"cannot use the files in {place}: {error.strerror or error}") from error
