"""The generator against what the official one recorded: count, order, masks, scores (parity README)."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from PIL import Image

from engine.geometry import rle
from engine.modeling import AutomaticMaskGenerator

if TYPE_CHECKING:
    from tests.modeling.conftest import Reference

IMAGES = ("3bfa8b3b01fd", "4cbd6c37f3a5", "100075")
SCORES = 1e-3


def recorded(shared: Path, name: str) -> tuple[dict[str, Any], list[dict[str, Any]], np.ndarray]:
    stored = json.loads((shared / "parity" / f"{name}.json").read_text())
    image = np.asarray(Image.open(shared / "datasets" / stored["image"]).convert("RGB"))
    return stored["arguments"], stored["records"], image


def n_differing(ours: rle.Rle, theirs: rle.Rle) -> int:
    return int(np.count_nonzero(rle.decode(ours) != rle.decode(theirs)))


@pytest.mark.parametrize("arguments_name", ["plain", "crops", "cleaned"])
@pytest.mark.parametrize("image_name", IMAGES)
def test_records_are_the_official_ones_in_their_order(
    shared: Path, trained: Reference, image_name: str, arguments_name: str
) -> None:
    arguments, official, image = recorded(shared, f"amg_{image_name}_{arguments_name}")
    generator = AutomaticMaskGenerator(trained.sam, **arguments, output_mode="coco_rle")
    ours = generator.generate(image)
    assert len(ours) == len(official)
    for mine, theirs in zip(ours, official, strict=True):
        assert list(mine) == list(theirs)
        assert n_differing(mine["segmentation"], theirs["segmentation"]) <= 1
        assert abs(mine["area"] - theirs["area"]) <= 1
        assert np.abs(np.subtract(mine["bbox"], theirs["bbox"])).max() <= 1
        assert mine["crop_box"] == theirs["crop_box"]
        assert mine["point_coords"] == [pytest.approx(theirs["point_coords"][0], abs=1e-9)]
        assert mine["predicted_iou"] == pytest.approx(theirs["predicted_iou"], abs=SCORES)
        assert mine["stability_score"] == pytest.approx(theirs["stability_score"], abs=SCORES)
