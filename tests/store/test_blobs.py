"""Blobs: whole or absent, named by their content, verified when read."""

import hashlib
import os
import stat
import threading
from pathlib import Path

import pytest

from engine.errors import BadInput, NotFound, Unavailable
from engine.store.blobs import BlobStore

HELLO = hashlib.sha256(b"hello").hexdigest()


@pytest.fixture(params=["file", "memory"])
def blobs(request: pytest.FixtureRequest, tmp_path: Path) -> BlobStore:
    """A local folder, and fsspec's in-memory file system in the place of a bucket."""
    place = tmp_path if request.param == "file" else f"/{tmp_path.name}"
    return BlobStore(f"{request.param}://{place}/blobs", cache=tmp_path / "cache")


def test_bytes_come_back_under_their_digest(blobs: BlobStore) -> None:
    assert blobs.put(b"hello") == blobs.put(b"hello") == HELLO
    assert blobs.read(HELLO) == b"hello"
    assert blobs.exists(HELLO) and blobs.size(HELLO) == 5
    assert blobs.local_path(HELLO).read_bytes() == b"hello"
    assert blobs.delete(HELLO) and not blobs.delete(HELLO)
    assert not blobs.exists(HELLO)


def test_a_missing_blob_is_not_found(blobs: BlobStore) -> None:
    for ask in (blobs.read, blobs.size, blobs.local_path):
        with pytest.raises(NotFound, match=HELLO):
            ask(HELLO)


@pytest.mark.parametrize("name", ["../../etc/passwd", "", "A" * 64, HELLO[:-1], f"{HELLO}\n"])
def test_only_a_digest_names_a_blob(blobs: BlobStore, name: str) -> None:
    with pytest.raises(BadInput, match="SHA-256"):
        blobs.read(name)


def test_damaged_bytes_are_never_returned(tmp_path: Path) -> None:
    blobs = BlobStore(f"file://{tmp_path}/blobs")
    path = blobs.local_path(blobs.put(b"hello"))
    path.write_bytes(b"jello")
    with pytest.raises(Unavailable, match="damaged"):
        blobs.read(HELLO)
    assert blobs.read(HELLO, verify=False) == b"jello"


def test_a_cut_off_file_is_replaced_by_the_next_put(tmp_path: Path) -> None:
    blobs = BlobStore(f"file://{tmp_path}/blobs")
    path = blobs.local_path(blobs.put(b"hello"))
    path.write_bytes(b"he")
    blobs.put(b"hello")
    assert blobs.read(HELLO) == b"hello"


def test_many_writers_of_one_blob_agree_and_leave_no_drafts(tmp_path: Path) -> None:
    blobs = BlobStore(f"file://{tmp_path}/blobs")
    threads = [threading.Thread(target=blobs.put, args=(b"hello",)) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    files = [path for path in (tmp_path / "blobs").rglob("*") if path.is_file()]
    assert [path.name for path in files] == [HELLO]


def test_a_disk_that_refuses_leaves_no_half_file(tmp_path: Path) -> None:
    folder = tmp_path / "blobs"
    folder.write_bytes(b"a file where the folder should be")
    with pytest.raises(Unavailable, match="cannot use the files"):
        BlobStore(f"file://{folder}").put(b"hello")


def test_making_a_store_makes_no_folder(tmp_path: Path) -> None:
    BlobStore(f"file://{tmp_path}/blobs")
    assert os.listdir(tmp_path) == []


def test_blobs_are_for_their_owner_only(tmp_path: Path) -> None:
    blobs = BlobStore(f"file://{tmp_path}/blobs")
    mode = blobs.local_path(blobs.put(b"hello")).stat().st_mode
    assert stat.S_IMODE(mode) == 0o600


def test_an_unknown_kind_of_address_is_refused() -> None:
    with pytest.raises(BadInput, match="files.url"):
        BlobStore("nowhere://bucket")


def test_files_are_listed_and_go_only_once_nobody_touched_them_for_long(blobs: BlobStore) -> None:
    assert list(blobs.files()) == []
    blobs.put(b"hello")
    (file,) = blobs.files()
    assert (file.name, file.n_bytes) == (HELLO, 5)
    assert not blobs.is_untouched(file.path, 60) and not blobs.delete_untouched(file.path, 60)
    assert blobs.put(b"hello") == HELLO and blobs.exists(HELLO)
    assert blobs.is_untouched(file.path, 0) and blobs.delete_untouched(file.path, 0)
    assert not blobs.delete_untouched(file.path, 0) and list(blobs.files()) == []
