"""Every table in one import: foreign keys name tables by string, so a session needs all of them."""

from engine.store import (
    annotations,
    assignments,
    categories,
    datasets,
    detector_versions,
    embeddings,
    evaluations,
    events,
    exports,
    generations,
    images,
    jobs,
    masks,
    model_versions,
    proposals,
    reviews,
    schedules,
    snapshots,
    users,
)
from engine.store.base import Base

NOUNS = (
    annotations,
    assignments,
    categories,
    datasets,
    detector_versions,
    embeddings,
    evaluations,
    events,
    exports,
    generations,
    images,
    jobs,
    masks,
    model_versions,
    proposals,
    reviews,
    schedules,
    snapshots,
    users,
)
metadata = Base.metadata
