"""The published SAM checkpoints: where they lie, and what their file names say about their content."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from pathlib import Path

from engine.errors import BadInput

_BLOCK = 1 << 20


@dataclass(frozen=True)
class OfficialCheckpoint:
    """One published file. `md5_prefix` is the beginning of its MD5 that the publisher put into its name."""

    architecture: str
    url: str
    md5_prefix: str | None

    @property
    def file_name(self) -> str:
        """As the publisher calls the file."""
        return self.url.rpartition("/")[2]


# The addresses of both projects' own pages. Full digests go round on the net, but nobody here could compare
# one with the publisher's file, so none is written down: the six digits in a name are all that is official.
OFFICIAL = {
    checkpoint.architecture: checkpoint
    for checkpoint in (
        OfficialCheckpoint(
            "vit_b", "https://dl.fbaipublicfiles.com/segment_anything/sam_vit_b_01ec64.pth", "01ec64"
        ),
        OfficialCheckpoint(
            "vit_l", "https://dl.fbaipublicfiles.com/segment_anything/sam_vit_l_0b3195.pth", "0b3195"
        ),
        OfficialCheckpoint(
            "vit_h", "https://dl.fbaipublicfiles.com/segment_anything/sam_vit_h_4b8939.pth", "4b8939"
        ),
        OfficialCheckpoint(
            "mobile", "https://github.com/ChaoningZhang/MobileSAM/raw/master/weights/mobile_sam.pt", None
        ),
    )
}


def official_named(name: str) -> OfficialCheckpoint:
    """The published checkpoint of that architecture; BadInput lists them."""
    if name not in OFFICIAL:
        raise BadInput(f"no published checkpoint is named {name!r}; choose one of {', '.join(OFFICIAL)}")
    return OFFICIAL[name]


@dataclass(frozen=True)
class Digests:
    """Of a whole file, as lower-case hex."""

    sha256: str
    md5: str


def digests_of(path: Path) -> Digests:
    """Both digests in one reading."""
    # MD5 is what the published names hold; against forgery it is worth nothing.
    sha256, md5 = hashlib.sha256(), hashlib.md5(usedforsecurity=False)
    with open(path, "rb") as file:
        while block := file.read(_BLOCK):
            sha256.update(block)
            md5.update(block)
    return Digests(sha256.hexdigest(), md5.hexdigest())


def check_name(file_name: str, digests: Digests) -> str:
    """How far a file is what its name says, in words that claim no more than was compared.

    Raises BadInput for a file that has a published name and another content.
    """
    official = next((known for known in OFFICIAL.values() if known.file_name == file_name), None)
    if official is None:
        return "with nothing: it has no published name"
    if official.md5_prefix is None:
        return "with nothing: its publisher gives no digest"
    if not digests.md5.startswith(official.md5_prefix):
        raise BadInput(
            f"{file_name} is damaged or another file: its MD5 begins with {digests.md5[:6]} and not with "
            f"{official.md5_prefix}; fetch {official.url} again, or rename weights of your own"
        )
    return f"in part: its MD5 begins with {official.md5_prefix}, as its published name says (24 of 128 bits)"
