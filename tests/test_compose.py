"""docker-compose.yml: it is well-formed, starts nothing without secrets, and its commands do what they say.

No Docker engine is needed: `docker-compose config` reads the file, and the commands of its services run here
as processes on the local Postgres and Redis, started through the image's own entrypoint.
"""

import json
import os
import re
import secrets
import shutil
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO

import pytest
import redis
from sqlalchemy import select

from engine.config import load_settings
from engine.store.jobs import Job
from engine.store.model_versions import ActiveModel, ModelVersion
from engine.store.session import Workspace, open_workspace
from tests import factories
from tests.conftest import REPOSITORY, missing

COMPOSE = (REPOSITORY / "docker-compose.yml").read_text("utf-8")
REDIS = "redis://127.0.0.1:6379/0"
SITE = "maskloop.example.org"
METRICS_TOKEN = "a-token-for-monitoring"
ENV_FILE = {
    "POSTGRES_PASSWORD": "postgres-word",
    "REDIS_PASSWORD": "redis-word",
    "S3_KEY": "an-s3-key",
    "S3_SECRET": "an-s3-secret",
    "METRICS_TOKEN": METRICS_TOKEN,
    "SITE_HOST": SITE,
}
SERVICES = {"db", "redis", "object-store", "migrate", "bucket", "web", "worker-cpu", "worker-gpu", "tick"}
STOPPED_WITHIN_S = 20
N_MORE_IMAGES = 300


def filled_in(text: str, values: dict[str, str]) -> str:
    """`text` with ${NAME:-default} and ${NAME:?sentence} replaced, as compose does it."""
    spelt = re.compile(r"\$\{(\w+)(?::([-?])([^}]*))?\}")
    return spelt.sub(lambda found: values.get(found[1], found[3] if found[2] == "-" else ""), text)


def section(name: str) -> str:
    """The lines of one service, or of one x- block."""
    blocks: dict[str, list[str]] = {}
    block, top = "", ""
    for line in COMPOSE.splitlines():
        if line.lstrip().startswith("#"):
            continue
        if found := re.match(r"(\S[^:]*):", line):
            block = top = found[1]
        elif top == "services" and (found := re.match(r"  (\S[^:]*):", line)):
            block = found[1]
        else:
            blocks.setdefault(block, []).append(line)
    return "\n".join(blocks[name])


def listed(name: str, key: str) -> list[str]:
    """`command` or the health check's `test` of a service, with the defaults filled in."""
    found = re.search(rf"^ +{key}: (\[.*\])$", section(name), re.M)
    assert found, f"{name} has no {key} on one line"
    return [str(word) for word in json.loads(filled_in(found[1], {}))]


def environment() -> dict[str, str]:
    """The variables that every service of ours gets, for the secrets of ENV_FILE."""
    lines = re.findall(r"^    ([A-Z][A-Z0-9_]+): (.+)$", section("x-app"), re.M)
    return {name: filled_in(value, ENV_FILE).strip("'\"") for name, value in lines}


def entrypoint() -> list[str]:
    found = re.search(r"^ENTRYPOINT (\[.*\])$", (REPOSITORY / "Dockerfile").read_text("utf-8"), re.M)
    assert found
    return [str(word) for word in json.loads(found[1])]


@pytest.fixture
def composed(tmp_path: Path) -> Callable[..., subprocess.CompletedProcess[str]]:
    """Runs `docker-compose ... config` on the file with the given secrets in .env."""
    if shutil.which("docker-compose") is None:
        missing("no docker-compose: apt-get install docker-compose")
    shutil.copy(REPOSITORY / "docker-compose.yml", tmp_path)

    def run(values: dict[str, str], *options: str) -> subprocess.CompletedProcess[str]:
        (tmp_path / ".env").write_text("".join(f"{name}={value}\n" for name, value in values.items()))
        clean = {name: os.environ[name] for name in ("PATH", "HOME") if name in os.environ}
        command = ["docker-compose", *options]
        return subprocess.run(
            command, cwd=tmp_path, env=clean, capture_output=True, text=True, timeout=60, check=False
        )

    return run


def test_compose_reads_the_file(composed: Callable[..., subprocess.CompletedProcess[str]]) -> None:
    done = composed(ENV_FILE, "--profile", "gpu", "config", "--services")
    assert done.returncode == 0, done.stderr
    assert set(done.stdout.split()) == SERVICES
    full = composed(ENV_FILE, "config")
    assert full.returncode == 0 and f'["{SITE}"]' in full.stdout


def test_compose_starts_nothing_without_its_secrets(
    composed: Callable[..., subprocess.CompletedProcess[str]],
) -> None:
    for values in ({}, ENV_FILE | {"REDIS_PASSWORD": ""}):
        done = composed(values, "config", "--quiet")
        assert done.returncode == 1 and "set it in .env" in done.stderr
    # Each of them stops compose in the same way, so the rest is read from the file.
    for name in ENV_FILE:
        assert set(re.findall(rf"\$\{{{name}(..)", COMPOSE)) == {":?"}, name


def test_no_secret_has_a_default_and_only_the_page_is_published_to_this_machine() -> None:
    assert not re.search(r"\$\{\w*(PASSWORD|SECRET|KEY|TOKEN)\w*(:-[^}]|\})", COMPOSE)
    published = re.findall(r'^ +- "?([^"\n]*:\d+)"?$', COMPOSE, re.M)
    assert published == ["127.0.0.1:${WEB_PORT:-8765}:8765"]


@pytest.mark.parametrize("name", sorted(SERVICES - {"migrate", "bucket"}))
def test_every_lasting_service_has_a_health_check_and_restarts(name: str) -> None:
    service = section(name)
    assert "healthcheck:" in service
    ours = "<<: *app" in service
    assert "restart: unless-stopped" in (section("x-app") if ours else service)
    graces = re.search(r"stop_grace_period: (\d+)s", section("x-app") if ours else service)
    assert graces and int(graces[1]) >= STOPPED_WITHIN_S


def test_the_settings_of_the_file_are_known_ones(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in environment().items():
        monkeypatch.setenv(name, value)
    settings = load_settings(tmp_path)
    assert settings.web.tls and settings.web.trusted_hosts == (SITE,) and settings.logs.format == "json"
    assert settings.worker.devices == ("cpu",) and settings.web.metrics_token == METRICS_TOKEN
    assert "postgres-word" in settings.database.url and "redis-word" in settings.worker.broker


@dataclass
class Site:
    """The services of the file as processes of this machine."""

    folder: Path
    port: int
    variables: dict[str, str]
    running: dict[str, subprocess.Popen[str]] = field(default_factory=dict)
    logs: dict[str, IO[str]] = field(default_factory=dict)

    def run(self, command: list[str]) -> subprocess.CompletedProcess[str]:
        """To its end, as a one-shot service or a health check."""
        here = [sys.executable if word == "python" else word for word in command]
        return subprocess.run(
            here,
            cwd=REPOSITORY,
            env=os.environ | self.variables,
            capture_output=True,
            text=True,
            timeout=120,
            check=False,
        )

    def start(self, name: str, says: str) -> None:
        """A lasting service, once it has said that it is there."""
        command = [sys.executable if word == "python" else word for word in listed(name, "command")]
        self.logs[name] = (self.folder / f"{name}.log").open("w+")
        process = subprocess.Popen(
            [*entrypoint(), *command],
            cwd=REPOSITORY,
            env=os.environ | self.variables,
            stdout=subprocess.PIPE,
            stderr=self.logs[name],
            text=True,
            start_new_session=True,
        )
        self.running[name] = process
        assert process.stdout is not None
        said = process.stdout.readline()
        assert says in said, (said, self.log(name))

    def log(self, name: str) -> str:
        self.logs[name].seek(0)
        return self.logs[name].read()

    def get(self, path: str, **headers: str) -> tuple[int, str]:
        """Status and text of the page's answer."""
        request = urllib.request.Request(
            f"http://127.0.0.1:{self.port}{path}", headers={"Host": SITE} | headers
        )
        try:
            with urllib.request.urlopen(request, timeout=30) as reply:
                return reply.status, reply.read().decode()
        except urllib.error.HTTPError as error:
            return error.code, error.read().decode()


def a_free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        return int(listener.getsockname()[1])


@pytest.fixture
def site(tmp_path: Path, empty_postgres: str) -> Iterator[Site]:
    """The file's own variables, turned to the local servers; the clocks are the tests'."""
    server = redis.Redis.from_url(REDIS, socket_connect_timeout=2)
    try:
        server.ping()
    except redis.RedisError:
        missing("no Redis on 127.0.0.1:6379")
    port, prefix = a_free_port(), f"maskloop-test-{secrets.token_hex(4)}:"
    local = {
        "MASKLOOP_HOME": str(tmp_path / "home"),
        "MASKLOOP_DATABASE__URL": empty_postgres,
        "MASKLOOP_FILES__URL": f"file://{tmp_path}/objects",
        "MASKLOOP_WEB__HOST": "127.0.0.1",
        "MASKLOOP_WEB__PORT": str(port),
        "MASKLOOP_WORKER__BROKER": REDIS,
        "MASKLOOP_WORKER__KEY_PREFIX": prefix,
        "MASKLOOP_WORKER__TICK_S": "0.2",
        "MASKLOOP_EMBED__AHEAD": str(N_MORE_IMAGES),
        "OMP_NUM_THREADS": "1",
    }
    made = Site(tmp_path, port, environment() | local)
    yield made
    for process in made.running.values():
        if process.poll() is None:
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()
        assert process.stdout is not None
        process.stdout.close()
    for log in made.logs.values():
        log.close()
    for key in server.scan_iter(f"{prefix}*"):
        server.delete(key)


def furnish(workspace: Workspace, weights: bytes, n_images: int) -> None:
    """A dataset with its stage open: one embedding is due for each of its images."""
    weights_sha256, decoder_sha256 = workspace.blobs.put(weights), workspace.blobs.put(b"no decoder")
    with workspace.write() as session:
        dataset = factories.a_dataset(session, n_images, open_stage="assisted_manual")
        version = ModelVersion(
            dataset_id=dataset.id,
            name="random",
            architecture="small",
            config={},
            weights_sha256=weights_sha256,
            decoder_sha256=decoder_sha256,
        )
        factories.add(session, version)
        session.add(ActiveModel(dataset_id=dataset.id, model_version_id=version.id))
        for number in range(n_images):
            factories.an_image(workspace, session, dataset.id, number)


def states(workspace: Workspace) -> list[str]:
    with workspace.read() as session:
        return list(session.scalars(select(Job.state).where(Job.kind == "embed")))


def wait_for(reached: Callable[[], bool], seconds: float = 90.0) -> None:
    end = time.monotonic() + seconds
    while not reached():
        assert time.monotonic() < end, "waited in vain"
        time.sleep(0.05)


def assert_is_well(site: Site) -> None:
    """Every health check of a running service passes, and the page says so to those who may ask."""
    for name in site.running:
        checked = listed(name, "test")
        assert checked[0] == "CMD"
        done = site.run(checked[1:])
        assert done.returncode == 0, (name, done.stderr)
    assert site.get("/healthz")[0] == 200
    assert site.get("/readyz") == (200, site.get("/readyz")[1])
    assert site.get("/metrics")[0] == 401
    status, text = site.get("/metrics", Authorization=f"Bearer {METRICS_TOKEN}")
    assert status == 200 and 'maskloop_jobs{kind="embed"' in text


def assert_speaks_json(site: Site) -> None:
    """Every line of every service is an object, jobs and requests are named, no secret is told."""
    lines = {name: [json.loads(line) for line in site.log(name).splitlines()] for name in site.running}
    assert any(line.get("job_id") and line["worker"] for line in lines["worker-cpu"])
    assert all(line.get("request_id") for line in lines["web"] if "status" in line)
    assert {line["process"] for line in lines["web"]} == {"web"}
    told = "".join(site.log(name) for name in site.running)
    assert METRICS_TOKEN not in told and "word" not in told


@pytest.mark.slow
def test_the_very_commands_of_the_file_turn_the_loop_and_stop_in_time(
    site: Site, small_model: tuple[bytes, bytes]
) -> None:
    refused = site.run([*entrypoint(), *listed("web", "command")])
    assert refused.returncode == 1 and "maskloop db upgrade" in refused.stderr
    for name in ("migrate", "migrate", "bucket", "bucket"):
        done = site.run([*entrypoint(), *listed(name, "command")])
        assert done.returncode == 0, (name, done.stderr)
    site.start("web", "serving http")
    workspace = open_workspace(
        load_settings(
            Path(site.variables["MASKLOOP_HOME"]),
            {
                "database": {"url": site.variables["MASKLOOP_DATABASE__URL"]},
                "files": {"url": site.variables["MASKLOOP_FILES__URL"]},
            },
        )
    )
    furnish(workspace, small_model[0], 2)
    site.start("tick", "tick ready")
    site.start("worker-cpu", "worker ready")
    wait_for(lambda: states(workspace) == ["done", "done"])
    assert_is_well(site)
    furnish(workspace, small_model[0], N_MORE_IMAGES)
    wait_for(lambda: states(workspace).count("done") > 2)
    began = time.monotonic()
    for process in site.running.values():
        process.send_signal(signal.SIGTERM)
    ended = {name: process.wait(timeout=STOPPED_WITHIN_S) for name, process in site.running.items()}
    assert set(ended.values()) == {0} and time.monotonic() - began < STOPPED_WITHIN_S
    left = states(workspace)
    assert set(left) == {"queued", "done"}, "it stopped in the middle, and every job was given back"
    assert_speaks_json(site)
    sign_of_life = Path(site.variables["MASKLOOP_HOME"]) / "tick.alive"
    assert sign_of_life.stat().st_mode & 0o077 == 0, "what the services write is for their owner only"
    workspace.close()
