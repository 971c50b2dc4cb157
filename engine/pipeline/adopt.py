"""Weights from outside -> ModelVersion. A dataset's line of models begins with the bundled one."""

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from sqlalchemy import select
from sqlalchemy.orm import Session

from engine.errors import BadInput, Conflict, Unavailable
from engine.modeling.card import read_card
from engine.modeling.official import Digests, check_name, digests_of
from engine.store.datasets import Dataset
from engine.store.events import record_event
from engine.store.model_versions import ActiveModel, ModelVersion
from engine.store.session import Workspace

BUNDLED = Path(__file__).parents[1] / "bundled"
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")


@dataclass(frozen=True)
class Adopted:
    """A version that a checkpoint file became, or had become before (`was_known`)."""

    name: str
    architecture: str
    is_active: bool
    was_known: bool
    source_sha256: str
    source_check: str


def adopt_bundled(workspace: Workspace, dataset_id: int) -> int:
    """The dataset's model version made of the bundled weights; asked twice, the first one.

    Raises Unavailable when the package came without weights.
    """
    weights, decoder = BUNDLED / "tiny.safetensors", BUNDLED / "tiny.decoder.onnx"
    if not weights.is_file() or not decoder.is_file():
        raise Unavailable(
            "this package came without the bundled model: install a released wheel or a full clone"
        )
    return adopt_weights(workspace, dataset_id, "bundled-tiny", weights.read_bytes(), decoder.read_bytes())


def adopt_checkpoint(
    workspace: Workspace,
    dataset_id: int,
    path: Path,
    name: str | None = None,
    tell: Callable[[str], None] = lambda line: None,
) -> Adopted:
    """A version made of a checkpoint file, official or one's own, named after the file if not by `name`.

    It is active where the dataset has no model yet, else a candidate that serves nobody before it is
    promoted. A file whose digest is known in the dataset is answered with its version and not read again.
    Nothing is stored unless all of it holds: BadInput for a file that is no whole SAM, Conflict for a name
    that is taken, Unavailable for a missing file.
    """
    if not path.is_file():
        raise Unavailable(f"no checkpoint at {path}")
    digests = digests_of(path)
    source_check = check_name(path.name, digests)
    with workspace.read() as session:
        known = _made_of(session, dataset_id, digests)
        wanted = version_name(name or _as_name(path.stem))
        if known is None:
            _refuse_taken(session, dataset_id, wanted)
    if known is None:
        # torch and the exporter: half a minute of imports that no other use of this file needs.
        from engine.modeling.conversion import convert, read_checkpoint

        checkpoint = read_checkpoint(path)
        tell(f"{path.name}, {checkpoint.config.name}, compared {source_check}; now its decoder is exported")
        converted = convert(checkpoint, digests.sha256)
        source = {"source_file": path.name, "source_sha256": digests.sha256, "source_check": source_check}
        version_id = adopt_weights(
            workspace, dataset_id, wanted, converted.weights, converted.decoder, source
        )
    else:
        version_id = known.id
    with workspace.read() as session:
        version = session.get_one(ModelVersion, version_id)
        active = session.get_one(ActiveModel, dataset_id)
        is_active = active.model_version_id == version_id
    return Adopted(
        version.name, version.architecture, is_active, known is not None, digests.sha256, source_check
    )


def adopt_weights(
    workspace: Workspace,
    dataset_id: int,
    name: str,
    weights: bytes,
    decoder: bytes,
    source: Mapping[str, str] | None = None,
) -> int:
    """Stores a safetensors checkpoint and its exported decoder as a version; active if there is none yet.

    `source` says where the weights came from and is kept with what their card says.
    """
    config, metadata = read_card(weights)
    weights_sha256, decoder_sha256 = workspace.blobs.put(weights), workspace.blobs.put(decoder)
    with workspace.write() as session:
        # Of two who import at once the second waits here, then sees the first one's version.
        session.execute(select(Dataset.id).where(Dataset.id == dataset_id).with_for_update(key_share=True))
        same = (ModelVersion.dataset_id == dataset_id) & (ModelVersion.weights_sha256 == weights_sha256)
        version = session.scalar(select(ModelVersion).where(same))
        if version is None:
            _refuse_taken(session, dataset_id, name)
            training = {**metadata, **(source or {})}
            version = _add(
                session, dataset_id, name, config.to_dict(), training, weights_sha256, decoder_sha256
            )
        if session.get(ActiveModel, dataset_id) is None:
            session.add(ActiveModel(dataset_id=dataset_id, model_version_id=version.id))
        return version.id


def version_name(name: str) -> str:
    """The name itself if a version may have it; BadInput says what a name is."""
    if not _NAME.fullmatch(name):
        raise BadInput(f"{name[:80]!r} cannot name a model: take up to 64 letters, digits, dots and hyphens")
    if re.fullmatch(r"v\d+", name):
        raise BadInput(f"training rounds name their versions like {name}: choose another by --name")
    return name


def _as_name(stem: str) -> str:
    return re.sub(r"[^A-Za-z0-9._-]+", "-", stem).strip(".-_")[:64] or "imported"


def _made_of(session: Session, dataset_id: int, digests: Digests) -> ModelVersion | None:
    """The version that this very file became in the dataset, if it was imported before."""
    for version in session.scalars(select(ModelVersion).where(ModelVersion.dataset_id == dataset_id)):
        if digests.sha256 in ((version.training or {}).get("source_sha256"), version.weights_sha256):
            return version
    return None


def _refuse_taken(session: Session, dataset_id: int, name: str) -> None:
    taken = (ModelVersion.dataset_id == dataset_id) & (ModelVersion.name == name)
    if session.scalar(select(ModelVersion.id).where(taken)) is not None:
        raise Conflict(f"the dataset has another model named {name!r}: choose a name by --name")


def _add(
    session: Session,
    dataset_id: int,
    name: str,
    config: Mapping[str, Any],
    training: Mapping[str, Any],
    weights_sha256: str,
    decoder_sha256: str,
) -> ModelVersion:
    version = ModelVersion(
        dataset_id=dataset_id,
        name=name,
        architecture=str(config["name"]),
        config=dict(config),
        weights_sha256=weights_sha256,
        decoder_sha256=decoder_sha256,
        training=dict(training) or None,
    )
    session.add(version)
    session.flush()
    record_event(session, "model.adopted", dataset_id=dataset_id, subject_id=version.id, name=name)
    return version
