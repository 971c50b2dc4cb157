"""Stage 2 over HTTP: proposals come with the image, a word on them is kept once, the rest becomes masks."""

from uuid import uuid4

import pytest
from sqlalchemy import select

from engine.store.datasets import dataset_named
from engine.store.detector_versions import DetectorVersion
from engine.store.images import Image
from engine.store.masks import Mask
from engine.store.model_versions import ModelVersion
from engine.store.session import Workspace
from tests.annotator_ui.conftest import Browser
from tests.factories import a_detector_version, a_proposal, a_snapshot

# A 4 x 4 corner of a picture of 64 x 96.
COUNTS = "04l100000Ph5"


@pytest.fixture
def prefilled(furnished: Workspace) -> list[int]:
    """Three proposals on each picture of stage 2; the ids of those on the first."""
    with furnished.write() as session:
        version = session.scalars(select(ModelVersion)).one()
        snapshot = a_snapshot(session, version.dataset_id)
        detector: DetectorVersion = a_detector_version(session, version, snapshot)
        ids = []
        for image in session.scalars(select(Image).order_by(Image.id)):
            for n in range(3):
                columns = {"counts": COUNTS, "area": 16, "bbox_xywh": [0, 0, 4, 4], "score": 0.9 - 0.1 * n}
                ids.append(a_proposal(session, image, version, detector_version_id=detector.id, **columns).id)
        dataset_named(session, "cells").open_stage = "semi_automatic"
    return ids[:3]


def test_proposals_are_shown_refused_corrected_and_kept(
    ann: Browser, prefilled: list[int], furnished: Workspace
) -> None:
    lent = ann.image()
    assert lent["prefill"] == {"threshold": 0.5, "detector_version": "d1", "false_prefill_rate": 0.1}
    assert [(row["id"], row["state"]) for row in lent["proposals"]] == [(id, "open") for id in prefilled]
    path, body = f"assignments/{lent['id']}/reviews", {"client_id": str(uuid4())}
    refusal = body | {"act": "reject", "proposal_ids": prefilled[:2]}
    for _ in range(2):
        reply = ann.post(path, **refusal)
        assert reply.status_code == 201, reply.text
        assert reply.json == {"proposals": [{"id": id, "state": "rejected"} for id in prefilled[:2]]}
    assert ann.post(path, **refusal | {"proposal_ids": prefilled}).status_code == 409
    back = {"client_id": str(uuid4()), "act": "unreject", "proposal_ids": prefilled[1:2]}
    assert ann.post(path, **back).json["proposals"][0]["state"] == "open"
    drawn = {
        "client_id": str(uuid4()),
        "prompts": [{"kind": "point", "x": 2, "y": 2, "label": 1}],
        "chosen": [0],
        "segmentation": {"size": [64, 96], "counts": COUNTS},
        "model_version_id": lent["model"]["id"],
        "proposal_id": prefilled[1],
    }
    assert ann.post(f"assignments/{lent['id']}/masks", **drawn).status_code == 201
    states = [row["state"] for row in ann.get(f"assignments/{lent['id']}").json["proposals"]]
    assert states == ["rejected", "corrected", "open"]
    assert ann.post(f"assignments/{lent['id']}/submission").status_code == 200
    with furnished.read() as session:
        masks = session.scalars(select(Mask).order_by(Mask.id)).all()
    assert [(mask.source, mask.proposal_id) for mask in masks] == [
        ("human", prefilled[1]),
        ("model", prefilled[2]),
    ]


@pytest.mark.parametrize(
    "changes",
    [{"act": "keep"}, {"proposal_ids": []}, {"proposal_ids": [1] * 501}, {"client_id": "x"}, {"more": 1}],
)
def test_a_review_that_is_none_is_refused_by_its_field(
    ann: Browser, prefilled: list[int], changes: dict[str, object]
) -> None:
    body = {"client_id": str(uuid4()), "act": "reject", "proposal_ids": prefilled}
    reply = ann.post(f"assignments/{ann.image()['id']}/reviews", **body | changes)
    assert reply.status_code == 422 and set(reply.json["errors"])


def test_an_image_of_stage_1_has_no_proposals(ann: Browser) -> None:
    lent = ann.image()
    assert (lent["proposals"], lent["prefill"]) == ([], None)
