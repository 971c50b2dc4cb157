"""An image as a model sees it, for arrows that go on from there: the stored embedding, or one made now."""

import numpy as np
from numpy.typing import NDArray
from sqlalchemy import select

from engine.formats.pictures import decode_stored
from engine.modeling.embedding_file import read_embedding
from engine.modeling.predictor import encode_image
from engine.modeling.sam import Sam
from engine.store.embeddings import Embedding
from engine.store.images import Image
from engine.store.model_versions import ModelVersion
from engine.store.session import Workspace


def embedding_of(workspace: Workspace, sam: Sam, image: Image, version: ModelVersion) -> NDArray[np.float32]:
    """(C, g, g) float32 of one image under the version that `sam` is; one made now is not stored."""
    pair = (Embedding.image_id == image.id) & (Embedding.model_version_id == version.id)
    with workspace.read() as session:
        blob_sha256 = session.scalar(select(Embedding.blob_sha256).where(pair))
    if blob_sha256 is not None:
        return read_embedding(workspace.blobs.local_path(blob_sha256), weights_sha256=version.weights_sha256)
    embedding = encode_image(sam, decode_stored(workspace.blobs.read(image.pixels_sha256)))
    # Rounded as a stored one is, so that it makes no difference whether somebody embedded the image before.
    return embedding.astype(np.dtype(workspace.settings.embed.dtype)).astype(np.float32)
