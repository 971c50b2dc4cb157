"""Exports: the same bytes for the same snapshot, whole or not at all, readable by the reference."""

import contextlib
import io
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image as Picture
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval
from sqlalchemy import select

from engine.errors import BadInput, MaskloopError, NotFound
from engine.formats.verify import verify
from engine.pipeline.export import export
from engine.pipeline.ingest import Origin, import_images
from engine.pipeline.ingest_masks import import_masks
from engine.pipeline.snapshot import take
from engine.store.categories import Category
from engine.store.datasets import take_export_ids
from engine.store.events import Event
from engine.store.exports import Export
from engine.store.images import Image
from engine.store.session import Workspace
from tests.factories import a_dataset, a_mask, add, an_image
from tests.pipeline.conftest import Drawn, Lab, draw, rows


@pytest.fixture
def masked(labs: Lab, drawn: Drawn) -> Lab:
    import_masks(labs.workspace, "cells", drawn.annotations)
    return labs


def released(workspace: Workspace, dataset_id: int = 1, kind: str = "release") -> int:
    with workspace.write() as session:
        return take(session, dataset_id, kind).id


def contents(folder: Path) -> dict[str, bytes]:
    return {
        path.relative_to(folder).as_posix(): path.read_bytes()
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }


def coco_of(folder: Path) -> dict[str, Any]:
    return json.loads((folder / "annotations.json").read_text())


def test_the_same_snapshot_gives_the_same_bytes(masked: Lab, tmp_path: Path) -> None:
    snapshot_id = released(masked.workspace)
    first = export(masked.workspace, "cells", snapshot_id, tmp_path / "one")
    with masked.workspace.write() as session:
        # What came after the snapshot must not show.
        session.add(Category(dataset_id=masked.dataset_id, name="later", export_id=50))
    export(masked.workspace, "cells", snapshot_id, tmp_path / "two")
    assert contents(tmp_path / "one") == contents(tmp_path / "two")
    assert (first.n_images, first.n_masks, first.snapshot) == (6, 18, "release-1")
    assert len(rows(masked.workspace, select(Export.id))) == 2
    assert (
        rows(masked.workspace, select(Event.kind).where(Event.kind == "export.written"))
        == ["export.written"] * 2
    )
    report = verify(tmp_path / "one")
    assert report.ok and (report.n_images, report.n_annotations) == (6, 18), report.problems


def test_masks_and_images_come_out_as_they_went_in(masked: Lab, drawn: Drawn, tmp_path: Path) -> None:
    export(masked.workspace, "cells", released(masked.workspace), tmp_path / "out")
    given, written = json.loads(drawn.annotations.read_text()), coco_of(tmp_path / "out")
    for section in ("images", "categories", "annotations"):
        after = {one["id"]: one for one in written[section]}
        for fields in given[section]:
            assert fields == {key: after[fields["id"]][key] for key in fields}
    for n in range(6):
        exported = np.asarray(Picture.open(tmp_path / "out" / "images" / f"cells-{n}.png"))
        assert np.array_equal(exported, draw(n)[0])


def test_an_export_comes_back_in_with_every_id(masked: Lab, tmp_path: Path) -> None:
    out = tmp_path / "out"
    export(masked.workspace, "cells", released(masked.workspace), out)
    before = coco_of(out)
    import_images(masked.workspace, "again", [out / "images"], annotations=out / "annotations.json")
    report = import_masks(masked.workspace, "again", out / "annotations.json")
    assert (report.added, report.renumbered, report.refused) == (18, 0, [])
    export(masked.workspace, "again", released(masked.workspace, 2), tmp_path / "back")
    after = coco_of(tmp_path / "back")
    for section in ("images", "categories", "annotations"):
        assert before[section] == after[section]


def test_pycocotools_loads_and_evaluates_an_export(masked: Lab, tmp_path: Path) -> None:
    export(masked.workspace, "cells", released(masked.workspace), tmp_path / "out")
    with contextlib.redirect_stdout(io.StringIO()):
        truth = COCO(str(tmp_path / "out" / "annotations.json"))
        answers = [
            {key: one[key] for key in ("image_id", "category_id", "segmentation")} | {"score": 0.9}
            for one in truth.dataset["annotations"]
        ]
        evaluation = COCOeval(truth, truth.loadRes(answers), "segm")
        evaluation.params.maxDets = [1, 100, 1000]
        evaluation.evaluate()
        evaluation.accumulate()
    precision = evaluation.eval["precision"][:, :, :, 0, -1]
    assert truth.annToMask(truth.dataset["annotations"][0]).sum() == truth.dataset["annotations"][0]["area"]
    assert precision[precision > -1].mean() == pytest.approx(1.0)


@pytest.fixture
def mixed(sqlite_workspace: Workspace) -> Workspace:
    """One image with a mask that has a category and one that has none."""
    with sqlite_workspace.write() as session:
        dataset = a_dataset(session)
        image = an_image(sqlite_workspace, session, dataset.id)
        export_id = take_export_ids(session, dataset.id, "category", 1)[0]
        category = add(session, Category(dataset_id=dataset.id, name="cell", export_id=export_id))
        a_mask(session, image, category_id=category.id)
    return sqlite_workspace


def test_masks_without_a_category_get_one_that_nobody_is_offered(mixed: Workspace, tmp_path: Path) -> None:
    before = released(mixed)
    export(mixed, "dataset-1", before, tmp_path / "before")
    assert [one["name"] for one in coco_of(tmp_path / "before")["categories"]] == ["cell"]
    with mixed.write() as session:
        a_mask(session, session.scalars(select(Image)).one())
    after = released(mixed)
    for folder in ("after", "again"):
        export(mixed, "dataset-1", after, tmp_path / folder)
    export(mixed, "dataset-1", before, tmp_path / "before again")
    written = coco_of(tmp_path / "after")
    assert {one["name"]: one["id"] for one in written["categories"]} == {"cell": 1, "object": 2}
    assert [one["category_id"] for one in written["annotations"]] == [1, 2]
    assert contents(tmp_path / "after") == contents(tmp_path / "again")
    assert contents(tmp_path / "before") == contents(tmp_path / "before again")
    (made,) = rows(mixed, select(Category).where(Category.name == "object"))
    assert made.retired_at is not None


def test_an_empty_dataset_exports_and_verifies_its_images(lab: Lab, tmp_path: Path) -> None:
    export(lab.workspace, "cells", released(lab.workspace), tmp_path / "out", include_images=False)
    written = coco_of(tmp_path / "out")
    assert (len(written["images"]), written["annotations"], written["categories"]) == (6, [], [])
    assert not (tmp_path / "out" / "images").exists()


def test_licence_source_and_attribution_travel_with_each_image(
    sqlite_workspace: Workspace, drawn: Drawn, tmp_path: Path
) -> None:
    blocks = [{"id": 3, "file_name": "cells-1.png", "width": 96, "height": 64, "license": 9}]
    licences = [{"id": 9, "name": "CC BY 4.0", "url": ""}, {"id": 1, "name": "CC0", "url": ""}]
    path = tmp_path / "in.json"
    path.write_text(json.dumps({"images": blocks, "annotations": [], "licenses": licences}))
    import_images(sqlite_workspace, "cells", [drawn.folder / "cells-1.png"], annotations=path)
    origin = Origin(source="the lab", licence="CC0", attribution="Ann")
    import_images(sqlite_workspace, "cells", [drawn.folder / "cells-2.png"], origin=origin)
    export(sqlite_workspace, "cells", released(sqlite_workspace), tmp_path / "out")
    written = coco_of(tmp_path / "out")
    names = {one["id"]: one["name"] for one in written["licenses"]}
    found = {one["file_name"]: (names[one["license"]], one.get("source")) for one in written["images"]}
    assert found == {"cells-1.png": ("CC BY 4.0", None), "cells-2.png": ("CC0", "the lab")}


def test_names_are_unique_end_as_stored_and_stay_in_their_folder(
    sqlite_workspace: Workspace, tmp_path: Path
) -> None:
    source = tmp_path / "in"
    for n, name in enumerate(["a.tif", "b/x.png", "narrow\u202fspace.png", "C:drive.png"]):
        (source / name).parent.mkdir(parents=True, exist_ok=True)
        Picture.fromarray(draw(n)[0]).save(source / name)
    import_images(sqlite_workspace, "cells", [source, source / "b"])
    Picture.fromarray(255 - draw(5)[0]).save(source / "b" / "X.png")
    import_images(sqlite_workspace, "cells", [source])
    export(sqlite_workspace, "cells", released(sqlite_workspace), tmp_path / "out")
    names = {one["file_name"] for one in coco_of(tmp_path / "out")["images"]}
    assert names == {
        "a.tif.png",
        "b/x.png",
        "b/X-5.png",
        "narrow_space.png",
        "C_drive.png",
    }
    assert verify(tmp_path / "out").ok
    assert all((tmp_path / "out" / "images" / name).is_file() for name in names)


def test_a_folder_that_holds_something_is_left_alone(masked: Lab, tmp_path: Path) -> None:
    snapshot_id = released(masked.workspace)
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "thesis.txt").write_text("precious")
    (tmp_path / "file").write_text("precious")
    for taken in ("mine", "file"):
        with pytest.raises(BadInput, match="not empty: name a new folder"):
            export(masked.workspace, "cells", snapshot_id, tmp_path / taken)
    assert (tmp_path / "mine" / "thesis.txt").read_text() == "precious"
    (tmp_path / "empty").mkdir()
    export(masked.workspace, "cells", snapshot_id, tmp_path / "empty")
    export(masked.workspace, "cells", snapshot_id, tmp_path / "new" / "nested")
    assert verify(tmp_path / "empty").ok and verify(tmp_path / "new" / "nested").ok


def test_an_interrupted_export_leaves_nothing(masked: Lab, tmp_path: Path) -> None:
    snapshot_id = released(masked.workspace)
    (image,) = rows(masked.workspace, select(Image).where(Image.id == masked.image_ids[4]))
    masked.workspace.blobs.delete(image.pixels_sha256)
    target = tmp_path / "deep" / "out"
    with pytest.raises(MaskloopError):
        export(masked.workspace, "cells", snapshot_id, target)
    assert list(target.parent.iterdir()) == []
    assert rows(masked.workspace, select(Export.id)) == []


def test_unknown_formats_snapshots_and_datasets_are_named(masked: Lab, tmp_path: Path) -> None:
    snapshot_id = released(masked.workspace)
    with masked.workspace.write() as session:
        a_dataset(session, 2)
    with pytest.raises(BadInput, match="no format 'yolo' yet; the formats are: coco"):
        export(masked.workspace, "cells", snapshot_id, tmp_path / "out", format="yolo")
    for dataset, wanted in (("cells", 99), ("dataset-2", snapshot_id)):
        with pytest.raises(NotFound, match="no snapshot"):
            export(masked.workspace, dataset, wanted, tmp_path / "out")
    with pytest.raises(NotFound, match="no dataset named 'cell'"):
        export(masked.workspace, "cell", snapshot_id, tmp_path / "out")
    assert not (tmp_path / "out").exists()
