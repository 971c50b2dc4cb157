"""One protocol: what promotion decides by is read of the same clicks as a person's whole evaluation."""

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from sqlalchemy import select

from engine.config import Settings
from engine.errors import BadInput
from engine.geometry.rle import Rle
from engine.pipeline.evaluate import (
    HeldOut,
    TruthFile,
    as_figures,
    correct_masks,
    evaluate,
    follow_clicks,
    follow_without_model,
    generated_scenes,
    keep,
    protocol_of,
    truth_file,
)
from engine.pipeline.ingest_masks import import_masks
from engine.pipeline.snapshot import take
from engine.store.evaluations import Evaluation
from engine.store.model_versions import ModelVersion
from engine.store.runner import Work, commit
from engine.training.recipes import BUNDLED_SEED, BUNDLED_THEMES, N_BUNDLED_SCENES, TEST_SEED
from tests.pipeline.conftest import Drawn, Lab, rows


@pytest.fixture
def weights(small_model: tuple[bytes, bytes], tmp_path: Path) -> Path:
    path = tmp_path / "small.safetensors"
    path.write_bytes(small_model[0])
    return path


def read(settings: Settings, drawn: Drawn, **asked: Any) -> TruthFile:
    wanted: dict[str, Any] = {"split": None, "n_masks": None, "seed": 0} | asked
    return truth_file(settings, drawn.annotations, drawn.folder, **wanted)


def test_the_row_is_the_same_whether_read_of_the_short_or_the_whole_protocol(lab: Lab, drawn: Drawn) -> None:
    import_masks(lab.workspace, "cells", drawn.annotations)
    with lab.workspace.write() as session:
        snapshot_id = take(session, lab.dataset_id, "evaluation", query={"split": "val"}).id
    ids = {"model_version_id": lab.version_id, "snapshot_id": snapshot_id}
    figures = commit(lab.workspace, evaluate(Work.inline(lab.workspace), **ids))
    protocol = protocol_of(lab.workspace.settings)
    (digest,) = rows(lab.workspace, select(ModelVersion.weights_sha256))
    held_out = HeldOut(lab.workspace, snapshot_id)
    scores = follow_clicks(lab.workspace.settings, lab.workspace.blobs.local_path(digest), held_out)
    again = as_figures(scores, protocol)
    assert again["n_masks"] == figures["n_masks"] == 6
    assert again["noc"] == figures["noc"] and again["reached"] == figures["reached"]
    assert again["miou"] == pytest.approx(figures["miou"], abs=1e-3)
    # The first row stays: evaluations are facts.
    commit(lab.workspace, keep({"miou": {}}, protocol, **ids))
    (row,) = rows(lab.workspace, select(Evaluation))
    assert row.figures == figures and row.protocol == protocol


def test_held_out_masks_can_be_passed_over_again(lab: Lab, drawn: Drawn) -> None:
    import_masks(lab.workspace, "cells", drawn.annotations)
    with lab.workspace.write() as session:
        snapshot_id = take(session, lab.dataset_id, "evaluation", query={"split": "val"}).id
    held_out = HeldOut(lab.workspace, snapshot_id)
    passes = [[(sample.image.tobytes(), len(sample.masks)) for sample in held_out] for _ in range(2)]
    assert passes[0] == passes[1] and [n for _, n in passes[0]] == [3, 3]


def test_a_file_gives_the_masks_of_one_split_or_of_all(settings: Settings, drawn: Drawn) -> None:
    assert read(settings, drawn).n_masks == 18
    val = read(settings, drawn, split="val")
    samples = list(val)
    assert val.n_masks == 6 and len(samples) == 2
    assert [sample.masks for sample in samples] == [drawn.masks["cells-4.png"], drawn.masks["cells-5.png"]]
    with pytest.raises(BadInput, match="split 'test'"):
        read(settings, drawn, split="test")


def test_equal_seeds_draw_equal_masks_and_the_others_stand_beside(settings: Settings, drawn: Drawn) -> None:
    def drawn_by(seed: int) -> list[tuple[int, Rle]]:
        found = read(settings, drawn, n_masks=5, seed=seed)
        return [(image_id, rle) for image_id, rles in found.chosen.items() for rle in rles]

    assert len(drawn_by(1)) == 5 and drawn_by(1) == drawn_by(1) != drawn_by(2)
    sample = next(iter(read(settings, drawn, n_masks=5, seed=1)))
    assert len(sample.masks) + len(sample.beside) == 3 and 0 < len(sample.masks)
    assert read(settings, drawn, n_masks=500).n_masks == 18


def test_generated_scenes_are_none_of_training_and_drawn_by_seed() -> None:
    samples = generated_scenes(3, 7, seed=0)
    assert [sample.group for sample in samples] == list(BUNDLED_THEMES)
    assert sum(len(sample.masks) for sample in samples) == 7 and all(sample.beside for sample in samples)
    again, other = generated_scenes(3, 7, seed=0), generated_scenes(3, 7, seed=1)
    counts = [[len(sample.masks) for sample in some] for some in (samples, again, other)]
    assert counts[0] == counts[1] and np.array_equal(samples[2].image, again[2].image)
    assert [m.tobytes() for s in samples for m in s.masks] != [m.tobytes() for s in other for m in s.masks]
    assert TEST_SEED > BUNDLED_SEED + N_BUNDLED_SCENES


def altered(drawn: Drawn, tmp_path: Path, change: Any) -> Path:
    coco = json.loads(drawn.annotations.read_text())
    change(coco)
    path = tmp_path / "altered.json"
    path.write_text(json.dumps(coco))
    return path


def test_crowds_and_specks_are_left_out(settings: Settings, drawn: Drawn, tmp_path: Path) -> None:
    def crowd(coco: Any) -> None:
        for annotation in coco["annotations"][:3]:
            annotation["iscrowd"] = 1

    file = altered(drawn, tmp_path, crowd)
    assert truth_file(settings, file, drawn.folder, None, None, 0).n_masks == 15

    def specks(coco: Any) -> None:
        dot = {"size": [64, 96], "counts": [100, 63, 64 * 96 - 163]}
        coco["annotations"] = [one | {"segmentation": dot, "area": 63} for one in coco["annotations"]]

    with pytest.raises(BadInput, match="no mask of 64 px or more"):
        truth_file(settings, altered(drawn, tmp_path, specks), drawn.folder, None, None, 0)


def test_pictures_that_are_missing_or_of_another_size_are_named(
    settings: Settings, drawn: Drawn, tmp_path: Path
) -> None:
    with pytest.raises(BadInput, match="cells-0.png: give the pictures' folder"):
        list(truth_file(settings, drawn.annotations, tmp_path, None, None, 0))

    def stretch(coco: Any) -> None:
        coco["images"][0] |= {"width": 97}
        coco["annotations"] = [one for one in coco["annotations"] if one["image_id"] != 11]
        whole = {"size": [64, 97], "counts": [0, 64 * 97]}
        coco["annotations"].append({"id": 1, "image_id": 11, "category_id": 7, "segmentation": whole})

    file = altered(drawn, tmp_path, stretch)
    with pytest.raises(BadInput, match="has 96 x 64 px, its block in the file says 97 x 64"):
        list(truth_file(settings, file, drawn.folder, None, None, 0))


def test_the_whole_protocol_measures_oracle_and_reach(
    settings: Settings, drawn: Drawn, weights: Path
) -> None:
    scores = follow_clicks(settings, weights, read(settings, drawn, split="val"))
    assert scores.ious.shape == (6, 20) and scores.noc_iou == 0.9
    assert scores.oracle_ious is not None and scores.oracle_ious.shape == (6, 9)
    assert (scores.oracle_ious[:, 0] >= scores.ious[:, 0]).all()
    assert scores.ceilings is not None and (scores.ceilings > 0.7).all() and (scores.ceilings < 1).all()


def test_baselines_make_the_same_clicks_at_their_best_setting(settings: Settings, drawn: Drawn) -> None:
    found = follow_without_model(read(settings, drawn, split="val"))
    assert [name.split(" (")[0] for name in found] == ["flood fill", "local Otsu", "GrabCut"]
    assert all(scores.mean_iou(1) > 0.95 for scores in found.values()), "bright ellipses on a dark ground"
    assert all(scores.ious.shape == (6, 20) for scores in found.values())


def test_corrections_are_measured_on_a_checkpoint(settings: Settings, drawn: Drawn, weights: Path) -> None:
    scores = correct_masks(settings, weights, read(settings, drawn, n_masks=2, seed=3), seed=3)
    assert scores.spoilt.shape == (2, 4) and np.isfinite(scores.corrected).all()


def test_a_file_is_read_again_at_every_pass(settings: Settings, drawn: Drawn, tmp_path: Path) -> None:
    shutil.copytree(drawn.folder, tmp_path / "copy")
    truths = truth_file(settings, drawn.annotations, tmp_path / "copy", "val", None, 0)
    assert len(list(truths)) == 2
    (tmp_path / "copy" / "cells-5.png").unlink()
    with pytest.raises(BadInput, match="cells-5.png"):
        list(truths)
