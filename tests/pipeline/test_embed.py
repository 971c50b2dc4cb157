"""Embeddings: once per image and version, and never one model's for another's."""

import numpy as np
import pytest
from sqlalchemy import select

from engine.errors import NotFound, Unavailable
from engine.formats.pictures import decode_stored
from engine.modeling.cache import load_model
from engine.modeling.embedding_file import pack_embedding, read_embedding
from engine.modeling.predictor import encode_image
from engine.pipeline.adopt import adopt_weights
from engine.pipeline.embed import embed
from engine.pipeline.loop import arrow
from engine.store.embeddings import Embedding
from engine.store.events import Event
from engine.store.images import Image
from engine.store.jobs import ask
from engine.store.model_versions import ActiveModel, ModelVersion
from engine.store.runner import Work, run_job
from tests.pipeline.conftest import Lab, rows


def test_an_embedding_is_the_encoders_answer_in_half_precision(lab: Lab) -> None:
    lab.embed(lab.image_ids[0])
    (row,) = rows(lab.workspace, select(Embedding))
    (version,) = rows(lab.workspace, select(ModelVersion))
    image = rows(lab.workspace, select(Image))[0]
    assert (row.dtype, row.shape) == ("float16", [16, 8, 8])
    assert row.n_bytes == lab.workspace.blobs.size(row.blob_sha256)
    path = lab.workspace.blobs.local_path(row.blob_sha256)
    stored = read_embedding(path, weights_sha256=version.weights_sha256)
    sam = load_model(lab.workspace.blobs.local_path(version.weights_sha256))
    fresh = encode_image(sam, decode_stored(lab.workspace.blobs.read(image.pixels_sha256)))
    assert stored.dtype == np.float32 and np.abs(stored - fresh).max() < 2e-3 * np.abs(fresh).max()


def test_embedding_twice_leaves_one_row(labs: Lab) -> None:
    arguments = {"image_id": labs.image_ids[0], "model_version_id": labs.version_id}
    with labs.workspace.write() as session:
        job_ids = [ask(session, "embed", arguments, f"embed:{key}").id for key in ("a", "b")]
    assert [run_job(labs.workspace, job_id, arrow, "worker") for job_id in job_ids] == ["done", "done"]
    assert len(rows(labs.workspace, select(Embedding.id))) == 1


def test_unknown_parents_are_named(lab: Lab) -> None:
    with pytest.raises(NotFound, match="no image 999"):
        embed(Work.inline(lab.workspace), image_id=999, model_version_id=lab.version_id)


def test_another_models_embedding_is_refused(lab: Lab) -> None:
    blob = pack_embedding(np.zeros((2, 3, 3), np.float32), "float16", image_sha256="i", weights_sha256="w")
    path = lab.workspace.blobs.local_path(lab.workspace.blobs.put(blob))
    assert read_embedding(path, weights_sha256="w").shape == (2, 3, 3)
    with pytest.raises(Unavailable, match="another model"):
        read_embedding(path, weights_sha256="v")
    with pytest.raises(Unavailable, match="cannot be read"):
        read_embedding(path.with_name("missing"), weights_sha256="w")


def test_weights_adopted_twice_are_one_version_and_the_first_is_active(
    labs: Lab, small_model: tuple[bytes, bytes]
) -> None:
    assert adopt_weights(labs.workspace, labs.dataset_id, "again", *small_model) == labs.version_id
    (version,) = rows(labs.workspace, select(ModelVersion))
    assert (version.name, version.architecture, version.config["img_size"]) == ("small", "small", 128)
    assert rows(labs.workspace, select(ActiveModel.model_version_id)) == [labs.version_id]
    assert len(rows(labs.workspace, select(Event.id).where(Event.kind == "model.adopted"))) == 1
