"""What reaches the log: one JSON object a line, with what it is about, and without a secret."""

import json
import logging
import subprocess
import sys
from pathlib import Path

import pytest

from engine import logs
from engine.config import load_settings
from tests.conftest import REPOSITORY

SPEAKER = """
import logging, sys
from pathlib import Path
from engine import logs
from engine.config import load_settings
settings = load_settings(Path(sys.argv[1]), {
    "logs": {"format": sys.argv[2], "level": "info"},
    "database": {"url": "postgresql://maskloop:hunter%40two@db/maskloop"},
    "worker": {"broker": "redis://:swordfish@redis/0"},
})
logs.begin(settings, "worker")
log = logging.getLogger("some.where")
log.debug("not shown")
with logs.bound(job_id=7, worker="w"):
    log.info("connected to %s and %s", settings.database.url, settings.worker.broker)
    try:
        raise ValueError("the key hunter@two\\ndid not fit")
    except ValueError:
        log.exception("no luck")
log.info("alone", extra={"about": {"path": "/a\\nb"}})
logging.getLogger("celery").info("chatter")
raise RuntimeError("swordfish everywhere")
"""


def spoken(home: Path, style: str) -> list[str]:
    """The lines a process wrote on stderr before an exception ended it."""
    command = [sys.executable, "-c", SPEAKER, str(home), style]
    done = subprocess.run(command, cwd=REPOSITORY, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 1 and done.stdout == ""
    return done.stderr.splitlines()


def test_json_logs_are_one_object_a_line_and_name_the_job(tmp_path: Path) -> None:
    lines = [json.loads(line) for line in spoken(tmp_path, "json")]
    assert [line["level"] for line in lines] == ["info", "error", "info", "critical"]
    assert all(line["process"] == "worker" and line["pid"] and line["time"] for line in lines)
    assert [line.get("job_id") for line in lines] == [7, 7, None, None]
    assert "ValueError" in lines[1]["error"] and lines[2]["path"] == "/a\nb"
    assert "RuntimeError" in lines[3]["error"]


def test_text_logs_name_the_job_as_well(tmp_path: Path) -> None:
    lines = spoken(tmp_path, "text")
    assert lines[0].endswith("[job_id=7 worker=w]") and " INFO some.where: connected" in lines[0]


def test_a_secret_of_the_settings_reaches_no_line(tmp_path: Path) -> None:
    everything = "\n".join(spoken(tmp_path, "json"))
    assert "hunter" not in everything and "swordfish" not in everything
    assert "postgresql://maskloop:***@db/maskloop" in everything


@pytest.mark.parametrize(
    ("said", "shown"),
    [
        ("GET s3://key:sec/ret@host", "GET s3://key:sec/ret@host"),
        ("redis://:abc@host/0", "redis://:***@host/0"),
        ("Authorization: Bearer abc.def", "Authorization: Bearer ***"),
        ('{"password": "a b"}', '{"password": "*** b"}'),
        ("?token=abc&x=1", "?token=***&x=1"),
        ("the X-CSRF-Token header is missing", "the X-CSRF-Token header is missing"),
    ],
)
def test_what_announces_itself_as_a_secret_is_masked(said: str, shown: str) -> None:
    assert logs.masked(said) == shown


def test_what_was_bound_ends_with_its_block() -> None:
    record = logging.makeLogRecord({"msg": "x", "levelno": logging.INFO, "levelname": "INFO"})
    with logs.bound(request_id="r"), logs.bound(job_id=1):
        assert json.loads(logs.JsonLines("web").format(record))["request_id"] == "r"
        assert json.loads(logs.JsonLines("web").format(record))["job_id"] == 1
    assert "request_id" not in logs.JsonLines("web").format(record)


def test_short_passwords_do_not_mask_ordinary_words(tmp_path: Path) -> None:
    settings = load_settings(tmp_path, {"worker": {"broker": "redis://:a@host/0"}})
    assert logs.secrets_of(settings) == ()
