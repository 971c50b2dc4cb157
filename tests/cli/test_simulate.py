"""What `simulate` brings into a dataset before its people begin."""

from pathlib import Path

import pytest
from sqlalchemy import select

from engine.cli.opening import opened
from engine.cli.simulate import import_gold
from engine.errors import BadInput
from engine.pipeline import loop
from engine.store.images import Image
from engine.store.masks import Mask


def test_a_gold_set_lies_on_held_out_images_alone_and_judges(boxes: Path, pictures: Path) -> None:
    with opened(boxes) as workspace:
        assert import_gold(workspace, "boxes", pictures / "truth.json") == 6
        with workspace.read() as session:
            masks = session.execute(select(Image.split, Mask.source).join(Image, Image.id == Mask.image_id))
            assert set(masks) == {("val", "imported")}
            dataset_id = session.scalars(select(Image.dataset_id)).first()
            assert dataset_id is not None and loop.held_out_masks(session, dataset_id) == 6
            assert loop.new_masks(session, dataset_id) == 0


def test_a_broken_truth_file_is_named_and_imports_nothing(boxes: Path, tmp_path: Path) -> None:
    broken = tmp_path / "truth.json"
    broken.write_text('{"images": [')
    with opened(boxes) as workspace:
        with pytest.raises(BadInput, match=r"truth\.json"):
            import_gold(workspace, "boxes", broken)
        with workspace.read() as session:
            assert session.scalars(select(Mask.id)).all() == []
