"""Weights from outside -> ModelVersion. A dataset's line of models begins with the bundled one."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from sqlalchemy import select
from sqlalchemy.orm import Session

from engine.errors import Unavailable
from engine.modeling.card import read_card
from engine.store.events import record_event
from engine.store.model_versions import ActiveModel, ModelVersion
from engine.store.session import Workspace

BUNDLED = Path(__file__).parents[1] / "bundled"


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


def adopt_weights(workspace: Workspace, dataset_id: int, name: str, weights: bytes, decoder: bytes) -> int:
    """Stores a safetensors checkpoint and its exported decoder as a version; active if there is none yet."""
    config, metadata = read_card(weights)
    weights_sha256, decoder_sha256 = workspace.blobs.put(weights), workspace.blobs.put(decoder)
    with workspace.write() as session:
        same = (ModelVersion.dataset_id == dataset_id) & (ModelVersion.weights_sha256 == weights_sha256)
        version = session.scalar(select(ModelVersion).where(same))
        if version is None:
            version = _add(
                session, dataset_id, name, config.to_dict(), metadata, weights_sha256, decoder_sha256
            )
        if session.get(ActiveModel, dataset_id) is None:
            session.add(ActiveModel(dataset_id=dataset_id, model_version_id=version.id))
        return version.id


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
