"""/metrics: who may read it, what it counts, and the id and the line of every request."""

import logging
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from prometheus_client.parser import text_string_to_metric_families

from annotator_ui.api import metrics
from annotator_ui.app import create_app
from engine.config import load_settings
from engine.pipeline.metrics import figures
from engine.store.jobs import ask
from engine.store.session import Workspace, open_workspace

Browsers = Callable[..., Any]
TOKEN = "a-token-of-some-length"
AFAR = {"REMOTE_ADDR": "192.0.2.7"}


def samples(text: str) -> dict[str, float]:
    """name{label=value,...} -> figure, of everything in the text format."""
    return {
        f"{one.name}{{{','.join(f'{k}={v}' for k, v in sorted(one.labels.items()))}}}": one.value
        for family in text_string_to_metric_families(text)
        for one in family.samples
    }


def app_with(home: Path, **web: Any) -> Any:
    return create_app(open_workspace(load_settings(home, {"web": web}))).test_client()


def test_this_machine_reads_metrics_without_a_word_and_nobody_else(home: Path) -> None:
    client = app_with(home)
    assert client.get("/metrics").status_code == 200
    assert client.get("/metrics", environ_base=AFAR).status_code == 401
    assert client.get("/metrics", headers={"X-Forwarded-For": "192.0.2.7"}).status_code == 401
    assert client.get("/metrics", headers={"Authorization": "Bearer "}, environ_base=AFAR).status_code == 401


def test_the_token_reads_metrics_from_anywhere(home: Path) -> None:
    client = app_with(home, metrics_token=TOKEN)
    bearer = {"Authorization": f"Bearer {TOKEN}"}
    assert client.get("/metrics", headers=bearer, environ_base=AFAR).status_code == 200
    for wrong in ("Bearer guess", f"Basic {TOKEN}", TOKEN):
        assert client.get("/metrics", headers={"Authorization": wrong}).status_code == 401
    assert TOKEN not in client.get("/metrics", headers=bearer).text


def test_behind_a_tls_proxy_only_the_token_reads_metrics(home: Path) -> None:
    client = app_with(home, metrics_token=TOKEN, tls=True)
    assert client.get("/metrics").status_code == 401
    assert client.get("/metrics", headers={"Authorization": f"Bearer {TOKEN}"}).status_code == 200


def test_an_admin_in_a_browser_is_no_monitor(browser: Browsers) -> None:
    assert browser("adm").get("/metrics", environ_base=AFAR).status_code == 401


@pytest.mark.parametrize("token", ["short", "has a space in the middle", "x" * 201])
def test_a_token_that_could_be_guessed_or_sent_wrong_is_refused(tmp_path: Path, token: str) -> None:
    with pytest.raises(Exception, match="metrics_token"):
        load_settings(tmp_path, {"web": {"metrics_token": token}})


def test_the_figures_are_those_of_the_rows(furnished: Workspace, browser: Browsers) -> None:
    with furnished.write() as session:
        ask(session, "embed", {}, "one", queue="gpu")
    browser("ann").image()
    found = samples(browser().get("/metrics").text)
    assert found["maskloop_database_up{}"] == 1
    assert found["maskloop_jobs{kind=embed,queue=gpu,state=queued}"] == 1
    assert 0 <= found["maskloop_oldest_waiting_job_seconds{queue=gpu}"] < 60
    assert found["maskloop_oldest_waiting_job_seconds{queue=train}"] == 0
    assert found["maskloop_images{dataset=cells}"] == 3
    assert found["maskloop_embeddings_ready_ahead{dataset=cells}"] == 3
    assert found["maskloop_leases{state=live}"] == 1 and found["maskloop_leases{state=expired}"] == 0
    assert found["maskloop_disk_free_bytes{place=home}"] > 0
    model = next(name for name in found if name.startswith("maskloop_active_model{"))
    assert "architecture=small" in model and "dataset=cells" in model
    assert any(name.startswith("maskloop_build_info{version=") for name in found)


def test_requests_are_counted_by_route_and_never_by_address(browser: Browsers) -> None:
    ann = browser("ann")
    for number in (1, 2, 999):
        ann.get(f"assignments/{number}")
    ann.get("/nothing/here")
    found = samples(ann.get("/metrics").text)
    route = "route=/api/v1/assignments/<row:assignment_id>"
    assert found[f"maskloop_http_requests_total{{method=GET,{route},status=404}}"] == 3
    assert found[f"maskloop_http_request_seconds_count{{method=GET,{route}}}"] == 3
    assert found["maskloop_http_requests_total{method=GET,route=unknown,status=404}"] == 1
    assert not any("999" in name for name in found)


def test_counting_is_kept_for_a_while(furnished: Workspace, browser: Browsers) -> None:
    browser().get("/metrics")
    with furnished.write() as session:
        ask(session, "embed", {}, "late")
    assert "kind=embed" not in "".join(samples(browser().get("/metrics").text))
    assert metrics.COUNTED_EVERY_S <= 15


def test_without_the_database_the_rest_is_still_told(tmp_path: Path) -> None:
    url = "postgresql://nobody@127.0.0.1:1/none"
    away = open_workspace(load_settings(tmp_path, {"database": {"url": url}}), check_revision=False)
    reply = create_app(away).test_client().get("/metrics")
    assert reply.status_code == 200 and samples(reply.text)["maskloop_database_up{}"] == 0
    assert "maskloop_disk_free_bytes" in reply.text and "maskloop_jobs" not in reply.text


def test_figures_of_an_empty_database_are_zeros(workspace: Workspace) -> None:
    with workspace.read() as session:
        found = figures(session, workspace.settings)
    assert found.jobs == {} and set(found.oldest_waiting_job_s.values()) == {0.0}


def test_a_request_keeps_its_id_and_a_forged_one_is_replaced(browser: Browsers) -> None:
    given = browser().get("/healthz", headers={"X-Request-ID": "proxy-17.a"})
    assert given.headers["X-Request-ID"] == "proxy-17.a"
    for forged in ("two words", "a" * 65, 'x"y'):
        made = browser().get("/healthz", headers={"X-Request-ID": forged}).headers["X-Request-ID"]
        assert re.fullmatch(r"[0-9a-f]{16}", made)
    refused = browser().client.get("/healthz", base_url="http://evil.example")
    assert refused.status_code == 400 and refused.headers["X-Request-ID"]


def test_every_request_is_one_line_with_route_person_and_time(
    browser: Browsers, caplog: pytest.LogCaptureFixture
) -> None:
    ann = browser("ann")
    caplog.set_level(logging.INFO, "annotator_ui.requests")
    caplog.clear()
    ann.get("me?secret=1")
    browser().get("me")
    known, stranger = (record.about for record in caplog.records)
    assert known["status"] == 200 and known["user_id"] == 1 and known["duration_ms"] > 0
    assert known["path"] == "/api/v1/me" and "secret" not in caplog.text
    assert stranger["status"] == 401 and "user_id" not in stranger
