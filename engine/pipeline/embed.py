"""Image -> Embedding: one picture through one model version's encoder, once, before anyone opens it."""

from typing import Any

from sqlalchemy import select
from sqlalchemy.orm import Session

from engine.errors import NotFound
from engine.formats.pictures import decode_stored
from engine.modeling.cache import model_on
from engine.modeling.embedding_file import pack_embedding
from engine.modeling.predictor import encode_image
from engine.store.device_slots import device_slot
from engine.store.embeddings import Embedding
from engine.store.images import Image
from engine.store.model_versions import ModelVersion
from engine.store.runner import Work, Write


def embed(work: Work, *, image_id: int, model_version_id: int) -> Write:
    """Encodes the picture and returns the write of its embedding, in half precision by default.

    The blob's header names the pixels and the weights, so that a mismatch is refused and never drawn.
    """
    workspace = work.workspace
    with workspace.read() as session:
        image, version = session.get(Image, image_id), session.get(ModelVersion, model_version_id)
        if image is None or version is None:
            raise NotFound(f"no image {image_id} or no model version {model_version_id}")
    weights = workspace.blobs.local_path(version.weights_sha256)
    pixels = decode_stored(workspace.blobs.read(image.pixels_sha256))
    with device_slot(workspace.settings, "embed") as slot, model_on(weights, slot.device) as sam:
        embedding = encode_image(sam, pixels)
    dtype = workspace.settings.embed.dtype
    blob = pack_embedding(
        embedding, dtype, image_sha256=image.pixels_sha256, weights_sha256=version.weights_sha256
    )
    row = Embedding(
        image_id=image_id,
        model_version_id=model_version_id,
        blob_sha256=workspace.blobs.put(blob),
        dtype=dtype,
        shape=list(embedding.shape),
        n_bytes=len(blob),
    )

    def write(session: Session) -> dict[str, Any]:
        pair = (Embedding.image_id == image_id) & (Embedding.model_version_id == model_version_id)
        if session.scalar(select(Embedding.id).where(pair)) is None:
            session.add(row)
            session.flush()
            # The row in the table keeps collectors out until the commit; before it they may have been here.
            if not workspace.blobs.exists(row.blob_sha256):
                workspace.blobs.put(blob)
        return {"n_bytes": len(blob)}

    return write
