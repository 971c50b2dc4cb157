"""The dataset's pictures by id, for whoever works on them outside of the database. Reads only."""

import numpy as np
from numpy.typing import NDArray
from sqlalchemy import select
from sqlalchemy.orm import Session

from engine.errors import NotFound
from engine.formats.pictures import decode_stored
from engine.store.images import Image
from engine.store.session import Workspace


def image_names(session: Session, dataset_id: int, *, split: str | None = None) -> dict[int, str]:
    """Image id -> the name it was imported under, in the order of ids; of one split if asked."""
    columns = select(Image.id, Image.original_name).where(Image.dataset_id == dataset_id).order_by(Image.id)
    rows = session.execute(columns if split is None else columns.where(Image.split == split))
    return {image_id: name for image_id, name in rows}


def pixels_of(workspace: Workspace, image_id: int) -> NDArray[np.uint8]:
    """The stored picture, (H, W, 3) RGB; NotFound for an unknown id."""
    with workspace.read() as session:
        image = session.get(Image, image_id)
    if image is None:
        raise NotFound(f"there is no image {image_id}")
    return decode_stored(workspace.blobs.read(image.pixels_sha256))
