"""Other people's masks in: what they bring with them stays, and no bad record costs the good ones."""

import json
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import func, select

from engine.errors import BadInput, NotFound
from engine.geometry.rle import encode
from engine.pipeline.export import export
from engine.pipeline.ingest import import_images
from engine.pipeline.ingest_masks import import_masks
from engine.pipeline.snapshot import take
from engine.store.categories import Category
from engine.store.images import Image
from engine.store.masks import Mask, current_masks
from engine.store.session import Workspace
from tests.pipeline.conftest import Drawn, Lab, ellipse, rows

RLE = encode(ellipse(30, 30, 9, 9))
OTHER = encode(ellipse(60, 30, 9, 9))


def coco(path: Path, *annotations: dict[str, Any], **changes: Any) -> Path:
    sections = {
        "images": [{"id": 1, "file_name": "cells-0.png", "width": 96, "height": 64}],
        "categories": [{"id": 7, "name": "cell", "supercategory": "tissue", "colour": "#f00"}],
        "annotations": list(annotations),
    }
    path.write_text(json.dumps(sections | changes))
    return path


def annotation(id: int, **changes: Any) -> dict[str, Any]:
    return {"id": id, "image_id": 1, "category_id": 7, "segmentation": RLE} | changes


@pytest.fixture
def cells(sqlite_workspace: Workspace, drawn: Drawn) -> Workspace:
    """The six pictures, without masks."""
    import_images(sqlite_workspace, "cells", [drawn.folder])
    return sqlite_workspace


def test_masks_come_in_whole_and_a_second_run_adds_nothing(labs: Lab, drawn: Drawn) -> None:
    workspace = labs.workspace
    report = import_masks(workspace, "cells", drawn.annotations)
    assert (report.added, report.known, report.renumbered, report.refused) == (18, 0, 0, [])
    again = import_masks(workspace, "cells", drawn.annotations)
    assert (again.added, again.known, again.renumbered, again.refused) == (0, 18, 0, [])
    masks = rows(workspace, select(Mask).order_by(Mask.id))
    names = {image.id: image.original_name for image in rows(workspace, select(Image))}
    for mask in masks:
        number = mask.export_id % 10
        assert mask.counts == drawn.masks[names[mask.image_id]][number]["counts"]
        assert (mask.source, mask.touched_by_person, mask.stage) == ("imported", True, None)
    assert [mask.export_id for mask in masks] == [100 + 10 * n + k for n in range(6) for k in range(3)]
    assert [mask.imported_id for mask in masks] == [mask.export_id for mask in masks]


def test_what_coco_does_not_know_is_kept(cells: Workspace, tmp_path: Path) -> None:
    record = annotation(5, iscrowd=1, attributes={"blurred": True}, annotator="Ann")
    import_masks(cells, "cells", coco(tmp_path / "in.json", record), made_by_people=False)
    (mask,), (category,) = rows(cells, select(Mask)), rows(cells, select(Category))
    assert (mask.iscrowd, mask.attributes, mask.extra) == (1, {"blurred": True}, {"annotator": "Ann"})
    assert (mask.category_id, mask.touched_by_person) == (category.id, False)
    assert (mask.area, mask.bbox_xywh) == (int(ellipse(30, 30, 9, 9).sum()), [21, 21, 19, 19])
    assert (category.name, category.supercategory, category.export_id) == ("cell", "tissue", 7)
    assert category.extra == {"colour": "#f00"}


def test_clashing_ids_are_renumbered_and_said(cells: Workspace, tmp_path: Path) -> None:
    import_masks(
        cells, "cells", coco(tmp_path / "one.json", annotation(5), annotation(9, segmentation=OTHER))
    )
    second = [annotation(5, segmentation=OTHER), annotation(0), annotation(2**62), annotation(6)]
    report = import_masks(cells, "cells", coco(tmp_path / "two.json", *second))
    assert (report.added, report.renumbered, report.refused) == (4, 3, [])
    found = rows(cells, select(Mask).order_by(Mask.id))
    assert [mask.export_id for mask in found] == [5, 9, 10, 11, 12, 6]
    assert [mask.imported_id for mask in found] == [5, 9, 5, 0, 2**62, 6]
    third = import_masks(cells, "cells", coco(tmp_path / "three.json", annotation(10)))
    assert third.renumbered == 1 and rows(cells, select(func.max(Mask.export_id))) == [13]


def test_bad_records_are_refused_by_name_and_the_rest_goes_in(cells: Workspace, tmp_path: Path) -> None:
    empty = {"size": [64, 96], "counts": encode(ellipse(-50, -50, 3, 3))["counts"]}
    bad = {
        2: annotation(2, segmentation={"size": [64, 96], "counts": "\x7f" * 40}),
        3: annotation(3, segmentation={"size": [10**9, 10**9], "counts": "00"}),
        4: annotation(4, segmentation={"size": [10, 10], "counts": "T3"}),
        5: annotation(5, image_id=99),
        6: annotation(6, category_id=99),
        7: annotation(7, segmentation=None),
        8: annotation(8, segmentation=empty),
    }
    records = [
        annotation(1),
        *bad.values(),
        annotation(1, segmentation=OTHER),
        annotation(9, segmentation=OTHER),
    ]
    report = import_masks(cells, "cells", coco(tmp_path / "in.json", *records))
    assert report.added == 2
    assert [mask.imported_id for mask in rows(cells, select(Mask).order_by(Mask.id))] == [1, 9]
    for id in bad:
        assert any(sentence.startswith(f"annotation {id}: ") for sentence in report.refused), id
    assert any("annotation 1: the id occurs twice" in sentence for sentence in report.refused)
    assert len(report.refused) == 8 and not any("\n" in sentence for sentence in report.refused)


def test_images_that_are_not_there_leave_only_their_own_masks_out(cells: Workspace, tmp_path: Path) -> None:
    blocks = [
        {"id": 1, "file_name": "cells-0.png", "width": 96, "height": 64},
        {"id": 2, "file_name": "gone.png", "width": 96, "height": 64},
        {"id": 3, "file_name": "cells-1.png", "width": 64, "height": 96},
        {"id": 4, "file_name": "elsewhere/cells-0.png", "width": 96, "height": 64},
        {"id": 1, "file_name": "cells-2.png", "width": 96, "height": 64},
    ]
    records = [annotation(10 + id, image_id=id) for id in (1, 2, 4)]
    report = import_masks(cells, "cells", coco(tmp_path / "in.json", *records, images=blocks))
    assert report.added == 1
    said = "\n".join(report.refused)
    assert "image 2 (gone.png): not in the dataset; run `maskloop images import` first" in said
    assert "image 3 (cells-1.png): is 96 x 64 once upright, the file says 64 x 96" in said
    assert "image 4 (elsewhere/cells-0.png): another image of the file has this name" in said
    assert "image 1: the id occurs twice" in said


@pytest.mark.parametrize("content", ["", "[]", "{", "hello", '{"images": []}', '{"annotations": 3}'])
def test_a_file_that_is_no_coco_changes_nothing(cells: Workspace, tmp_path: Path, content: str) -> None:
    path = tmp_path / "in.json"
    path.write_text(content)
    with pytest.raises(BadInput):
        import_masks(cells, "cells", path)
    assert rows(cells, select(func.count()).select_from(Mask)) == [0]
    assert rows(cells, select(func.count()).select_from(Category)) == [0]


def test_a_file_cut_short_in_its_masks_changes_nothing(
    cells: Workspace, drawn: Drawn, tmp_path: Path
) -> None:
    path = tmp_path / "in.json"
    path.write_text(drawn.annotations.read_text()[:-400])
    with pytest.raises(BadInput):
        import_masks(cells, "cells", path)
    assert rows(cells, select(func.count()).select_from(Mask)) == [0]


def test_an_unknown_dataset_is_named(cells: Workspace, drawn: Drawn) -> None:
    with pytest.raises(NotFound, match="no dataset named 'cell' .*cells"):
        import_masks(cells, "cell", drawn.annotations)


def test_all_nuclei_go_in_and_out_with_every_counts_id_and_category_equal(
    sqlite_workspace: Workspace, shared: Path, tmp_path: Path
) -> None:
    nuclei = shared / "datasets" / "nuclei"
    given = json.loads((nuclei / "annotations.json").read_text())
    import_images(sqlite_workspace, "nuclei", [nuclei / "images"], annotations=nuclei / "annotations.json")
    report = import_masks(sqlite_workspace, "nuclei", nuclei / "annotations.json")
    assert (report.added, report.renumbered, report.refused) == (8204, 0, [])
    assert import_masks(sqlite_workspace, "nuclei", nuclei / "annotations.json").known == 8204
    assert rows(sqlite_workspace, select(func.count()).select_from(current_masks)) == [8204]
    with sqlite_workspace.write() as session:
        snapshot_id = take(session, 1, "release").id
    export(sqlite_workspace, "nuclei", snapshot_id, tmp_path / "out", include_images=False)
    written = json.loads((tmp_path / "out" / "annotations.json").read_text())
    for section in ("images", "categories", "annotations"):
        before = {one["id"]: one for one in given[section]}
        after = {one["id"]: one for one in written[section]}
        assert before.keys() == after.keys()
        for id, fields in before.items():
            assert fields == {key: after[id].get(key) for key in fields}, (section, id)
