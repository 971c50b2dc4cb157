"""/healthz and /readyz: what is wrong is named in a sentence, and nothing is told to strangers."""

import os
import time
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from sqlalchemy import text, update

from annotator_ui.app import create_app
from engine.config import load_settings
from engine.pipeline import health
from engine.pipeline.health import Limits
from engine.store.jobs import Job, ask
from engine.store.session import Workspace, open_workspace, upgrade

Browsers = Callable[..., Any]
ALL_WELL = {"database": "ok", "files": "ok", "disk": "ok", "tick": "ok", "jobs": "ok"}
LONG_AGO = timedelta(hours=1)


def answers(workspace: Workspace, limits: Limits | None = None) -> dict[str, str]:
    return {check.name: check.answer for check in health.readiness(workspace, limits)}


def wait_in(workspace: Workspace, queue: str, **columns: Any) -> int:
    """A job that was asked for an hour ago; `columns` may say more. Its id."""
    with workspace.write() as session:
        job = ask(session, "embed", {}, f"key {queue}", queue=queue)
        values = {"created_at": datetime.now(UTC) - LONG_AGO} | columns
        session.execute(update(Job).where(Job.id == job.id).values(values))
        return job.id


def test_a_furnished_home_is_alive_and_ready(browser: Browsers) -> None:
    assert browser().get("/healthz").json["status"] == "ok"
    ready = browser().get("/readyz")
    assert ready.status_code == 200 and ready.json == ALL_WELL


def test_an_empty_database_is_ready_on_both(workspace: Workspace) -> None:
    assert answers(workspace) == ALL_WELL


def test_readiness_leaves_no_file_behind(workspace: Workspace) -> None:
    answers(workspace)
    blobs = workspace.settings.home / "blobs"
    assert [path for path in blobs.rglob("*") if path.is_file()] == []


def test_jobs_that_nobody_takes_make_the_page_unready_and_name_the_queue(workspace: Workspace) -> None:
    wait_in(workspace, "gpu")
    said = answers(workspace)["jobs"]
    assert "work waits in queue gpu (jobs: 1," in said and "python -m workers --queues gpu" in said
    assert health.jobs(workspace, ["cpu", "train"]).is_ok and not health.jobs(workspace, ["gpu"]).is_ok
    assert answers(workspace, Limits(canary_s=7200.0))["jobs"] == "ok"


@pytest.mark.parametrize(
    "moving",
    [
        {"state": "running", "started_at": datetime.now(UTC) - LONG_AGO, "lease_until": "soon"},
        {"state": "done", "ended_at": "now"},
        {"state": "failed", "ended_at": "now"},
    ],
    ids=["a long training under a live lease", "one just done", "one just failed"],
)
def test_a_queue_that_moves_is_well_however_long_it_is(workspace: Workspace, moving: dict[str, Any]) -> None:
    wait_in(workspace, "train")
    times = {"now": datetime.now(UTC), "soon": datetime.now(UTC) + timedelta(minutes=1)}
    values = {name: times.get(value, value) for name, value in moving.items()}
    with workspace.write() as session:
        other = ask(session, "train", {}, "the other", queue="train")
        session.execute(update(Job).where(Job.id == other.id).values(values))
    assert answers(workspace)["jobs"] == "ok"


def test_a_job_that_waits_for_its_retry_or_was_just_given_back_is_no_alarm(workspace: Workspace) -> None:
    wait_in(workspace, "cpu", not_before=datetime.now(UTC) + timedelta(minutes=1))
    wait_in(workspace, "gpu", started_at=datetime.now(UTC))
    assert answers(workspace)["jobs"] == "ok"


def test_a_tick_that_stopped_is_said_and_one_elsewhere_is_not_missed(workspace: Workspace) -> None:
    settings = workspace.settings
    assert health.tick(settings).is_ok and not health.tick(settings, must_tick=True).is_ok
    health.record_tick(settings)
    assert health.tick(settings, must_tick=True).is_ok
    os.utime(settings.home / "tick.alive", (time.time() - 600, time.time() - 600))
    assert "600 s ago" in answers(workspace)["tick"]


def test_too_little_disk_is_said(workspace: Workspace) -> None:
    assert "MB are left" in answers(workspace, Limits(min_free_mb=10**9))["disk"]


def test_files_that_cannot_be_written_are_said(sqlite_workspace: Workspace) -> None:
    (sqlite_workspace.settings.home / "blobs").write_text("in the way")
    assert "files.url" in answers(sqlite_workspace)["files"]


def test_a_database_of_another_revision_is_unready_and_says_what_to_run(workspace: Workspace) -> None:
    with workspace.write() as session:
        session.execute(text("UPDATE alembic_version SET version_num = '0001'"))
    try:
        said = answers(workspace)
        assert "revision 0001" in said["database"] and "maskloop db upgrade" in said["database"]
        assert "jobs" not in said
    finally:
        with workspace.write() as session:
            wanted = {"wanted": health._wanted_revision()}
            session.execute(text("UPDATE alembic_version SET version_num = :wanted"), wanted)


def test_a_database_that_is_away_is_503_and_no_address_is_told(empty_postgres: str, tmp_path: Any) -> None:
    url = empty_postgres.replace("postgres@", "postgres:hidden-word@")
    settings = load_settings(tmp_path, {"database": {"url": url}})
    upgrade(settings)
    workspace = open_workspace(settings)
    app = create_app(workspace)
    assert app.test_client().get("/readyz").status_code == 200
    workspace.close()
    away = load_settings(tmp_path, {"database": {"url": url.replace(":5432", ":1")}})
    reply = create_app(open_workspace(away, check_revision=False)).test_client().get("/readyz")
    assert reply.status_code == 503 and "start it" in reply.json["database"]
    assert reply.json["files"] == "ok" and "hidden-word" not in reply.text and "127.0.0.1" not in reply.text
    assert "jobs" not in reply.json


def test_an_answer_is_kept_a_moment_so_that_strangers_cannot_wear_the_disk_out(
    browser: Browsers, furnished: Workspace
) -> None:
    assert browser().get("/readyz").status_code == 200
    wait_in(furnished, "cpu")
    assert browser().get("/readyz").status_code == 200
    time.sleep(1.1)
    assert browser().get("/readyz").status_code == 503
