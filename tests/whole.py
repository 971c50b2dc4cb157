"""An installation with a row in every table, a file behind every digest and nothing wrong with any of it."""

import shutil
from datetime import timedelta
from pathlib import Path
from typing import Any

import numpy as np
from sqlalchemy import func, select
from sqlalchemy.orm import Session

from engine.config import Settings
from engine.geometry.rle import Rle, area, bbox_xywh, encode
from engine.modeling.embedding_file import pack_embedding
from engine.pipeline.snapshot import freeze_round
from engine.store.annotations import Annotation
from engine.store.assignments import Assignment
from engine.store.base import utc_now
from engine.store.categories import Category
from engine.store.datasets import take_export_ids
from engine.store.detector_versions import DetectorVersion
from engine.store.embeddings import Embedding
from engine.store.evaluations import Evaluation
from engine.store.events import record_event
from engine.store.exports import Export
from engine.store.images import Image, ImageProgress
from engine.store.jobs import Job
from engine.store.masks import Mask
from engine.store.model_versions import ActiveModel, Decision, ModelVersion
from engine.store.reviews import Review
from engine.store.runner import Work
from engine.store.schedules import Schedule, ScheduleRun
from engine.store.session import Workspace, open_workspace
from engine.store.snapshots import Snapshot
from engine.store.tables import metadata
from engine.store.users import SignInLink, SignInSession
from tests.conftest import a_home
from tests.factories import a_dataset, a_mask, a_proposal, a_user, add, an_image, digest

STAGE = "assisted_manual"


def a_whole_home(folder: Path, sqlite_template: Path) -> Settings:
    """A new home on SQLite, filled."""
    settings = a_home(folder)
    shutil.copy(sqlite_template, settings.home / "maskloop.db")
    workspace = open_workspace(settings)
    fill(workspace)
    workspace.close()
    return settings


def fill(workspace: Workspace) -> None:
    """Fills an empty workspace; asserts that no table was forgotten, so a new one must be added here."""
    with workspace.write() as session:
        ground = _ground(workspace, session)
        _acts(session, *ground)
        _proposed(workspace, session, *ground)
        _round(workspace, session, ground[0])
        _around(session, ground[0])
    with workspace.read() as session:
        tables = metadata.tables.values()
        empty = [one.name for one in tables if not session.scalar(select(func.count()).select_from(one))]
    assert not empty, f"tests/whole.py leaves {empty} empty"


Ground = tuple[Image, ModelVersion, Assignment]


def region(image: Image, top: int, left: int) -> dict[str, Any]:
    """A square of 3 x 3 pixels with its area and box, as a mask's columns."""
    pixels = np.zeros((image.height, image.width), bool)
    pixels[top : top + 3, left : left + 3] = True
    rle: Rle = encode(pixels)
    return {"counts": rle["counts"], "area": area(rle), "bbox_xywh": list(bbox_xywh(rle))}


def _ground(workspace: Workspace, session: Session) -> Ground:
    dataset, user = a_dataset(session, open_stage=STAGE), a_user(session)
    picture, held_out = (an_image(workspace, session, dataset.id, n) for n in (1, 2))
    assert held_out.id
    version = _version(workspace, session, dataset.id, 1)
    session.add(ActiveModel(dataset_id=dataset.id, model_version_id=version.id))
    blob = pack_embedding(
        np.ones((4, 2, 2), np.float32),
        "float16",
        image_sha256=picture.pixels_sha256,
        weights_sha256=version.weights_sha256,
    )
    embedding = Embedding(image_id=picture.id, model_version_id=version.id, dtype="float16", shape=[4, 2, 2])
    embedding.blob_sha256, embedding.n_bytes = workspace.blobs.put(blob), len(blob)
    session.add(embedding)
    lent: dict[str, Any] = {"stage": STAGE, "user_id": user.id, "model_version_id": version.id}
    lent["lease_until"] = utc_now() + timedelta(minutes=15)
    done = Assignment(image_id=picture.id, state="submitted", ended_at=utc_now(), **lent)
    session.add(Assignment(image_id=held_out.id, **lent))
    session.add(ImageProgress(image_id=picture.id, stage=STAGE, state="done"))
    return picture, version, add(session, done)


def _version(workspace: Workspace, session: Session, dataset_id: int, n: int, **columns: Any) -> ModelVersion:
    weights, decoder = (workspace.blobs.put(f"{noun} {n}".encode()) for noun in ("weights", "decoder"))
    values: dict[str, Any] = {"name": f"v{n}", "architecture": "tiny", "config": {"img_size": 256}}
    values |= {"weights_sha256": weights, "decoder_sha256": decoder}
    return add(session, ModelVersion(dataset_id=dataset_id, **values | columns))


def _acts(session: Session, image: Image, version: ModelVersion, lent: Assignment) -> None:
    """Accepted, corrected, deleted, brought back; and an imported mask with a category."""
    first = _accept(session, image, version, lent, 1, None)
    second = _accept(session, image, version, lent, 2, first)
    _act(session, image, lent, "delete", 3, target_mask_id=second.id)
    again = _act(session, image, lent, "restore", 4, target_mask_id=second.id, counts=second.counts)
    same = {"counts": second.counts, "area": second.area, "bbox_xywh": second.bbox_xywh}
    came = {"export_id": second.export_id, "supersedes_id": second.id, "annotation_id": again.id}
    a_mask(session, image, source="human", stage=STAGE, author_id=lent.user_id, **same | came)
    export_id = take_export_ids(session, image.dataset_id, "category", 1)[0]
    cell = add(session, Category(dataset_id=image.dataset_id, name="cell", export_id=export_id))
    a_mask(session, image, category_id=cell.id, extra={"note": "é \u2028"}, **region(image, 3, 5))


def _accept(
    session: Session, image: Image, version: ModelVersion, lent: Assignment, n: int, corrected: Mask | None
) -> Mask:
    square = region(image, n, n)
    prompts = [{"kind": "point", "x": 1.5 * n, "y": -0.0, "label": 1}]
    act = _act(session, image, lent, "accept", n, counts=square["counts"], prompts=prompts, chosen=[0])
    came: dict[str, Any] = {"annotation_id": act.id, "author_id": lent.user_id, "stage": STAGE}
    if corrected is not None:
        came |= {"supersedes_id": corrected.id, "export_id": corrected.export_id}
    scores = {"predicted_iou": 0.1 + 0.2, "model_version_id": version.id}
    return a_mask(session, image, source="human", **square | came | scores)


def _act(session: Session, image: Image, lent: Assignment, act: str, n: int, **columns: Any) -> Annotation:
    who = {"image_id": image.id, "author_id": lent.user_id, "assignment_id": lent.id}
    row = Annotation(client_id=f"client-{n:04}", body_sha256=digest(n), act=act, **who | columns)
    return add(session, row)


def _proposed(
    workspace: Workspace, session: Session, image: Image, version: ModelVersion, lent: Assignment
) -> None:
    """Two runs of the proposer: one proposal kept, one refused."""
    for n, act in enumerate(("keep", "reject"), start=1):
        square = region(image, n, n + 2)
        proposal = a_proposal(session, image, version, n=n, **square)
        row = Review(client_id=f"review-{n}", body_sha256=digest("review", n), act=act)
        row.proposal_id = proposal.id
        row.image_id, row.author_id, row.assignment_id = image.id, lent.user_id, lent.id
        session.add(row)
        if act == "keep":
            a_mask(session, image, proposal_id=proposal.id, source="model", **square)


def _round(workspace: Workspace, session: Session, image: Image) -> None:
    """Snapshots, a candidate, its evaluations and decision, and the jobs that made them."""
    outcome = freeze_round(Work.inline(workspace), dataset_id=image.dataset_id, number=1)(session)
    training, gate = outcome["training"], outcome["held_out"]
    parent = session.scalars(select(ModelVersion)).one()
    version = _version(workspace, session, image.dataset_id, 2, parent_id=parent.id, snapshot_id=training)
    figures = {}
    for word, one in (("candidate", version), ("active", parent)):
        row = Evaluation(model_version_id=one.id, snapshot_id=gate, protocol={}, figures={"noc": 1e-7})
        row.protocol_sha256 = digest("protocol")
        figures[word] = {"evaluation_id": add(session, row).id}
    decided = Decision(model_version_id=version.id, verdict="promote", reason="better")
    decided.figures = figures | {"active_id": parent.id, "large": 1e22}
    session.add(decided)
    detector = DetectorVersion(dataset_id=image.dataset_id, name="d1", model_version_id=parent.id)
    detector.snapshot_id, detector.weights_sha256 = training, workspace.blobs.put(b"detector 1")
    detector.false_prefill_rate, detector.figures = 0.1, {}
    session.add(detector)
    pair = {"model_version_id": version.id, "snapshot_id": gate}
    ended = [
        ("snapshot", {"dataset_id": image.dataset_id, "number": 1}, outcome),
        ("train", {"snapshot_id": training, "parent_id": parent.id}, {"model_version": version.id}),
        ("evaluate", pair, {}),
        ("promote", pair, {}),
        ("activate", {"model_version_id": version.id, "expected_id": parent.id}, {"active": "v2"}),
    ]
    for kind, arguments, effect in ended:
        job = Job(kind=kind, arguments=arguments, unique_key=f"{kind}:1", state="done", outcome=effect)
        job.dataset_id, job.ended_at = image.dataset_id, utc_now()
        session.add(job)
    session.add(Job(kind="embed", arguments={"image_id": image.id}, unique_key="embed:9"))
    session.get_one(ActiveModel, image.dataset_id).model_version_id = version.id
    record_event(
        session, "model.activated", dataset_id=image.dataset_id, subject_id=version.id, before=parent.id
    )
    n_masks = session.get_one(Snapshot, training).n_masks
    export = Export(snapshot_id=training, format="coco", options={}, manifest_sha256=digest("manifest"))
    export.n_masks = n_masks
    session.add(export)


def _around(session: Session, image: Image) -> None:
    user = a_user(session, 2, "admin")
    soon = utc_now() + timedelta(hours=1)
    session.add(SignInLink(token_sha256=digest("link"), user_id=user.id, expires_at=soon))
    session.add(
        SignInSession(id_sha256=digest("cookie"), user_id=user.id, csrf_token="token", expires_at=soon)
    )
    schedule = add(session, Schedule(dataset_id=image.dataset_id, nightly_at="02:00", created_by_id=user.id))
    run = ScheduleRun(schedule_id=schedule.id, due="2026-11-22T02:00Z", due_at=utc_now(), state="started")
    run.round_number = 1
    session.add(run)
