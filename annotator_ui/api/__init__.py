"""The views, one file per noun; each makes one call into engine.pipeline."""

from annotator_ui.api import assignments, datasets, health, images, jobs, metrics, pages, schedules, session

BLUEPRINTS = (
    pages.blueprint,
    health.blueprint,
    metrics.blueprint,
    session.blueprint,
    datasets.blueprint,
    assignments.blueprint,
    images.blueprint,
    jobs.blueprint,
    schedules.blueprint,
)
