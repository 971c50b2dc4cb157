"""`models evaluate`: versions and files on a dataset's masks or a COCO file's, in the paper's protocol."""

import json
from pathlib import Path

import pytest
from sqlalchemy import func, select

from engine.cli.opening import opened
from engine.store.evaluations import Evaluation
from tests.cli.conftest import Maskloop


def test_a_version_and_a_file_are_measured_on_one_files_masks(
    boxes: Path, maskloop: Maskloop, pictures: Path, small_model: tuple[bytes, bytes], tmp_path: Path
) -> None:
    (tmp_path / "same.safetensors").write_bytes(small_model[0])
    asked = ("--truth", pictures / "truth.json", "--images", pictures, "--split", "val", "--home", boxes)
    plot = ("--plot", tmp_path / "clicks.svg")
    ended = maskloop(
        "models",
        "evaluate",
        "small",
        "--checkpoint",
        tmp_path / "same.safetensors",
        "--baselines",
        "--editing",
        *asked,
        *plot,
        "--json",
    )
    assert ended.code == 0, ended.err
    rows = [json.loads(line) for line in ended.out.splitlines()]
    named = {row["name"]: row["figures"] for row in rows}
    assert set(list(named)[:2]) == {"small", "same.safetensors"} and len(named) == 4
    first, second = named["small"]["all"], named["same.safetensors"]["all"]
    assert first["masks"] == 6 and first == second
    assert list(first["miou"]) == ["1", "2", "3", "5", "9"] and list(first["noc"]) == ["0.85", "0.90"]
    assert first["oracle_miou"]["1"]["mean"] >= first["miou"]["1"]["mean"]
    # Bright boxes on a dark ground: a flood fill finds them, an untrained model does not.
    fill = next(figures for name, figures in named.items() if name.startswith("flood fill"))
    assert fill["all"]["miou"]["1"]["mean"] > 0.9 > first["miou"]["1"]["mean"]
    assert (tmp_path / "clicks.svg").read_text().startswith("<?xml")
    assert maskloop("models", "evaluate", "small", *asked).code == 0


def test_what_promotion_reads_of_it_is_kept_as_a_row(boxes: Path, maskloop: Maskloop, pictures: Path) -> None:
    here = ("--dataset", "boxes", "--home", boxes)
    assert maskloop("masks", "import", pictures / "truth.json", *here).code == 0
    ended = maskloop("models", "evaluate", "small", "--home", boxes, "--json")
    assert ended.code == 0, ended.err
    with opened(boxes) as workspace, workspace.read() as session:
        assert session.scalar(select(func.count()).select_from(Evaluation)) == 1
        figures = session.scalars(select(Evaluation.figures)).one()
    assert figures["n_masks"] == 6 and set(figures["miou"]) == {"1", "3"}


@pytest.mark.parametrize(
    "options, sentence",
    [
        ((), "--checkpoint FILE"),
        (("small", "--truth", "FILE"), "go together"),
        (("small", "--split", "val"), "give --truth"),
        (("small",), "annotate some"),
    ],
)
def test_a_question_that_cannot_be_answered_says_what_to_do(
    boxes: Path, maskloop: Maskloop, options: tuple[str, ...], sentence: str
) -> None:
    ended = maskloop("models", "evaluate", *options, "--home", boxes)
    assert ended.code == 1 and sentence in ended.err
