"""The Celery app of one home: JSON only, no results, no events, no remote control, acks on arrival."""

from typing import Any

from celery import Celery

from engine.config import Settings
from workers.job_task import JobTask
from workers.tasks import add_tasks

# How the app sleeps between two looks at the in-memory queue; a click's next image should not wait longer.
POLLING_S = 0.1


def make_app(settings: Settings, run: JobTask | None = None) -> Celery:
    """The app that sends and runs jobs. It opens nothing: a process opens its workspace at its first job.

    `run` is the body of its tasks, for one who wants to stop it or to read its name.
    """
    app = Celery("maskloop", broker=_broker(settings), set_as_current=False)
    app.conf.update(
        accept_content=["json"],
        task_serializer="json",
        result_accept_content=["json"],
        result_backend=None,
        task_ignore_result=True,
        # The ledger survives a lost message, so a message is done with as soon as it is there.
        task_acks_late=False,
        worker_prefetch_multiplier=1,
        task_send_sent_event=False,
        worker_send_task_events=False,
        worker_enable_remote_control=False,
        worker_hijack_root_logger=False,
        worker_redirect_stdouts=False,
        # No result is waited for, so a child that died is known at once; see `JobTask.bury`.
        worker_lost_wait=0.5,
        broker_connection_retry_on_startup=True,
        broker_connection_timeout=5,
        broker_transport_options=_transport_options(settings),
        task_default_queue="cpu",
    )
    add_tasks(app, run or JobTask(settings))
    return app


def is_embedded(settings: Settings) -> bool:
    """Whether messages stay inside this one process."""
    return settings.worker.broker.startswith("memory:")


def _broker(settings: Settings) -> str:
    # kombu warns about an address without a host, even where none is contacted.
    return "memory://localhost" if is_embedded(settings) else settings.worker.broker


def _transport_options(settings: Settings) -> dict[str, Any]:
    if is_embedded(settings):
        return {"polling_interval": POLLING_S}
    return {
        "global_keyprefix": settings.worker.key_prefix,
        # Messages are acknowledged before the work, so these bound seconds of transit, not of training.
        "visibility_timeout": 300,
        "unacked_restore_interval": 5,
        "unacked_restore_throttle": 1,
        "socket_connect_timeout": 5,
        "socket_timeout": 30,
        "socket_keepalive": True,
    }
