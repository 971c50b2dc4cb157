"""Rows that tests begin with: small, valid, and the same every time. `n` keeps them apart."""

import hashlib
from io import BytesIO
from typing import Any

from PIL import Image as Picture
from sqlalchemy.orm import Session

from engine.store.datasets import Dataset, add_dataset, take_export_ids
from engine.store.detector_versions import DetectorVersion
from engine.store.generations import Generation
from engine.store.images import Image
from engine.store.masks import Mask
from engine.store.model_versions import ActiveModel, ModelVersion
from engine.store.proposals import Proposal
from engine.store.session import Workspace
from engine.store.snapshots import Snapshot
from engine.store.users import User


def digest(*parts: object) -> str:
    """A SHA-256 that depends on the parts only."""
    return hashlib.sha256(repr(parts).encode()).hexdigest()


def png(width: int = 8, height: int = 6, n: int = 0) -> bytes:
    """A flat picture whose colour depends on `n`."""
    file = BytesIO()
    Picture.new("RGB", (width, height), (n % 256, n // 256 % 256, 90)).save(file, "PNG")
    return file.getvalue()


def add(session: Session, row: Any) -> Any:
    """Adds the row and gives it back with its id."""
    session.add(row)
    session.flush()
    return row


def a_user(session: Session, n: int = 1, role: str = "annotator") -> User:
    return add(session, User(name=f"person-{n}", role=role))


def a_dataset(session: Session, n: int = 1, open_stage: str | None = None) -> Dataset:
    dataset = add_dataset(session, f"dataset-{n}")
    dataset.open_stage = open_stage
    return dataset


def an_image(workspace: Workspace, session: Session, dataset_id: int, n: int = 1, **columns: Any) -> Image:
    """An 8 x 6 picture, its blob stored, in the train split unless told otherwise."""
    pixels_sha256 = workspace.blobs.put(png(n=n))
    values: dict[str, Any] = {
        "dataset_id": dataset_id,
        "export_id": take_export_ids(session, dataset_id, "image", 1)[0],
        "original_name": f"picture-{n}.png",
        "original_sha256": pixels_sha256,
        "pixels_sha256": pixels_sha256,
        "media_type": "image/png",
        "width": 8,
        "height": 6,
        "near_duplicate_group": f"group-{n}",
        "split": "train",
    }
    return add(session, Image(**values | columns))


def a_model_version(session: Session, dataset_id: int, n: int = 1, active: bool = False) -> ModelVersion:
    """A version whose weights do not exist: for tests that never run it."""
    version = ModelVersion(
        dataset_id=dataset_id,
        name=f"version-{n}",
        architecture="tiny",
        config={"name": "tiny", "img_size": 256},
        weights_sha256=digest("weights", dataset_id, n),
        decoder_sha256=digest("decoder", dataset_id, n),
    )
    add(session, version)
    if active:
        add(session, ActiveModel(dataset_id=dataset_id, model_version_id=version.id))
    return version


def a_mask(session: Session, image: Image, **columns: Any) -> Mask:
    """The whole picture as one imported mask."""
    values: dict[str, Any] = {
        "dataset_id": image.dataset_id,
        "image_id": image.id,
        "export_id": take_export_ids(session, image.dataset_id, "mask", 1)[0],
        "height": image.height,
        "width": image.width,
        "counts": "0`1",
        "area": image.height * image.width,
        "bbox_xywh": [0, 0, image.width, image.height],
        "source": "imported",
        "touched_by_person": True,
    }
    return add(session, Mask(**values | columns))


def a_snapshot(session: Session, dataset_id: int, kind: str = "training", n: int = 1) -> Snapshot:
    """An empty snapshot."""
    row = Snapshot(
        dataset_id=dataset_id,
        name=f"snapshot-{n}",
        kind=kind,
        digest_sha256=digest("snapshot", dataset_id, n),
        query={},
        n_images=0,
        n_masks=0,
    )
    return add(session, row)


def a_detector_version(
    session: Session, version: ModelVersion, snapshot: Snapshot, **columns: Any
) -> DetectorVersion:
    """A detector that reads the version's embeddings and prefills from a score of 0.5."""
    values: dict[str, Any] = {
        "dataset_id": version.dataset_id,
        "name": "d1",
        "model_version_id": version.id,
        "snapshot_id": snapshot.id,
        "weights_sha256": digest("detector", version.id),
        "threshold": 0.5,
        "false_prefill_rate": 0.1,
        "figures": {},
    }
    return add(session, DetectorVersion(**values | columns))


def a_proposal(
    session: Session,
    image: Image,
    version: ModelVersion,
    stage: str = "semi_automatic",
    n: int = 1,
    detector_version_id: int | None = None,
    **columns: Any,
) -> Proposal:
    """A 2 x 2 proposal with the generation it came of, both of one configuration `n`."""
    config_sha256 = digest("proposer", n)
    run = {"image_id": image.id, "model_version_id": version.id, "stage": stage}
    known = session.query(Generation).filter_by(config_sha256=config_sha256, **run).one_or_none()
    if known is None:
        add(
            session,
            Generation(
                dataset_id=image.dataset_id,
                detector_version_id=detector_version_id,
                config_sha256=config_sha256,
                n_proposals=1,
                n_masks=0,
                **run,
            ),
        )
    values: dict[str, Any] = {
        "config_sha256": config_sha256,
        "counts": "0240T1",
        "area": 4,
        "bbox_xywh": [0, 0, 2, 2],
        "predicted_iou": 0.9,
        "stability_score": 0.95,
        "crop_box_xywh": [0, 0, image.width, image.height],
        "point_coords": [],
        "score": 0.8,
        "prompts": [{"kind": "box", "x0": 0.0, "y0": 0.0, "x1": 2.0, "y1": 2.0}],
        "chosen": [0],
    }
    return add(session, Proposal(**run | values | columns))
