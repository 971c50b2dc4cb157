"""`maskloop generate`: says its cost, makes what is missing within its budget, and nothing twice."""

from pathlib import Path

from tests.cli.conftest import Maskloop

# An untrained model is sure of nothing.
LOOSE = "pred_iou_thresh = 0.0", "stability_score_thresh = 0.0"


def loosen(home: Path) -> None:
    stage = home / "stages" / "fully_automatic.toml"
    text = stage.read_text().replace("pred_iou_thresh = 0.88", LOOSE[0])
    stage.write_text(text.replace("stability_score_thresh = 0.95", LOOSE[1]))


def test_masks_are_generated_once_and_the_cost_is_said_before(boxes: Path, maskloop: Maskloop) -> None:
    loosen(boxes)
    small = ("--points-per-side", 2, "--home", boxes)
    first = maskloop("generate", *small, "--budget-seconds", 1, "--json")
    assert first.code == 0, first.err
    assert "the first image is made" in first.err and "minutes on this machine" in first.err
    assert 1 <= first.json["images"] <= 6 and first.json["masks_per_image"] > 0
    second = maskloop("generate", *small, "--yes", "--json")
    assert second.code == 0, second.err
    assert second.json["images"] + first.json["images"] == 6 and second.json["images_left"] == 0
    if second.json["images"]:
        assert "the first image is made" not in second.err
    third = maskloop("generate", *small)
    assert third.code == 0 and "images" in third.out and third.err == ""
    assert (
        maskloop("generate", "--again", "--points-per-side", 1, "--home", boxes, "--json").json["images"] == 6
    )
    told = maskloop("report", "--home", boxes, "--json").json["by_stage"][2]
    assert (told["stage"], told["images"]) == ("fully_automatic", 6) and told["masks"] > 0


def test_thresholds_that_nothing_passes_are_named(boxes: Path, maskloop: Maskloop) -> None:
    ended = maskloop("generate", "--points-per-side", 2, "--yes", "--home", boxes, "--json")
    assert ended.code == 0 and ended.json["masks"] == 0
    assert "pred_iou_thresh 0.88" in ended.err and str(boxes / "stages") in ended.err
    assert "--again" in ended.err


def test_a_dataset_without_a_model_is_told_how_to_get_one(
    home: Path, maskloop: Maskloop, pictures: Path
) -> None:
    assert maskloop("images", "import", pictures, "--dataset", "bare", "--home", home).code == 0
    ended = maskloop("generate", "--home", home)
    assert ended.code == 1 and "stage open fully-automatic" in ended.err
