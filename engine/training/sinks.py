"""Where a run's figures and pictures go beside its own folder: TensorBoard, MLflow, where they are there."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Protocol

from engine.errors import Unavailable
from engine.training.pictures import Pixels, write_png


class Sink(Protocol):
    """Takes what a run says of its steps."""

    def log(self, step: int, figures: Mapping[str, float]) -> None:
        """Figures of one step, by name."""
        ...

    def show(self, step: int, picture: Pixels) -> None:
        """A picture (H, W, 3) of what was learned by that step."""
        ...

    def close(self) -> None:
        """Everything is written when it returns."""
        ...


class PictureFolder:
    """`pictures/step-000100.png` in a run's folder."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def log(self, step: int, figures: Mapping[str, float]) -> None:
        """Figures are printed, and not kept here."""

    def show(self, step: int, picture: Pixels) -> None:
        """See Sink."""
        write_png(self.folder / f"step-{step:06d}.png", picture)

    def close(self) -> None:
        """Nothing is open."""


class TensorBoard:
    """Event files in `folder`. Raises Unavailable without the package."""

    def __init__(self, folder: Path) -> None:
        try:
            from torch.utils.tensorboard import SummaryWriter
        except ImportError:
            raise Unavailable("TensorBoard is not installed: pip install 'maskloop[tensorboard]'") from None
        self._writer: Any = SummaryWriter(str(folder))

    def log(self, step: int, figures: Mapping[str, float]) -> None:
        """See Sink."""
        for name, figure in figures.items():
            self._writer.add_scalar(name, figure, step)

    def show(self, step: int, picture: Pixels) -> None:
        """See Sink."""
        self._writer.add_image("masks", picture, step, dataformats="HWC")

    def close(self) -> None:
        """See Sink."""
        self._writer.close()


class MLflow:
    """A run of its own at a tracking address (a folder, sqlite:///..., http://...). Raises Unavailable
    without the package."""

    def __init__(self, address: str, recipe: str, settings: Mapping[str, Any]) -> None:
        try:
            import mlflow
        except ImportError:
            raise Unavailable("MLflow is not installed: pip install 'maskloop[mlflow]'") from None
        self._mlflow: Any = mlflow
        mlflow.set_tracking_uri(address)
        mlflow.set_experiment("maskloop")
        mlflow.start_run(run_name=recipe)
        mlflow.log_params({name: str(value)[:250] for name, value in settings.items()})

    def log(self, step: int, figures: Mapping[str, float]) -> None:
        """See Sink."""
        self._mlflow.log_metrics(dict(figures), step=step)

    def show(self, step: int, picture: Pixels) -> None:
        """See Sink."""
        self._mlflow.log_image(picture, f"step-{step:06d}.png")

    def close(self) -> None:
        """See Sink."""
        self._mlflow.end_run()
