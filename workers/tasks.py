"""One task per arrow, `maskloop.embed` for engine/pipeline/embed.py: each makes the one call of job_task."""

from celery import Celery

from engine.pipeline import loop
from workers.job_task import JobTask


def task_name(kind: str) -> str:
    """The task that runs jobs of that kind."""
    return f"maskloop.{kind}"


def add_tasks(app: Celery, run: JobTask) -> None:
    """Registers a task for every kind of job; its only argument is the job's id."""
    for kind in loop.ARROWS:
        app.task(name=task_name(kind), shared=False)(_body(run))


def _body(run: JobTask) -> object:
    def body(job_id: int) -> None:
        run(job_id)

    return body
