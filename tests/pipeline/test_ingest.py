"""Files in: what is added, known, refused or noted, and which split each picture falls into."""

import json
import os
import threading
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image as Picture
from sqlalchemy import func, select

from engine.errors import BadInput, NotFound
from engine.formats.pictures import decode_stored
from engine.pipeline.ingest import IngestReport, Origin, import_images
from engine.store.datasets import Dataset
from engine.store.images import Image
from engine.store.session import Workspace
from tests.factories import png
from tests.pipeline.conftest import Drawn, draw


def picture(folder: Path, name: str, n: int) -> Path:
    path = folder / name
    path.parent.mkdir(parents=True, exist_ok=True)
    Picture.fromarray(draw(n)[0]).save(path)
    return path


def images(workspace: Workspace) -> dict[str, Image]:
    with workspace.read() as session:
        return {image.original_name: image for image in session.scalars(select(Image).order_by(Image.id))}


def coco(path: Path, blocks: list[dict[str, Any]], **others: Any) -> Path:
    path.write_text(json.dumps({"images": blocks, "annotations": [], "categories": []} | others))
    return path


def block(id: int, file_name: str, **others: Any) -> dict[str, Any]:
    return {"id": id, "file_name": file_name, "width": 96, "height": 64} | others


def test_a_folder_comes_in_and_a_second_run_adds_nothing(workspace: Workspace, drawn: Drawn) -> None:
    report = import_images(workspace, "cells", [drawn.folder])
    assert (report.added, report.known, report.refused) == (6, 0, [])
    assert report.notes == [("annotations.json", "passed over: not a picture by its name")]
    again = import_images(workspace, "cells", [drawn.folder, drawn.folder / "cells-0.png"])
    assert (again.added, again.known, again.refused) == (0, 7, [])
    with workspace.read() as session:
        assert session.scalar(select(func.count()).select_from(Image)) == 6
        assert session.scalars(select(Image.export_id).order_by(Image.id)).all() == [1, 2, 3, 4, 5, 6]
    first = images(workspace)["cells-0.png"]
    assert np.array_equal(decode_stored(workspace.blobs.read(first.pixels_sha256)), draw(0)[0])
    assert (first.width, first.height, first.orientation, first.changes) == (96, 64, 1, [])


def test_names_keep_their_folder_and_hidden_files_stay_out(
    sqlite_workspace: Workspace, tmp_path: Path
) -> None:
    for n, name in enumerate(["a/one.png", "b/one.PNG", ".thumbs/one.png", "a/.one.png"]):
        picture(tmp_path, name, n)
    assert import_images(sqlite_workspace, "cells", [tmp_path]).added == 2
    assert set(images(sqlite_workspace)) == {"a/one.png", "b/one.PNG"}


def test_bad_files_are_refused_by_name_and_the_rest_goes_in(
    sqlite_workspace: Workspace, tmp_path: Path
) -> None:
    whole = picture(tmp_path, "good.png", 0).read_bytes()
    (tmp_path / "cut.png").write_bytes(whole[: len(whole) // 2])
    (tmp_path / "words.jpg").write_text("no picture")
    (tmp_path / "empty.png").touch()
    Picture.new("RGB", (2001, 2000)).save(tmp_path / "huge.png")
    report = import_images(sqlite_workspace, "cells", [tmp_path])
    assert report.added == 1 and list(images(sqlite_workspace)) == ["good.png"]
    reasons = dict(report.refused)
    assert set(reasons) == {"cut.png", "words.jpg", "empty.png", "huge.png"}
    assert "broken or cut short" in reasons["cut.png"] and "not an image" in reasons["words.jpg"]
    assert "larger than 4,000,000 pixels" in reasons["huge.png"]


def test_a_turned_photograph_is_stored_upright_with_its_change(
    sqlite_workspace: Workspace, tmp_path: Path
) -> None:
    tags = Picture.Exif()
    tags[0x0112] = 6
    Picture.fromarray(draw(0)[0]).save(tmp_path / "turned.jpg", exif=tags)
    import_images(sqlite_workspace, "cells", [tmp_path])
    row = images(sqlite_workspace)["turned.jpg"]
    assert (row.width, row.height, row.orientation) == (64, 96, 6)
    assert row.changes == ["turned upright (EXIF orientation 6)"]


def test_the_same_file_under_two_names_is_one_image(sqlite_workspace: Workspace, tmp_path: Path) -> None:
    content = picture(tmp_path, "a.png", 0).read_bytes()
    (tmp_path / "b.png").write_bytes(content)
    report = import_images(sqlite_workspace, "cells", [tmp_path])
    assert (report.added, report.known) == (1, 1)
    assert ("b.png", "the same file as a.png, kept once under that name") in report.notes


def test_the_same_file_may_be_in_two_datasets(sqlite_workspace: Workspace, tmp_path: Path) -> None:
    picture(tmp_path, "a.png", 0)
    assert import_images(sqlite_workspace, "one", [tmp_path]).added == 1
    assert import_images(sqlite_workspace, "two", [tmp_path]).added == 1


@pytest.mark.parametrize("name", ["", "a/b", "../up", "-x", "a b", "n" * 65, "x\n"])
def test_a_dataset_name_that_no_address_can_carry_is_refused(
    sqlite_workspace: Workspace, tmp_path: Path, name: str
) -> None:
    picture(tmp_path, "a.png", 0)
    with pytest.raises(BadInput, match="dataset name"):
        import_images(sqlite_workspace, name, [tmp_path])
    assert not images(sqlite_workspace)


def test_an_empty_folder_or_a_missing_path_makes_no_dataset(
    sqlite_workspace: Workspace, tmp_path: Path
) -> None:
    (tmp_path / "notes.txt").write_text("hello")
    with pytest.raises(BadInput, match="no picture found: give files or folders with .bmp"):
        import_images(sqlite_workspace, "cells", [tmp_path])
    picture(tmp_path, "a.png", 0)
    with pytest.raises(NotFound, match="no file or folder .*nowhere"):
        import_images(sqlite_workspace, "cells", [tmp_path, tmp_path / "nowhere"])
    with sqlite_workspace.read() as session:
        assert session.scalar(select(func.count()).select_from(Dataset)) == 0


def test_a_name_that_is_no_utf8_comes_in_readable(sqlite_workspace: Workspace, tmp_path: Path) -> None:
    Path(os.fsdecode(os.fsencode(tmp_path) + b"/caf\xe9.png")).write_bytes(png(n=1))
    report = import_images(sqlite_workspace, "cells", [tmp_path])
    assert (report.added, report.refused) == (1, []) and set(images(sqlite_workspace)) == {"caf\ufffd.png"}


def test_a_coco_file_gives_ids_splits_and_licences(
    sqlite_workspace: Workspace, drawn: Drawn, tmp_path: Path
) -> None:
    blocks = [
        block(40, "cells-0.png", split="val", license=2, slide="A"),
        block(2**62, "cells-1.png", split="train"),
        block(0, "cells-2.png", split="test"),
    ]
    annotations = coco(tmp_path / "in.json", blocks, licenses=[{"id": 2, "name": "CC0", "url": ""}])
    origin = Origin(source="the lab", attribution="Ann")
    report = import_images(sqlite_workspace, "cells", [drawn.folder], annotations=annotations, origin=origin)
    assert report.added == 6
    found = images(sqlite_workspace)
    first = found["cells-0.png"]
    assert (first.export_id, first.imported_id, first.split, first.licence) == (40, 40, "val", "CC0")
    assert first.extra == {"split": "val", "slide": "A"} and (first.source, first.attribution) == (
        "the lab",
        "Ann",
    )
    assert (found["cells-1.png"].split, found["cells-1.png"].imported_id) == ("train", 2**62)
    # Ids that no file or browser can carry, and files without a block, take the next free ones.
    assert sorted(image.export_id for image in found.values()) == [40, 41, 42, 43, 44, 45]
    assert found["cells-2.png"].split in ("train", "val")


def test_a_bad_image_block_is_noted_and_the_others_serve(
    sqlite_workspace: Workspace, drawn: Drawn, tmp_path: Path
) -> None:
    blocks = [block(5, "cells-0.png", split="val"), block(6, "../escape.png"), block(5, "cells-1.png")]
    report = import_images(
        sqlite_workspace, "cells", [drawn.folder], annotations=coco(tmp_path / "in.json", blocks)
    )
    assert report.added == 6 and images(sqlite_workspace)["cells-0.png"].export_id == 5
    assert [name for name, _ in report.notes].count("in.json") == 2


def test_two_files_of_one_name_take_no_block_by_bare_name(
    sqlite_workspace: Workspace, tmp_path: Path
) -> None:
    for n, name in enumerate(["a/x.png", "b/x.png", "b/y.png"]):
        picture(tmp_path, name, n)
    blocks = [block(8, "x.png", split="val"), block(9, "y.png", split="val")]
    import_images(sqlite_workspace, "cells", [tmp_path], annotations=coco(tmp_path / "in.json", blocks))
    found = images(sqlite_workspace)
    assert found["a/x.png"].imported_id is None and found["b/x.png"].imported_id is None
    assert found["b/y.png"].imported_id == 9


def test_a_picture_of_another_size_than_its_block_is_refused(
    sqlite_workspace: Workspace, drawn: Drawn, tmp_path: Path
) -> None:
    blocks = [block(1, "cells-0.png") | {"width": 64, "height": 96}]
    report = import_images(
        sqlite_workspace, "cells", [drawn.folder], annotations=coco(tmp_path / "in.json", blocks)
    )
    assert report.added == 5
    ((name, reason),) = report.refused
    assert name == "cells-0.png" and "is 96 x 64 once upright, but the annotations say 64 x 96" in reason


def test_lookalikes_share_a_group_and_so_a_split(workspace: Workspace, drawn: Drawn, tmp_path: Path) -> None:
    import_images(workspace, "cells", [drawn.folder], annotations=drawn.annotations)
    held_out = draw(5)[0]
    Picture.fromarray(held_out).resize((192, 128)).save(tmp_path / "larger.png")
    Picture.fromarray((held_out * 0.9 + 10).astype(np.uint8)).save(tmp_path / "paler.jpg", quality=90)
    annotations = coco(tmp_path / "in.json", [block(70, "paler.jpg", split="train")])
    report = import_images(workspace, "cells", [tmp_path], annotations=annotations)
    found = images(workspace)
    original = found["cells-5.png"]
    assert original.split == "val" and report.added == 2
    for name in ("larger.png", "paler.jpg"):
        assert (found[name].near_duplicate_group, found[name].split) == (original.near_duplicate_group, "val")
    assert (
        "paler.jpg",
        "kept in split val with the image it looks like; the file says train",
    ) in report.notes


def test_splits_are_the_same_in_every_home(sqlite_workspace: Workspace, tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    for n in range(60):
        Picture.fromarray(rng.integers(0, 255, (16, 16, 3), np.uint8)).save(tmp_path / f"{n:02}.png")
    import_images(sqlite_workspace, "one", [tmp_path])
    import_images(sqlite_workspace, "two", sorted(tmp_path.iterdir(), reverse=True))
    columns = select(Image.dataset_id, Image.original_name, Image.split)
    with sqlite_workspace.read() as session:
        rows = session.execute(columns).all()
    by_dataset = [{name: split for id, name, split in rows if id == dataset_id} for dataset_id in (1, 2)]
    assert by_dataset[0] == by_dataset[1]
    assert 3 <= list(by_dataset[0].values()).count("val") <= 24


def test_two_imports_at_once_add_each_picture_once(workspace: Workspace, drawn: Drawn) -> None:
    reports: list[IngestReport] = []
    import_images(workspace, "cells", [drawn.folder / "cells-0.png"])
    start = threading.Barrier(2)

    def run() -> None:
        start.wait()
        reports.append(import_images(workspace, "cells", [drawn.folder]))

    threads = [threading.Thread(target=run) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted((report.added, report.known) for report in reports) == [(0, 6), (5, 1)]


def test_nuclei_come_in_with_the_ids_and_splits_of_their_file(
    sqlite_workspace: Workspace, shared: Path
) -> None:
    folder = shared / "datasets" / "nuclei"
    some = sorted((folder / "images").iterdir())[:30]
    report = import_images(sqlite_workspace, "nuclei", some, annotations=folder / "annotations.json")
    assert (report.added, report.refused, report.notes) == (30, [], [])
    blocks = {
        one["file_name"]: one for one in json.loads((folder / "annotations.json").read_text())["images"]
    }
    for name, image in images(sqlite_workspace).items():
        assert (image.export_id, image.split) == (blocks[name]["id"], blocks[name]["split"])
