"""Figures for Prometheus: what the database counts, what this process answered, how much disk is left."""

import threading
import time
from collections.abc import Iterable, Iterator
from importlib.metadata import PackageNotFoundError, version

from apiflask import APIBlueprint
from flask import Response, current_app
from prometheus_client import CONTENT_TYPE_LATEST, generate_latest
from prometheus_client.core import GaugeMetricFamily, InfoMetricFamily, Metric
from prometheus_client.registry import Collector, CollectorRegistry

from annotator_ui.app import Workspace, workspace
from annotator_ui.auth import monitors
from annotator_ui.observing import requests_seen
from engine.errors import Unavailable
from engine.pipeline import health, metrics

blueprint = APIBlueprint("metrics", __name__, enable_openapi=False)

# Several monitors, or an impatient one, cost the database one round of counting.
COUNTED_EVERY_S = 10.0
GAUGES = {
    "jobs": ("maskloop_jobs", "Jobs in the ledger.", ("kind", "state", "queue")),
    "oldest_waiting_job_s": ("maskloop_oldest_waiting_job_seconds", "Age of the oldest due job.", ("queue",)),
    "images": ("maskloop_images", "Images imported.", ("dataset",)),
    "masks": ("maskloop_masks", "Mask rows, superseded ones included.", ("dataset", "stage")),
    "embeddings_ready_ahead": (
        "maskloop_embeddings_ready_ahead",
        "Images at the head of the queue that the active version has embedded.",
        ("dataset",),
    ),
    "leases": ("maskloop_leases", "Images lent to people.", ("state",)),
    "active_model": (
        "maskloop_active_model",
        "The serving model version, always 1.",
        ("dataset", "version", "architecture", "weights_sha256"),
    ),
}


@blueprint.get("/metrics")
@monitors
def read_metrics() -> Response:
    """The text format of Prometheus; `maskloop_database_up` is 0 when the rest of the rows is missing."""
    counting: _Counting = current_app.extensions.setdefault("metrics", _Counting(workspace()))
    registry = CollectorRegistry()
    registry.register(_Shown(counting.families()))
    text = generate_latest(requests_seen().registry) + generate_latest(registry)
    return Response(text, content_type=CONTENT_TYPE_LATEST)


class _Counting:
    """The last round of counting, kept for a while."""

    def __init__(self, workspace: Workspace) -> None:
        self._workspace = workspace
        self._lock = threading.Lock()
        self._counted_at = float("-inf")
        self._families: list[Metric] = []

    def families(self) -> list[Metric]:
        with self._lock:
            if time.monotonic() - self._counted_at > COUNTED_EVERY_S:
                self._families = [*_of_installation(self._workspace), *_of_database(self._workspace)]
                self._counted_at = time.monotonic()
            return self._families


class _Shown(Collector):
    """Hands over what was counted."""

    def __init__(self, families: list[Metric]) -> None:
        self._families = families

    def collect(self) -> Iterable[Metric]:
        return self._families


def _of_installation(workspace: Workspace) -> Iterator[Metric]:
    build = InfoMetricFamily("maskloop_build", "The running code.")
    try:
        build.add_metric([], {"version": version("maskloop")})
    except PackageNotFoundError:
        build.add_metric([], {"version": "unknown"})
    yield build
    disk = GaugeMetricFamily("maskloop_disk_free_bytes", "Space left on local disks.", labels=("place",))
    for place, free_mb in health.free_mb(workspace.settings).items():
        disk.add_metric([place], free_mb * 1_000_000.0)
    yield disk


def _of_database(workspace: Workspace) -> Iterator[Metric]:
    up = GaugeMetricFamily("maskloop_database_up", "1 when the database answered this scrape.")
    try:
        with workspace.read() as session:
            figures = metrics.figures(session, workspace.settings)
    except Unavailable:
        up.add_metric([], 0)
        yield up
        return
    up.add_metric([], 1)
    yield up
    for field, (name, told, labels) in GAUGES.items():
        family = GaugeMetricFamily(name, told, labels=labels)
        for values, figure in getattr(figures, field).items():
            family.add_metric(list(values), figure)
        yield family
