"""`models import` and `models fetch` as a person meets them."""

import threading
from collections.abc import Iterator
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
import torch

from engine.modeling import build_sam
from tests.cli.conftest import Maskloop
from tests.cli.test_refusals import assert_stated


@pytest.fixture
def checkpoint(shared: Path, tmp_path: Path) -> Path:
    """A small .pth that the official code saved."""
    (tmp_path / "files").mkdir()
    path = tmp_path / "files" / "mine.pth"
    path.write_bytes((shared / "parity/trained_tiny_sam.pth").read_bytes())
    return path


@pytest.fixture
def mirror(checkpoint: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """Address of a server that has the checkpoint's folder."""
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    handler = partial(Quiet, directory=str(checkpoint.parent))
    server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    yield f"http://127.0.0.1:{server.server_port}"
    server.shutdown()
    thread.join()
    server.server_close()


class Quiet(SimpleHTTPRequestHandler):
    def log_message(self, *_: object) -> None:
        """Silent: the command's own lines are read."""


def test_an_imported_checkpoint_is_a_candidate_that_can_be_measured_and_let_serve(
    boxes: Path, maskloop: Maskloop, pictures: Path, checkpoint: Path
) -> None:
    ended = maskloop("models", "import", checkpoint, "--home", boxes)
    assert ended.code == 0, ended.err
    assert "with nothing: it has no published name" in ended.err
    assert ended.out.startswith("mine (vit-128x6-256px) is a version of boxes, and serves nobody yet:")
    states = {
        row["model_version"]: row["state"]
        for row in maskloop("models", "list", "--home", boxes, "--json").json
    }
    assert states == {"small": "active", "mine": "candidate"}
    again = maskloop("models", "import", checkpoint, "--home", boxes, "--json").json
    assert (again["model_version"], again["known"], again["active"]) == ("mine", True, False)
    maskloop("masks", "import", pictures / "truth.json", "--home", boxes)
    assert maskloop("models", "evaluate", "mine", "--home", boxes).code == 0
    assert_stated(maskloop("models", "promote", "mine", "--home", boxes), "--anyway")
    assert maskloop("models", "promote", "mine", "--anyway", "--home", boxes).code == 0
    versions = maskloop("models", "list", "--home", boxes, "--json").json
    assert {row["model_version"]: row["state"] for row in versions} == {"small": "retired", "mine": "active"}


def test_bad_files_end_with_one_line_and_no_version(
    boxes: Path, maskloop: Maskloop, checkpoint: Path
) -> None:
    content = checkpoint.read_bytes()
    checkpoint.write_bytes(content[:-900])
    assert_stated(maskloop("models", "import", checkpoint, "--home", boxes), "mine.pth", "cut off")
    checkpoint.write_text("no weights here")
    assert_stated(maskloop("models", "import", checkpoint, "--home", boxes), "no torch file")
    missing = checkpoint.with_name("missing.pth")
    assert_stated(maskloop("models", "import", missing, "--home", boxes), "no checkpoint at", "missing.pth")
    assert_stated(maskloop("models", "import", checkpoint.parent, "--home", boxes), "no checkpoint at")
    assert len(maskloop("models", "list", "--home", boxes, "--json").json) == 1


def test_a_fetched_checkpoint_serves_where_there_is_no_model_yet_and_is_kept(
    home: Path, maskloop: Maskloop, pictures: Path, checkpoint: Path, mirror: str
) -> None:
    random = checkpoint.with_name("mobile_sam.pt")
    torch.save(build_sam("mobile", seed=0).state_dict(), random)
    maskloop("images", "import", pictures, "--dataset", "fresh", "--home", home)
    ended = maskloop("models", "fetch", "mobile", "--from", f"{mirror}/mobile_sam.pt", "--home", home)
    assert ended.code == 0, ended.err
    assert ended.out == "mobile_sam (mobile) serves fresh\n"
    assert "compared with nothing: its publisher gives no digest" in ended.err
    kept = home / "checkpoints" / "mobile_sam.pt"
    assert kept.read_bytes() == random.read_bytes() and str(kept) in ended.err
    # The bundled model is for datasets without one.
    assert maskloop("stage", "open", "assisted-manual", "--home", home).code == 0
    (row,) = maskloop("models", "list", "--home", home, "--json").json
    assert (row["model_version"], row["state"]) == ("mobile_sam", "active")


def test_what_is_not_the_published_file_is_not_taken(boxes: Path, maskloop: Maskloop, mirror: str) -> None:
    ended = maskloop("models", "fetch", "vit_b", "--from", f"{mirror}/mine.pth", "--home", boxes)
    assert_stated_at_the_end(ended.err, "sam_vit_b_01ec64.pth is damaged or another file")
    assert ended.code == 1 and list((boxes / "checkpoints").iterdir()) == []
    assert len(maskloop("models", "list", "--home", boxes, "--json").json) == 1


def test_without_a_network_the_way_by_hand_is_said(boxes: Path, maskloop: Maskloop) -> None:
    # Nobody listens on the discard port.
    address = "http://127.0.0.1:9/sam_vit_b_01ec64.pth"
    ended = maskloop("models", "fetch", "vit_b", "--from", address, "--home", boxes)
    assert_stated(ended, address, "download it by hand", "maskloop models import FILE")


def test_an_unknown_checkpoint_and_a_missing_dataset_are_said_before_anything_travels(
    boxes: Path, maskloop: Maskloop
) -> None:
    assert_stated(maskloop("models", "fetch", "vit_g", "--home", boxes), "vit_b, vit_l, vit_h, mobile")
    ended = maskloop("models", "fetch", "vit_b", "--dataset", "bxoes", "--home", boxes)
    assert_stated(ended, "no dataset named 'bxoes'")
    assert not (boxes / "checkpoints").exists()


def assert_stated_at_the_end(err: str, sentence: str) -> None:
    """Progress may have been told before."""
    assert err.splitlines()[-1].startswith("maskloop: ") and sentence in err.splitlines()[-1]
