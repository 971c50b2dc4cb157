"""`models evaluate` as people and programs call it."""

import json
import sys
import xml.etree.ElementTree
from pathlib import Path

import pytest
from PIL import Image as Picture
from sqlalchemy import select

from engine.config import load_settings
from engine.store.evaluations import Evaluation
from engine.store.session import open_workspace
from tests.cli.conftest import Maskloop


@pytest.fixture
def checkpoint(small_model: tuple[bytes, bytes], tmp_path: Path) -> Path:
    path = tmp_path / "mine.safetensors"
    path.write_bytes(small_model[0])
    return path


@pytest.fixture
def of_file(checkpoint: Path, pictures: Path, tmp_path: Path) -> list[object]:
    """A checkpoint on held-out masks of a file, in a home where nothing is."""
    home = tmp_path / "nothing"
    truth = ["--truth", pictures / "truth.json", "--images", pictures, "--split", "val"]
    return ["models", "evaluate", "--checkpoint", checkpoint, *truth, "--home", home]


def test_a_checkpoint_is_measured_on_a_file_without_a_home(
    of_file: list[object], maskloop: Maskloop, tmp_path: Path
) -> None:
    told = maskloop(*of_file, "--json").json
    assert (told["name"], told["snapshot"], told["masks"], told["images"]) == (
        "mine.safetensors", "truth.json", 6, 2,
    )  # fmt: skip
    everything = told["figures"]["all"]
    assert list(everything["miou"]) == ["1", "2", "3", "5", "9"]
    assert everything["oracle_miou"]["1"]["mean"] >= everything["miou"]["1"]["mean"] == told["miou_1"]
    assert everything["noc"]["0.85"]["mean"] == told["clicks_per_mask"] <= everything["noc"]["0.90"]["mean"]
    assert everything["miou"]["1"]["low"] <= told["miou_1"] <= everything["miou"]["1"]["high"]
    assert told["figures"]["small"]["masks"] == 6 and told["figures"]["large"]["masks"] == 0
    assert told["protocol"]["resamples"] == 1000 and told["protocol"]["cap"] == 20
    assert not (tmp_path / "nothing").exists()


def test_equal_calls_tell_equal_figures(of_file: list[object], maskloop: Maskloop) -> None:
    sampled = [*of_file, "--masks", 4, "--json", "--seed"]
    first, again, other = (maskloop(*sampled, seed).json for seed in (1, 1, 2))
    assert first == again and first["masks"] == 4
    assert first["figures"] != other["figures"]


def test_versions_of_a_dataset_are_compared_and_kept_as_rows(
    boxes: Path, maskloop: Maskloop, pictures: Path, checkpoint: Path
) -> None:
    maskloop("masks", "import", pictures / "truth.json", "--home", boxes)
    ended = maskloop("models", "evaluate", "small", "--checkpoint", checkpoint, "--json", "--home", boxes)
    version, file = (json.loads(line) for line in ended.out.splitlines())
    assert version["model_version"] == "small" and "model_version" not in file
    assert file["gain_over"]["small"]["1"] == {"mean": 0.0, "low": 0.0, "high": 0.0}
    assert version["snapshot"] == file["snapshot"] and version["figures"] == file["figures"]
    workspace = open_workspace(load_settings(boxes))
    with workspace.read() as session:
        (row,) = session.scalars(select(Evaluation)).all()
        assert row.figures["noc"] == version["clicks_per_mask"]
        assert row.figures["miou"] == {"1": version["miou_1"], "3": version["miou_3"]}
        assert row.protocol["n_clicks"] == [1, 3]
    workspace.close()


def test_checkpoints_of_one_name_are_told_apart_by_their_folders(
    of_file: list[object], checkpoint: Path, maskloop: Maskloop, tmp_path: Path
) -> None:
    (tmp_path / "other").mkdir()
    other = tmp_path / "other" / checkpoint.name
    other.write_bytes(checkpoint.read_bytes())
    ended = maskloop(*of_file, "--masks", 2, "--checkpoint", other, "--json")
    assert [json.loads(line)["name"] for line in ended.out.splitlines()] == [str(checkpoint), str(other)]


def test_tables_tell_models_baselines_and_corrections(of_file: list[object], maskloop: Maskloop) -> None:
    ended = maskloop(*of_file, "--baselines", "--editing")
    assert ended.code == 0, ended.err
    for words in (
        "mine.safet",
        "flood fill",
        "local Otsu",
        "1, oracle",
        "NoC@0.90",
        "spill",
        "gain over anew",
    ):
        assert words in ended.out
    rows = [
        json.loads(line) for line in maskloop(*of_file, "--baselines", "--editing", "--json").out.splitlines()
    ]
    assert [row["name"].split(" (")[0] for row in rows] == [
        "mine.safetensors",
        "flood fill",
        "local Otsu",
        "GrabCut",
    ]
    assert rows[1]["miou_1"] > 0.9 and rows[1]["figures"]["all"]["oracle_miou"] is None
    assert set(rows[0]["editing"]) == {"masks", "dilation", "erosion", "bites", "spill", "all"}


def test_a_plot_is_a_picture_and_equal_figures_give_equal_bytes(
    of_file: list[object], maskloop: Maskloop, tmp_path: Path
) -> None:
    for name in ("one.svg", "two.svg", "three.png"):
        assert maskloop(*of_file, "--masks", 3, "--plot", tmp_path / name).code == 0
    drawing = (tmp_path / "one.svg").read_text()
    assert xml.etree.ElementTree.fromstring(drawing).tag.endswith("svg")
    assert "mine.safetensors" in drawing and "3 masks of" in drawing
    assert drawing == (tmp_path / "two.svg").read_text()
    with Picture.open(tmp_path / "three.png") as picture:
        assert picture.format == "PNG" and picture.width > 500
    assert not [path for path in tmp_path.iterdir() if path.name.startswith(".")]


def test_generated_scenes_need_no_file(checkpoint: Path, maskloop: Maskloop, tmp_path: Path) -> None:
    told = maskloop(
        "models", "evaluate", "--checkpoint", checkpoint, "--scenes", 2, "--masks", 5, "--editing",
        "--home", tmp_path / "nothing", "--json",
    ).json  # fmt: skip
    assert (told["snapshot"], told["masks"], told["editing"]["masks"]) == ("2 generated scenes", 5, 5)


@pytest.mark.parametrize(
    ("options", "complaint"),
    [
        (["--plot", "plot.pdf"], "--plot writes .svg or .png, not .pdf"),
        (["--plot", "nowhere/plot.svg"], "there is no folder nowhere"),
        (["--snapshot", "round-1"], "give one of --snapshot, --truth and --scenes"),
        (["--scenes", "2"], "give one of --snapshot, --truth and --scenes"),
        (["--split", "none"], "no mask of 64 px or more in split 'none'"),
    ],
)
def test_what_cannot_be_is_refused_before_anything_is_measured(
    of_file: list[object], maskloop: Maskloop, options: list[str], complaint: str
) -> None:
    ended = maskloop(*of_file, *options)
    assert ended.code == 1 and complaint in ended.err and ended.err.count("\n") == 1


def test_options_of_a_file_need_the_file(maskloop: Maskloop, boxes: Path, pictures: Path) -> None:
    for options, complaint in (
        (["--truth", pictures / "truth.json"], "go together"),
        (["--masks", 3], "draws from --truth or --scenes"),
        (["--split", "val"], "give --truth FILE"),
    ):
        ended = maskloop("models", "evaluate", "small", *options, "--home", boxes)
        assert ended.code == 1 and complaint in ended.err
    ended = maskloop("models", "evaluate", "--home", boxes)
    assert ended.code == 1 and "--checkpoint FILE" in ended.err


def test_without_matplotlib_one_sentence_says_what_to_install(
    of_file: list[object], maskloop: Maskloop, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    # Python's own way to say that a module cannot be imported.
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    ended = maskloop(*of_file, "--plot", tmp_path / "plot.svg")
    assert ended.code == 1
    assert ended.err == "maskloop: --plot draws with matplotlib: pip install 'maskloop[plot]'\n"
    assert maskloop(*of_file, "--masks", 2).code == 0
