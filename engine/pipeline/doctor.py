"""Everything -> Findings: proves that rows resolve, files are there and the flow's promises hold.

Reads only, in short sessions and pages of rows, so it may run beside a working installation. Rules about rows
alone live in engine/store/integrity.py and promises.py; here are those that look into masks and files.
"""

import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

from sqlalchemy import func, select
from sqlalchemy.exc import SQLAlchemyError

from engine.errors import BadInput, MaskloopError, NotFound, Unavailable
from engine.formats.pictures import decode_stored
from engine.geometry.rle import Rle, bbox_of_runs, runs_of
from engine.modeling.card import read_card
from engine.modeling.embedding_file import parents_of
from engine.store.embeddings import Embedding
from engine.store.images import Image
from engine.store.integrity import INTEGRITY, Check, Look, blob_columns, pages
from engine.store.model_versions import ModelVersion
from engine.store.promises import PROMISES
from engine.store.session import Workspace
from engine.store.tables import metadata

N_NAMED = 5
Progress = Callable[[int, int], None]


@dataclass(frozen=True)
class Finding:
    """One broken rule: how many rows break it, the first of them, and what to do about it."""

    check: str
    n: int
    first: list[str]
    mend: str


@dataclass(frozen=True)
class Examination:
    """How many rules were held against how many rows, and those that are broken."""

    n_checks: int
    n_rows: int
    findings: list[Finding]


def examine(workspace: Workspace, *, deep: bool = False, on_progress: Progress | None = None) -> Examination:
    """Holds every rule against the database and its files; `deep` also opens and hashes each file.

    Changes nothing. A rule that cannot be asked (a table is gone) is a finding too.
    """
    checks = (*INTEGRITY, *PROMISES, *FILES, *(OPENED if deep else ()))
    n_rows = _n_rows(workspace, checks)
    n_done = 0

    def advance(n: int) -> None:
        nonlocal n_done
        n_done += n
        if on_progress is not None:
            on_progress(n_done, n_rows + len(checks))

    findings = []
    for check in checks:
        found = _finding(check, Look(workspace, advance))
        findings += [found] if found else []
        advance(1)
    return Examination(len(checks), n_rows, findings)


def _n_rows(workspace: Workspace, checks: tuple[Check, ...]) -> int:
    tables = [metadata.tables[name] for check in checks for name in check.counted]
    with workspace.read() as session:
        return sum(session.scalar(select(func.count()).select_from(table)) or 0 for table in tables)


def _finding(check: Check, look: Look) -> Finding | None:
    n, first = 0, []
    try:
        for broken in check.broken(look):
            n += 1
            if n <= N_NAMED:
                first.append(str(broken))
    except (SQLAlchemyError, Unavailable) as error:
        reason = str(error).strip().splitlines()[0]
        return Finding(check.name, n + 1, [f"could not be checked: {reason[:200]}"], check.mend)
    return Finding(check.name, n, first, check.mend) if n else None


def _other_regions(look: Look) -> Iterator[object]:
    """Masks and proposals whose runs do not fill the image, or whose area or box is not that of the runs."""
    for name in ("masks", "proposals"):
        table = metadata.tables[name]
        columns = [table.c[column] for column in ("image_id", "counts", "area", "bbox_xywh")]
        for page in pages(look, table, *columns):
            sizes = _sizes(look, {row.image_id for row in page})
            for row in page:
                if row.image_id in sizes and not _is_region(row, sizes[row.image_id]):
                    yield f"{name} {row.id}"


def _sizes(look: Look, image_ids: set[int]) -> dict[int, tuple[int, int]]:
    here = select(Image.id, Image.height, Image.width).where(Image.id.in_(image_ids))
    with look.workspace.read() as session:
        return {id: (height, width) for id, height, width in session.execute(here)}


def _is_region(row: Any, hw: tuple[int, int]) -> bool:
    try:
        runs = runs_of(Rle(size=list(hw), counts=row.counts))
    except BadInput:
        return False
    return int(runs[1::2].sum()) == row.area and list(bbox_of_runs(runs, hw[0])) == list(row.bbox_xywh)


def _missing_files(look: Look) -> Iterator[object]:
    blobs = look.workspace.blobs
    for column in blob_columns():
        for page in pages(look, column.table, column):
            for row_id, sha256 in page:
                if fault := _fault(blobs.size, sha256):
                    yield f"{column.table.name} {row_id}: {fault}"


def _other_lengths(look: Look) -> Iterator[object]:
    blobs, table = look.workspace.blobs, metadata.tables["embeddings"]
    for page in pages(look, table, table.c.blob_sha256, table.c.n_bytes):
        for row_id, sha256, n_bytes in page:
            if blobs.exists(sha256) and blobs.size(sha256) != n_bytes:
                yield f"embeddings {row_id}"


def _other_contents(look: Look) -> Iterator[object]:
    """Files that are not what their digest says, or not what their row says; each is read once."""
    for column in blob_columns():
        judge = _JUDGES.get(str(column), _nothing_else)
        for page in pages(look, column.table, column):
            for row_id, sha256 in page:
                if fault := _fault(_judge_file, look.workspace, judge, row_id, sha256):
                    yield f"{column.table.name} {row_id}: {fault}"


Judge = Callable[[Workspace, int, bytes], None]


def _judge_file(workspace: Workspace, judge: Judge, row_id: int, sha256: str) -> None:
    try:
        content = workspace.blobs.read(sha256)
    except NotFound:
        return  # files_exist has named it
    judge(workspace, row_id, content)


def _fault(act: Callable[..., object], *arguments: object) -> str:
    """What an act complains of, in its own sentence; empty when it does not."""
    try:
        act(*arguments)
    except MaskloopError as error:
        return str(error)
    return ""


def _nothing_else(workspace: Workspace, row_id: int, content: bytes) -> None:
    """For files of which a row says the digest only."""


def _judge_picture(workspace: Workspace, image_id: int, content: bytes) -> None:
    with workspace.read() as session:
        image = session.get_one(Image, image_id)
    try:
        height, width = decode_stored(content).shape[:2]
    except (OSError, ValueError):
        raise BadInput("the file is no picture that can be decoded") from None
    if (height, width) != (image.height, image.width):
        raise BadInput(f"the picture is {width} x {height}, its row says {image.width} x {image.height}")


def _judge_embedding(workspace: Workspace, embedding_id: int, content: bytes) -> None:
    parents = select(Image.pixels_sha256, ModelVersion.weights_sha256).select_from(Embedding)
    joined = parents.join(Image, Image.id == Embedding.image_id).join(ModelVersion)
    with workspace.read() as session:
        wanted = session.execute(joined.where(Embedding.id == embedding_id)).one()
    if parents_of(content) != tuple(wanted):
        raise BadInput("the embedding was made of other pixels or by other weights than its row says")


def _judge_weights(workspace: Workspace, version_id: int, content: bytes) -> None:
    with workspace.read() as session:
        version = session.get_one(ModelVersion, version_id)
    # As JSON keeps it: a tuple comes back as a list.
    if json.loads(json.dumps(read_card(content)[0].to_dict())) != version.config:
        raise BadInput("the weights' own card is not the one in their row")


_JUDGES: dict[str, Judge] = {
    "images.pixels_sha256": _judge_picture,
    "embeddings.blob_sha256": _judge_embedding,
    "model_versions.weights_sha256": _judge_weights,
}
_BLOB_TABLES = tuple(column.table.name for column in blob_columns())
_COPY = "copy the file from a backup: its folder blobs/ is laid out like files.url (or `maskloop db restore`)"
FILES = (
    Check(
        "masks_are_regions",
        "no mask with such runs may train or be exported: `maskloop db restore DIR --home NEW` from a backup",
        _other_regions,
        ("masks", "proposals"),
    ),
    Check("files_exist", _COPY, _missing_files, _BLOB_TABLES),
    Check("embeddings_have_their_length", _COPY, _other_lengths, ("embeddings",)),
)
OPENED = (Check("files_are_what_their_rows_say", _COPY, _other_contents, _BLOB_TABLES),)
