"""A run's figures and pictures in its folder, TensorBoard and MLflow, read back by their own libraries."""

import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from engine.errors import Unavailable
from engine.training.pictures import look, write_png
from engine.training.sinks import MLflow, PictureFolder, TensorBoard
from engine.training.trainer import TrainConfig, begin, train
from tests.training.conftest import SMALL, Disks


def test_a_png_is_what_was_written(tmp_path: Path) -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (5, 7, 3), dtype=np.uint8)
    write_png(tmp_path / "deep" / "a.png", pixels)
    with Image.open(tmp_path / "deep" / "a.png") as opened:
        assert opened.mode == "RGB" and np.array_equal(np.asarray(opened), pixels)
    assert [path.name for path in (tmp_path / "deep").iterdir()] == ["a.png"]


def test_pictures_come_at_their_steps_and_change_no_weight(
    quick: TrainConfig, disks: Disks, tmp_path: Path
) -> None:
    seen: list[int] = []
    folder = PictureFolder(tmp_path / "pictures")
    written = [
        train(
            replace(quick, picture_every=every),
            disks,
            None,
            tmp_path / str(every),
            architecture=SMALL.to_dict(),
            on_picture=lambda step, picture: (seen.append(step), folder.show(step, picture)),
        )
        for every in (0, 2)
    ]
    assert seen == [2, 4, 6]
    assert sorted(path.name for path in folder.folder.iterdir()) == [f"step-00000{n}.png" for n in seen]
    plain, pictured = (path.read_bytes() for path in written if path is not None)
    assert plain[-1000:] == pictured[-1000:]


def test_truth_stands_left_and_answers_right(quick: TrainConfig, disks: Disks, tmp_path: Path) -> None:
    sam = begin(quick, None, tmp_path, SMALL.to_dict()).sam
    first, again = (look(sam, disks, quick.views, quick.prompts, seed=3) for _ in range(2))
    assert np.array_equal(first, again) and first.shape == (3 * 64, 2 * 64, 3)
    # An untrained model answers otherwise than the truth.
    assert not np.array_equal(first[:, :64], first[:, 64:])


def test_tensorboard_reads_figures_and_pictures(tmp_path: Path) -> None:
    accumulator = pytest.importorskip("tensorboard.backend.event_processing.event_accumulator")
    sink = TensorBoard(tmp_path)
    sink.log(5, {"quick/loss": 0.5})
    sink.show(5, np.zeros((4, 6, 3), np.uint8))
    sink.close()
    events = accumulator.EventAccumulator(str(tmp_path)).Reload()
    assert [(event.step, event.value) for event in events.Scalars("quick/loss")] == [(5, 0.5)]
    (image,) = events.Images("masks")
    assert (image.height, image.width) == (4, 6)


def test_mlflow_reads_figures_settings_and_pictures(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    mlflow = pytest.importorskip("mlflow")
    monkeypatch.chdir(tmp_path)
    address = f"sqlite:///{tmp_path}/runs.db"
    sink = MLflow(address, "quick", {"lr": 0.1})
    sink.log(5, {"quick/loss": 0.5})
    sink.show(5, np.zeros((4, 6, 3), np.uint8))
    sink.close()
    client = mlflow.MlflowClient(address)
    (run,) = client.search_runs([client.get_experiment_by_name("maskloop").experiment_id])
    assert run.info.status == "FINISHED" and run.data.params["lr"] == "0.1"
    assert [(m.step, m.value) for m in client.get_metric_history(run.info.run_id, "quick/loss")] == [(5, 0.5)]
    assert [file.path for file in client.list_artifacts(run.info.run_id)] == ["step-000005.png"]


@pytest.mark.parametrize("module, extra", [("tensorboard", "tensorboard"), ("mlflow", "mlflow")])
def test_a_missing_package_is_said_with_its_extra(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, module: str, extra: str
) -> None:
    loaded = [name for name in sys.modules if name.startswith((module, "torch.utils.tensorboard"))]
    for name in loaded:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, module, None)
    with pytest.raises(Unavailable, match=rf"maskloop\[{extra}\]"):
        TensorBoard(tmp_path) if module == "tensorboard" else MLflow(str(tmp_path), "quick", {})
