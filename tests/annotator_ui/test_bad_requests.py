"""What a hostile or broken client may send: each gets a problem with a sentence, and nothing is stored."""

import json
from typing import Any
from uuid import uuid4

import numpy as np
import pytest
from apiflask import APIFlask
from sqlalchemy import func, select

from engine.geometry.rle import encode
from engine.store.annotations import Annotation
from engine.store.session import Workspace

CLICK = {"kind": "point", "x": 30.0, "y": 30.0, "label": 1}
SQUARE = np.zeros((64, 96), dtype=bool)
SQUARE[10:40, 20:60] = True
GOOD: dict[str, Any] = dict(encode(SQUARE))
COUNTS = GOOD["counts"]
BOX = {"kind": "box", "x0": 5, "y0": 5, "x1": 40, "y1": 40}


def body(**changes: Any) -> dict[str, Any]:
    return {
        "client_id": str(uuid4()),
        "prompts": [CLICK],
        "chosen": [0],
        "segmentation": GOOD,
        "model_version_id": 1,
    } | changes


def refuses(ann: Any, furnished: Workspace, path: str, sent: Any) -> Any:
    """Sends a raw or JSON body, checks for a 4xx problem and an empty table, and gives back the problem."""
    request = {"data": sent} if isinstance(sent, bytes) else {"json": sent}
    reply = ann.send(path, content_type="application/json", **request)
    assert 400 <= reply.status_code < 500, reply.text
    assert reply.mimetype == "application/problem+json"
    assert reply.json["status"] == reply.status_code and len(reply.json["detail"]) > 10
    assert "Traceback" not in reply.text and "engine/" not in reply.text
    with furnished.read() as session:
        assert session.scalar(select(func.count()).select_from(Annotation)) == 0
    return reply.json


def test_the_body_that_these_tests_spoil_is_good(ann: Any) -> None:
    ann.image()
    assert ann.post("assignments/1/masks", **body()).status_code == 201


SEGMENTATIONS = {
    "too short": {"size": [64, 96], "counts": "01"},
    "too long": {"size": [64, 96], "counts": COUNTS + "9"},
    "runs below zero": {"size": [64, 96], "counts": "N"},
    "cut off": {"size": [64, 96], "counts": "o"},
    "other size": {"size": [96, 64], "counts": COUNTS},
    "huge size": {"size": [2**31, 2**31], "counts": "0"},
    "no size": {"size": [0, 0], "counts": ""},
    "negative size": {"size": [-64, -96], "counts": "0"},
    "foreign letters": {"size": [64, 96], "counts": "~~~~"},
    "NUL": {"size": [64, 96], "counts": "0\x00"},
    "uncompressed": {"size": [64, 96], "counts": [0, 6144]},
    "a bomb": {"size": [64, 96], "counts": "0" * 1_499_999},
    "empty mask": dict(encode(np.zeros((64, 96), dtype=bool))),
    "a key too many": GOOD | {"caption": "x"},
    "a string": COUNTS,
}


@pytest.mark.parametrize("kind", SEGMENTATIONS)
def test_a_hostile_mask_is_refused_with_a_sentence(ann: Any, furnished: Workspace, kind: str) -> None:
    ann.image()
    problem = refuses(ann, furnished, "assignments/1/masks", body(segmentation=SEGMENTATIONS[kind]))
    assert problem["status"] == 422


PROMPTS = {
    "none": [],
    "outside": [CLICK | {"x": 96.5}],
    "far outside": [CLICK | {"x": 1e30}],
    "negative": [CLICK | {"y": -1}],
    "third label": [CLICK | {"label": 2}],
    "text": [CLICK | {"x": "thirty"}],
    "unknown kind": [{"kind": "lasso", "x": 1, "y": 1}],
    "no kind": [{"x": 1, "y": 1, "label": 1}],
    "a key too many": [CLICK | {"z": 3}],
    "two boxes": [BOX, BOX],
    "empty box": [BOX | {"x1": 5}],
    "ten thousand": [CLICK] * 10_000,
    "more than the limit": [CLICK] * 101,
    "no list": CLICK,
    "time below zero": [CLICK | {"at_ms": -1}],
}


@pytest.mark.parametrize("kind", PROMPTS)
@pytest.mark.parametrize("path", ["assignments/1/masks", "assignments/1/predictions"])
def test_prompts_that_mean_nothing_are_refused(ann: Any, furnished: Workspace, kind: str, path: str) -> None:
    ann.image()
    prompts = PROMPTS[kind]
    n = len(prompts)
    sent = body(prompts=prompts, chosen=[0] * n)
    if path.endswith("predictions"):
        sent = {"prompts": prompts, "chosen": [0] * max(n - 1, 0)}
    assert refuses(ann, furnished, path, sent)["status"] == 422


CHANGES: dict[str, dict[str, Any]] = {
    "client_id": {"client_id": "not a uuid"},
    "chosen too short": {"chosen": []},
    "chosen too high": {"chosen": [3]},
    "chosen below zero": {"chosen": [-1]},
    "chosen true": {"chosen": [True]},
    "time": {"active_ms": -5},
    "a week": {"active_ms": 7 * 86_400_000},
    "undos": {"n_undos": -1},
    "huge id": {"supersedes_id": 2**70},
    "huge model id": {"model_version_id": 2**70},
    "unknown key": {"author_id": 2},
    "score": {"predicted_iou": "high"},
}


@pytest.mark.parametrize("kind", CHANGES)
def test_a_field_that_is_wrong_is_named(ann: Any, furnished: Workspace, kind: str) -> None:
    ann.image()
    assert refuses(ann, furnished, "assignments/1/masks", body(**CHANGES[kind]))["status"] == 422


@pytest.mark.parametrize("changes", [{"category_id": 7}, {"supersedes_id": 7}])
def test_what_does_not_exist_is_not_found(ann: Any, furnished: Workspace, changes: dict[str, int]) -> None:
    ann.image()
    assert refuses(ann, furnished, "assignments/1/masks", body(**changes))["status"] == 404


RAW = {
    "no JSON": b"hello",
    "half": b'{"name": ',
    "NaN": b'{"name": NaN, "password": "x"}',
    "Infinity": b'{"name": "a", "password": Infinity}',
    "doubled key": b'{"name": "ann", "name": "adm", "password": "x"}',
    "deep": b"[" * 100_000,
    "deep object": b'{"a":' * 50_000,
    "long number": b"1" * 10_000,
    "not UTF-8": b'{"name": "\xff\xfe", "password": "x"}',
    "a list": b"[]",
    "nothing": b"",
    "NUL in a name": b'{"name": "a\\u0000b", "password": "x"}',
    "half a pair": b'{"name": "\\ud800", "password": "x"}',
    "password half a pair": b'{"name": "ann", "password": "\\ud800"}',
}


@pytest.mark.parametrize("kind", RAW)
def test_broken_json_is_a_client_error_on_a_public_route(ann: Any, furnished: Workspace, kind: str) -> None:
    refuses(ann, furnished, "sign-in", RAW[kind])


@pytest.mark.parametrize("number", ["NaN", "1e999", "-Infinity"])
def test_a_number_json_does_not_know_is_refused(ann: Any, furnished: Workspace, number: str) -> None:
    ann.image()
    sent = json.dumps({"prompts": [CLICK], "chosen": []}).replace("30.0", number, 1).encode()
    refuses(ann, furnished, "assignments/1/predictions", sent)


def test_a_body_over_the_limit_is_refused_unread(ann: Any, furnished: Workspace) -> None:
    problem = refuses(ann, furnished, "sign-in", b"x" * 2_000_001)
    assert problem["status"] == 413 and "2 MB" in problem["detail"]


def test_a_body_that_is_no_json_by_its_type_is_refused(ann: Any) -> None:
    form = ann.send("sign-in", data={"name": "ann", "password": "x"})
    assert form.status_code == 415 and "application/json" in form.json["detail"]


@pytest.mark.parametrize(
    "path",
    [
        "/api/v1/assignments/0",
        "/api/v1/assignments/-1",
        "/api/v1/assignments/99999999999999999999",
        "/api/v1/images/1e3/pixels",
        "/api/v1/datasets/a%00b",
        "/api/v1/datasets/" + "a" * 300,
        "/static/../app.py",
        "/static/%2e%2e/app.py",
        "/static/..%2fapp.py",
        "/static/.source-hash",
        "/nothing",
    ],
)
def test_an_address_that_means_nothing_is_404(ann: Any, path: str) -> None:
    reply = ann.get(path)
    assert reply.status_code == 404 and reply.mimetype == "application/problem+json"


def test_a_wrong_method_is_405_and_names_the_right_one(ann: Any) -> None:
    reply = ann.client.delete("/api/v1/datasets")
    assert reply.status_code == 405 and "GET" in reply.headers["Allow"]


def test_a_failure_of_ours_shows_a_number_and_no_trace(app: APIFlask, ann: Any) -> None:
    # A blob that vanished is a failure of the server, which no request can cause.
    def fail() -> None:
        raise ZeroDivisionError("a secret of the server")

    app.view_functions["datasets.list_datasets"] = fail
    fail.__dict__["policy"] = frozenset({"annotator"})
    reply = ann.get("datasets")
    assert reply.status_code == 500 and "secret" not in reply.text and "administrator" in reply.json["detail"]


def test_a_database_that_is_away_is_503_and_says_try_again(ann: Any, furnished: Workspace) -> None:
    furnished.close()
    database = furnished.settings.home / "maskloop.db"
    database.rename(database.with_name("elsewhere.db"))
    database.mkdir()
    reply = ann.get("datasets")
    assert reply.status_code == 503 and reply.headers["Retry-After"] == "2"
    assert "database" in reply.json["detail"] and str(database) not in reply.text
    assert ann.get("/healthz").status_code == 200
    ready = ann.get("/readyz")
    assert ready.status_code == 503 and ready.json["files"] == "ok" != ready.json["database"]
    assert str(database) not in ready.text
