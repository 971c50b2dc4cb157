"""Published address -> checkpoint file: gone on with where it stopped, and whole or not there."""

import fcntl
import os
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.client import HTTPException, HTTPResponse
from pathlib import Path
from typing import IO
from urllib.error import HTTPError
from urllib.request import Request, urlopen

from engine.errors import BadInput, Conflict, Unavailable
from engine.modeling.official import OfficialCheckpoint, check_name, digests_of

_CHUNK = 1 << 20
_TIMEOUT_S = 30
# Broken connections in a row that brought nothing new, and the wait before the next.
_TRIES, _PAUSE_S = 4, 1.0


class _Broken(Exception):
    """The network gave way; what has arrived is kept."""


def fetch(
    official: OfficialCheckpoint,
    folder: Path,
    url: str | None = None,
    tell: Callable[[int, int], None] = lambda done, total: None,
) -> Path:
    """The published file in `folder`, downloaded from its address or from `url`, a mirror of it.

    A download that was broken off is gone on with; `tell` hears (done, total) in MB. Only a file that is
    what its name says gets the name. Raises Unavailable, with the way by hand, where the network does not
    allow it, BadInput for a file that is another one, Conflict while another process fetches it.
    """
    url, target = url or official.url, folder / official.file_name
    if not url.startswith(("https://", "http://")):
        raise BadInput(f"{url} is no address to fetch from: it begins with https:// or http://")
    if target.is_file():
        _refuse_other(official, target)
        return target
    part = target.with_name(f"{target.name}.part")
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with _held(part) as file:
            _complete(url, file, tell)
            _refuse_other(official, part)
            os.replace(part, target)
            _validator_of(part).unlink(missing_ok=True)
    except OSError as error:
        raise Unavailable(f"cannot write to {folder}: {error.strerror or error}") from error
    return target


@contextmanager
def _held(part: Path) -> Iterator[IO[bytes]]:
    """The unfinished file, open at its end, for this process alone."""
    with open(part, "ab") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise Conflict(f"{part.stem} is being fetched by another process: wait for it") from None
        yield file


def _complete(url: str, file: IO[bytes], tell: Callable[[int, int], None]) -> None:
    """Asks again and again for what is missing, as long as each time brings something."""
    began_at, n_vain = file.tell(), 0
    while True:
        before = file.tell()
        try:
            _go_on(url, file, tell)
            break
        except _Broken as broken:
            n_vain = n_vain + 1 if file.tell() == before else 0
            # Where nothing ever came, nothing will: say so at once.
            if file.tell() == began_at or n_vain == _TRIES:
                raise Unavailable(_by_hand(url, broken, file.tell())) from broken
        time.sleep(_PAUSE_S)
    file.flush()
    os.fsync(file.fileno())


def _go_on(url: str, file: IO[bytes], tell: Callable[[int, int], None]) -> None:
    """One request for what is missing; _Broken when it ends before the whole is there."""
    with _opened(url, file) as response:
        if response is None:
            return
        total = _begin(response, file)
        for chunk in _chunks(response):
            file.write(chunk)
            tell(file.tell() // 1_000_000, total // 1_000_000)
    if file.tell() < total:
        raise _Broken(f"the connection ended after {file.tell()} of {total} bytes")


@contextmanager
def _opened(url: str, file: IO[bytes]) -> Iterator[HTTPResponse | None]:
    """The server's answer, or None where it says that nothing is missing."""
    headers = {"User-Agent": "maskloop", "Accept-Encoding": "identity"}
    if size := file.tell():
        headers["Range"] = f"bytes={size}-"
        known = _validator_of(Path(file.name))
        if known.is_file() and (validator := known.read_text()):
            # The rest of another version is not wanted: then the server begins anew.
            headers["If-Range"] = validator
    try:
        response = urlopen(Request(url, headers=headers), timeout=_TIMEOUT_S)
    except HTTPError as error:
        if error.code == 416 and error.headers.get("Content-Range") == f"bytes */{size}":
            yield None
            return
        if error.code == 416:
            _empty(file)
            raise _Broken("what was there is longer than the file") from error
        raise _Broken(f"the server answers {error.code} {error.reason}") from error
    except (OSError, HTTPException, ValueError) as error:
        raise _Broken(getattr(error, "reason", None) or str(error) or type(error).__name__) from error
    with response:
        yield response


def _begin(response: HTTPResponse, file: IO[bytes]) -> int:
    """Makes the file end where the answer begins; the length of the whole in bytes, 0 if nobody says it."""
    unit, _, span = response.headers.get("Content-Range", "").partition(" ")
    if response.status == 206 and unit == "bytes" and span.startswith(f"{file.tell()}-"):
        length = span.rpartition("/")[2]
        return int(length) if length.isdigit() else 0
    # The whole, from the beginning: the server knows no ranges, or has another version by now.
    _empty(file)
    entity = response.headers.get("ETag", "")
    # RFC 9110, 13.1.5: a weak tag says nothing about bytes.
    validator = (
        entity if entity and not entity.startswith("W/") else response.headers.get("Last-Modified", "")
    )
    _validator_of(Path(file.name)).write_text(validator)
    return int(response.headers.get("Content-Length") or 0)


def _empty(file: IO[bytes]) -> None:
    file.truncate(0)
    # Or `tell` would go on naming the old end.
    file.seek(0)


def _chunks(response: HTTPResponse) -> Iterator[bytes]:
    while True:
        try:
            chunk = response.read(_CHUNK)
        except (OSError, HTTPException) as error:
            raise _Broken(str(error) or type(error).__name__) from error
        if not chunk:
            return
        yield chunk


def _refuse_other(official: OfficialCheckpoint, path: Path) -> None:
    from engine.modeling.architecture import config_of  # torch, after the download and not before

    try:
        check_name(official.file_name, digests_of(path))
        found = config_of(path).name
        if found != official.architecture:
            raise BadInput(f"the address holds another model, {found} and not {official.architecture}")
    except BadInput:
        # Nothing of it can be used, and the next time begins anew.
        path.unlink()
        _validator_of(path).unlink(missing_ok=True)
        raise


def _validator_of(part: Path) -> Path:
    return part.with_name(f"{part.name}.validator")


def _by_hand(url: str, broken: _Broken, n_bytes: int) -> str:
    kept = f"{n_bytes / 1e6:.0f} MB are kept, ask again to go on; or " if n_bytes else ""
    return (
        f"cannot fetch {url} ({broken}): {kept}download it by hand where there is a network, and "
        "`maskloop models import FILE` takes it"
    )
