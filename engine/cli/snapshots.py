"""Masks frozen and written out: `snapshot create|list|show|diff`, `export`, `verify`."""

from pathlib import Path
from typing import Annotated, Any

import typer

from engine.cli.opening import dataset_meant, opened
from engine.cli.options import AsJson, DatasetName, Home
from engine.cli.showing import print_facts, print_json, print_rows
from engine.errors import BadInput

snapshot = typer.Typer(no_args_is_help=True, help="Freeze the current masks into a named list.")

SnapshotName = Annotated[str, typer.Argument(metavar="NAME")]
COLUMNS = {"name": "snapshot", "kind": "kind", "n_images": "images", "n_masks": "masks"}
COLUMNS |= {"created_at": "taken at", "digest_sha256": "digest"}


def add_to(app: typer.Typer) -> None:
    """Hangs the verbs into the command."""
    app.add_typer(snapshot, name="snapshot")
    app.command("export")(export)
    app.command("verify")(verify)


@snapshot.command("create")
def create_snapshot(
    name: Annotated[str | None, typer.Option(metavar="NAME", help="Else release-1, release-2, ...")] = None,
    split: Annotated[str | None, typer.Option(metavar="SPLIT", help="Only train, or only val.")] = None,
    dataset: DatasetName = None,
    home: Home = None,
    as_json: AsJson = False,
) -> None:
    """Freeze the current masks; without a name an unchanged set gives the last snapshot again."""
    from engine.pipeline.snapshot import take

    if split not in (None, "train", "val"):
        raise BadInput(f"no split {split!r}: choose train or val")
    with opened(home) as workspace, workspace.write() as session:
        query = {} if split is None else {"split": split}
        taken = take(session, dataset_meant(session, dataset).id, "release", name=name, query=query)
    view = _view(taken)
    print_json(view) if as_json else print(f"{taken.name}: {taken.n_masks} masks on {taken.n_images} images")


@snapshot.command("list")
def list_snapshots(dataset: DatasetName = None, home: Home = None, as_json: AsJson = False) -> None:
    """Every snapshot of the dataset, oldest first."""
    from engine.pipeline.snapshot import snapshots_of

    with opened(home) as workspace, workspace.read() as session:
        views = [_view(row) for row in snapshots_of(session, dataset_meant(session, dataset).id)]
    if as_json:
        print_json(views)
    elif views:
        print_rows(views, COLUMNS)
    else:
        print("no snapshots")


@snapshot.command("show")
def show_snapshot(
    name: SnapshotName, dataset: DatasetName = None, home: Home = None, as_json: AsJson = False
) -> None:
    """One snapshot: what was asked for, how much it holds, its digest."""
    from engine.pipeline.snapshot import snapshot_named

    with opened(home) as workspace, workspace.read() as session:
        view = _view(snapshot_named(session, dataset_meant(session, dataset).id, name))
    print_json(view) if as_json else print_facts(view)


@snapshot.command("diff")
def diff_snapshots(
    older: Annotated[str, typer.Argument(metavar="OLDER")],
    newer: Annotated[str, typer.Argument(metavar="NEWER")],
    dataset: DatasetName = None,
    home: Home = None,
    as_json: AsJson = False,
) -> None:
    """Ids of masks that were added, dropped or changed between two snapshots."""
    from engine.pipeline.snapshot import difference, snapshot_named

    with opened(home) as workspace, workspace.read() as session:
        dataset_id = dataset_meant(session, dataset).id
        before, after = (snapshot_named(session, dataset_id, name) for name in (older, newer))
        found = difference(session, before, after)
    if as_json:
        print_json(found)
        return
    for change, ids in found.items():
        shown = " ".join(map(str, ids[:20])) + (" ..." if len(ids) > 20 else "")
        print(f"{change}: {len(ids)}" + (f" ({shown})" if ids else ""))


def export(
    out: Annotated[Path, typer.Option("--out", metavar="DIR", help="A new folder.")],
    format: Annotated[str, typer.Option("--format", metavar="FORMAT", help="coco")] = "coco",
    images: Annotated[
        str, typer.Option(metavar="include|leave", help="Copy the pictures, or leave them.")
    ] = "include",
    named: Annotated[
        str | None, typer.Option("--snapshot", metavar="NAME", help="Else the current masks, frozen now.")
    ] = None,
    dataset: DatasetName = None,
    home: Home = None,
    as_json: AsJson = False,
) -> None:
    """Write a dataset to disk, with a manifest of digests that `verify` checks."""
    from engine.pipeline import export as exporting

    if images not in ("include", "leave"):
        raise BadInput(f"--images takes include or leave, not {images!r}")
    with opened(home) as workspace:
        dataset_name, snapshot_id = _frozen(workspace, dataset, named)
        include = images == "include"
        done = exporting.export(
            workspace, dataset_name, snapshot_id, out, format=format, include_images=include
        )
    if as_json:
        print_json(vars(done))
    else:
        print(f"{done.n_masks} masks on {done.n_images} images ({done.snapshot}) are in {done.folder}")


def _frozen(workspace: Any, dataset: str | None, named: str | None) -> tuple[str, int]:
    from engine.pipeline.snapshot import snapshot_named, take

    with workspace.write() as session:
        meant = dataset_meant(session, dataset)
        taken = snapshot_named(session, meant.id, named) if named else take(session, meant.id, "release")
        return meant.name, taken.id


def verify(
    path: Annotated[Path, typer.Argument(metavar="PATH", help="An export's folder or a COCO file.")],
    as_json: AsJson = False,
) -> None:
    """Decode every mask twice and check digests, areas, boxes and references."""
    from engine.formats.verify import verify as checked

    found = checked(path)
    if as_json:
        print_json(vars(found) | {"ok": found.ok})
    else:
        for problem in found.problems:
            print(problem)
    if not found.ok:
        raise BadInput(f"{path}: {found.n_problems} problems")
    if not as_json:
        print(f"{path}: {found.n_annotations} masks on {found.n_images} images, nothing wrong")


def _view(row: Any) -> dict[str, Any]:
    names = ("name", "kind", "n_images", "n_masks", "query", "created_at", "digest_sha256")
    return {name: getattr(row, name) for name in names}
