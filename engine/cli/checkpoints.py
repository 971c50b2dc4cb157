"""Checkpoints from outside: `models import FILE`, `models fetch NAME`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from engine.cli.opening import dataset_meant, opened
from engine.cli.options import AsJson, DatasetName, Home
from engine.cli.showing import print_json, progress_of, say

if TYPE_CHECKING:
    from engine.pipeline.adopt import Adopted
    from engine.store.session import Workspace

VersionName = Annotated[
    str | None, typer.Option("--name", metavar="NAME", help="Of the version; else the file's own name.")
]


def add_to(models: typer.Typer) -> None:
    """Hangs the verbs into the group `models`."""
    models.command("import")(import_checkpoint)
    models.command("fetch")(fetch_checkpoint)


def import_checkpoint(
    file: Annotated[Path, typer.Argument(metavar="FILE", help="A .pth, .pt or .safetensors of a SAM.")],
    name: VersionName = None,
    dataset: DatasetName = None,
    home: Home = None,
    as_json: AsJson = False,
) -> None:
    """Take a checkpoint as a model version: ViT-B, L, H, MobileSAM, or a file of Maskloop's."""
    with opened(home) as workspace:
        _adopt(workspace, file, name, dataset, as_json)


def fetch_checkpoint(
    checkpoint: Annotated[str, typer.Argument(metavar="NAME", help="vit_b, vit_l, vit_h or mobile.")],
    mirror: Annotated[
        str | None, typer.Option("--from", metavar="URL", help="Another address of the same file.")
    ] = None,
    name: VersionName = None,
    dataset: DatasetName = None,
    home: Home = None,
    as_json: AsJson = False,
) -> None:
    """Download a published checkpoint, then take it as `models import` does."""
    from engine.modeling.official import official_named
    from engine.pipeline.fetch import fetch

    official = official_named(checkpoint)
    with opened(home) as workspace:
        with workspace.read() as session:
            # Before gigabytes travel for nothing.
            dataset_meant(session, dataset)
        folder = workspace.settings.home / "checkpoints"
        with progress_of(f"fetching {official.file_name}, MB") as tell:
            path = fetch(official, folder, mirror, tell)
        say(f"{path} stays there for other datasets: delete it when none is to come")
        _adopt(workspace, path, name, dataset, as_json)


def _adopt(workspace: Workspace, file: Path, name: str | None, dataset: str | None, as_json: bool) -> None:
    from engine.pipeline.adopt import adopt_checkpoint

    with workspace.read() as session:
        meant = dataset_meant(session, dataset)
    adopted = adopt_checkpoint(workspace, meant.id, file, name, say)
    if as_json:
        print_json(
            {
                "model_version": adopted.name,
                "architecture": adopted.architecture,
                "active": adopted.is_active,
                "known": adopted.was_known,
                "source_sha256": adopted.source_sha256,
                "source_check": adopted.source_check,
            }
        )
    else:
        print(_sentence(adopted, meant.name))


def _sentence(adopted: Adopted, dataset: str) -> str:
    already = ", as before" if adopted.was_known else ""
    what = f"{adopted.name} ({adopted.architecture})"
    if adopted.is_active:
        return f"{what} serves {dataset}{already}"
    return (
        f"{what} is a version of {dataset}{already}, and serves nobody yet: `maskloop models evaluate "
        f"{adopted.name}` measures it, `maskloop models promote {adopted.name} --anyway` lets it serve"
    )
