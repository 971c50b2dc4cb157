"""The images of a stage in the order they are handed out: one query for who lends and who prepares them."""

from dataclasses import dataclass
from typing import Any

from sqlalchemy import ColumnElement, Select, exists, func, select
from sqlalchemy.orm import Session

from engine.store.assignments import Assignment
from engine.store.base import database_now
from engine.store.images import Image, ImageProgress
from engine.store.masks import current_masks

# 0.1 of 30 images is three, whatever binary fractions make of it.
_ROUNDING = 1e-9


@dataclass(frozen=True)
class ImageQueue:
    """One dataset's images in one stage. `order`: imported, random, need or prominence; `image_share` of all
    images at most; `earlier` names the stages whose finished images are left out."""

    dataset_id: int
    stage: str
    order: str
    image_share: float
    earlier: tuple[str, ...] = ()

    def unfinished(self) -> ColumnElement[bool]:
        """Images neither done nor set aside in this stage, nor done in an earlier one."""
        here = (ImageProgress.stage == self.stage) | (
            ImageProgress.stage.in_(self.earlier) & (ImageProgress.state == "done")
        )
        finished = exists().where(ImageProgress.image_id == Image.id, here)
        return (Image.dataset_id == self.dataset_id) & ~finished

    def held(self, session: Session) -> ColumnElement[bool]:
        """Images under a lease that runs, in this stage."""
        alive = (Assignment.state == "open") & (Assignment.lease_until > database_now(session))
        return exists().where(Assignment.image_id == Image.id, Assignment.stage == self.stage, alive)

    def n_held(self, session: Session) -> int:
        """How many images are under a lease that runs, in this stage."""
        here = Image.dataset_id == self.dataset_id
        return session.scalar(select(func.count()).select_from(Image).where(here, self.held(session))) or 0

    def ids(self, *conditions: ColumnElement[bool]) -> Select[int]:
        """Ids of the images that fulfil all conditions, in order."""
        return select(Image.id).where(*conditions).order_by(*self._ordering(), Image.id)

    def left_of_share(self, session: Session) -> int | None:
        """How many more images may be finished, those under a lease among them; None where all may be."""
        if self.image_share >= 1:
            return None
        here = Image.dataset_id == self.dataset_id
        n_images = session.scalar(select(func.count()).select_from(Image).where(here)) or 0
        done = exists().where(
            ImageProgress.image_id == Image.id,
            ImageProgress.stage == self.stage,
            ImageProgress.state == "done",
        )
        n_done = session.scalar(select(func.count()).select_from(Image).where(here, done)) or 0
        return max(self.share_of(n_images) - n_done, 0)

    def share_of(self, n_images: int) -> int:
        """The stage's share of so many images: rounded down, at least one."""
        return max(1, int(self.image_share * n_images + _ROUNDING)) if n_images else 0

    def _ordering(self) -> list[Any]:
        if self.order == "random":
            # Digests are as good as dice, and the same on every machine.
            return [Image.pixels_sha256]
        if self.order == "prominence":
            return [Image.contrast.is_(None), Image.contrast.desc()]
        if self.order == "need":
            n_masks = select(func.count()).select_from(current_masks)
            return [n_masks.where(current_masks.c.image_id == Image.id).scalar_subquery()]
        return []
