"""Downloads against a real server on the loopback address: resumed, checked, whole or not there."""

import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from io import BytesIO
from pathlib import Path

import pytest
import torch

from engine.errors import BadInput, Conflict, Unavailable
from engine.modeling.official import OFFICIAL
from engine.pipeline.fetch import _held, fetch


def checkpoint(stem: tuple[int, ...]) -> bytes:
    """5 MB of a torch file; the stem's shape says which model it is of."""
    file = BytesIO()
    state = {"image_encoder.patch_embed.seq.0.c.weight": torch.zeros(stem), "rest": torch.rand(1_250_000)}
    torch.save(state, file)
    return file.getvalue()


CONTENT = checkpoint((32, 3, 3, 3))
MOBILE = OFFICIAL["mobile"]


@dataclass
class Mirror:
    """One file, served as servers do; what was asked for is written down."""

    content: bytes = CONTENT
    tag: str = '"one"'
    knows_ranges: bool = True
    status: int | None = None
    # Bytes after which a connection is cut, one entry per connection to come.
    cuts: list[int] = field(default_factory=list)
    asked: list[dict[str, str]] = field(default_factory=list)
    url: str = ""


class Handler(BaseHTTPRequestHandler):
    mirror: Mirror

    def do_GET(self) -> None:
        mirror = self.mirror
        mirror.asked.append(dict(self.headers))
        if mirror.status is not None:
            self.send_error(mirror.status)
            return
        body = self._begin()
        self.wfile.write(body[: mirror.cuts.pop(0)] if mirror.cuts else body)

    def _begin(self) -> bytes:
        content, total = self.mirror.content, len(self.mirror.content)
        start = int(self.headers.get("Range", "bytes=0-").removeprefix("bytes=").rstrip("-"))
        if self.headers.get("If-Range", self.mirror.tag) != self.mirror.tag or not self.mirror.knows_ranges:
            start = 0
        if start >= total:
            self.send_response(416)
            self.send_header("Content-Range", f"bytes */{total}")
            self.end_headers()
            return b""
        self.send_response(206 if start else 200)
        if start:
            self.send_header("Content-Range", f"bytes {start}-{total - 1}/{total}")
        self.send_header("ETag", self.mirror.tag)
        self.send_header("Content-Length", str(total - start))
        self.end_headers()
        return content[start:]

    def log_message(self, *_: object) -> None:
        """Silent."""


@pytest.fixture
def mirror(monkeypatch: pytest.MonkeyPatch) -> Iterator[Mirror]:
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    served = Mirror()
    handler = type("MirrorHandler", (Handler,), {"mirror": served})
    server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    served.url = f"http://127.0.0.1:{server.server_port}/mobile_sam.pt"
    yield served
    server.shutdown()
    thread.join()
    server.server_close()


@pytest.fixture
def part(tmp_path: Path) -> Callable[[bytes, str], Path]:
    """Leaves a download as one that was broken off leaves it."""

    def leave(content: bytes, tag: str) -> Path:
        (tmp_path / "mobile_sam.pt.part").write_bytes(content)
        (tmp_path / "mobile_sam.pt.part.validator").write_text(tag)
        return tmp_path

    return leave


def assert_whole(path: Path, content: bytes = CONTENT) -> None:
    assert path.read_bytes() == content
    assert [file.name for file in path.parent.iterdir()] == ["mobile_sam.pt"]


def test_a_file_arrives_whole_and_is_not_fetched_again(mirror: Mirror, tmp_path: Path) -> None:
    heard: list[tuple[int, int]] = []
    for _ in range(2):
        path = fetch(MOBILE, tmp_path / "new", mirror.url, lambda *mb: heard.append(mb))
        assert_whole(path)
    assert len(mirror.asked) == 1 and "Range" not in mirror.asked[0]
    assert heard[-1] == (5, 5)


def test_a_broken_download_goes_on_where_it_stopped(mirror: Mirror, part: Callable[..., Path]) -> None:
    assert_whole(fetch(MOBILE, part(CONTENT[:3_000_001], '"one"'), mirror.url))
    (asked,) = mirror.asked
    assert (asked["Range"], asked["If-Range"]) == ("bytes=3000001-", '"one"')


def test_a_connection_that_breaks_is_taken_up_again_at_once(mirror: Mirror, tmp_path: Path) -> None:
    mirror.cuts = [2_000_000, 1_500_000]
    assert_whole(fetch(MOBILE, tmp_path, mirror.url))
    assert [asked.get("Range") for asked in mirror.asked] == [None, "bytes=2000000-", "bytes=3500000-"]


def test_the_rest_of_another_version_is_never_glued_on(mirror: Mirror, part: Callable[..., Path]) -> None:
    assert_whole(fetch(MOBILE, part(b"old" * 500, '"zero"'), mirror.url))


def test_a_server_without_ranges_is_asked_for_all_of_it(mirror: Mirror, part: Callable[..., Path]) -> None:
    mirror.knows_ranges = False
    assert_whole(fetch(MOBILE, part(CONTENT[:70], '"one"'), mirror.url))


def test_a_download_that_only_missed_its_name_gets_it(mirror: Mirror, part: Callable[..., Path]) -> None:
    assert_whole(fetch(MOBILE, part(CONTENT, '"one"'), mirror.url))


def test_more_than_there_is_begins_anew(mirror: Mirror, part: Callable[..., Path]) -> None:
    assert_whole(fetch(MOBILE, part(CONTENT + b"more", '"one"'), mirror.url))
    assert len(mirror.asked) == 2 and "Range" not in mirror.asked[1]


def test_what_arrived_is_kept_when_the_network_stays_away(mirror: Mirror, tmp_path: Path) -> None:
    mirror.cuts = [4_000_000, 0, 0, 0, 0]
    with pytest.raises(Unavailable, match="4 MB are kept, ask again to go on; or download it by hand"):
        fetch(MOBILE, tmp_path, mirror.url)
    assert not (tmp_path / "mobile_sam.pt").exists()
    assert_whole(fetch(MOBILE, tmp_path, mirror.url))
    assert mirror.asked[-1]["Range"] == "bytes=4000000-"


@pytest.mark.parametrize("status", [403, 404, 503])
def test_a_server_that_refuses_is_named_with_the_way_by_hand(
    mirror: Mirror, tmp_path: Path, status: int
) -> None:
    mirror.status = status
    with pytest.raises(Unavailable, match=f"answers {status} .*by hand.*models import FILE") as refused:
        fetch(MOBILE, tmp_path, mirror.url)
    assert mirror.url in str(refused.value) and "\n" not in str(refused.value)


def test_without_a_network_the_address_and_the_way_by_hand_are_said(tmp_path: Path) -> None:
    # Nobody listens on the discard port.
    with pytest.raises(Unavailable, match="refused.*: download it by hand where there is a network"):
        fetch(MOBILE, tmp_path, "http://127.0.0.1:9/mobile_sam.pt")
    assert not (tmp_path / "mobile_sam.pt").exists()


def test_a_file_that_is_not_what_its_name_says_gets_no_name_and_is_not_kept(
    mirror: Mirror, tmp_path: Path
) -> None:
    with pytest.raises(BadInput, match="begins with .* and not with 01ec64"):
        fetch(OFFICIAL["vit_b"], tmp_path, mirror.url)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("content", "sentence"),
    [
        (b"<html>sign in first</html>", "may have stored a web page"),
        (checkpoint((16, 3, 3, 3)), "another model"),
    ],
)
def test_what_is_no_such_model_gets_no_name_and_is_not_kept(
    mirror: Mirror, tmp_path: Path, content: bytes, sentence: str
) -> None:
    mirror.content = content
    with pytest.raises(BadInput, match=sentence):
        fetch(MOBILE, tmp_path, mirror.url)
    assert list(tmp_path.iterdir()) == []


def test_a_kept_file_that_was_damaged_since_is_fetched_anew_the_next_time(
    mirror: Mirror, tmp_path: Path
) -> None:
    path = fetch(MOBILE, tmp_path, mirror.url)
    path.write_bytes(CONTENT[:-900])
    with pytest.raises(BadInput, match="damaged or cut off"):
        fetch(MOBILE, tmp_path, mirror.url)
    assert_whole(fetch(MOBILE, tmp_path, mirror.url))


def test_anything_but_http_is_no_address(tmp_path: Path) -> None:
    for url in ("file:///etc/passwd", "ftp://example.org/x", "x.pth"):
        with pytest.raises(BadInput, match="begins with https"):
            fetch(MOBILE, tmp_path, url)


def test_two_never_write_one_file(mirror: Mirror, tmp_path: Path) -> None:
    with _held(tmp_path / "mobile_sam.pt.part"):
        with pytest.raises(Conflict, match="mobile_sam.pt is being fetched"):
            fetch(MOBILE, tmp_path, mirror.url)
    assert_whole(fetch(MOBILE, tmp_path, mirror.url))


def test_a_folder_that_cannot_be_written_is_named(mirror: Mirror, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(Unavailable, match="cannot write to .*file"):
        fetch(MOBILE, tmp_path / "file", mirror.url)
