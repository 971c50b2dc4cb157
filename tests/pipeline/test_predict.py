"""Prediction for the page: what is offered, to whom, and that steps remembered change nothing."""

from typing import Any

import numpy as np
import pytest

from engine.errors import BadInput, Conflict, NotFound, Unavailable
from engine.geometry.rle import area, bbox_xywh, decode
from engine.modeling.cache import load_model
from engine.modeling.embedding_file import read_embedding
from engine.modeling.predictor import TorchPrompts
from engine.modeling.prompts import fold
from engine.modeling.upscale import upscale_logits
from engine.pipeline import assign, predict
from engine.store.assignments import Assignment
from engine.store.model_versions import ModelVersion
from tests.pipeline.conftest import Lab

FIRST = {"kind": "point", "x": 16.0, "y": 30.0, "label": 1}
SECOND = {"kind": "point", "x": 60.5, "y": 12.0, "label": 0, "at_ms": 900}
BOX = {"kind": "box", "x0": 4.0, "y0": 8.0, "x1": 40.0, "y1": 52.0}


@pytest.fixture
def lent(lab: Lab) -> tuple[Lab, Assignment]:
    """The first image, embedded and lent to ann."""
    lab.embed(lab.image_ids[0])
    with lab.workspace.write() as session:
        assignment = assign.next_assignment(session, lab.workspace.settings, lab.dataset_id, lab.ann)
    assert isinstance(assignment, Assignment)
    return lab, assignment


def offered(lent: tuple[Lab, Assignment], prompts: list[Any], chosen: list[int]) -> predict.Prediction:
    lab, assignment = lent
    return predict.predict(lab.workspace, assignment.id, lab.ann, prompts, chosen)


@pytest.mark.parametrize("first", [FIRST, BOX])
def test_one_prompt_offers_three_masks_and_more_prompts_one(lent: Any, first: dict[str, Any]) -> None:
    one, two = offered(lent, [first], []), offered(lent, [first, SECOND], [2])
    assert (len(one.candidates), len(two.candidates), two.best) == (3, 1, 0)
    assert one.candidates[one.best].predicted_iou == max(c.predicted_iou for c in one.candidates)
    assert one.model_version_id == lent[0].version_id and one.latency_ms > 0
    for candidate in one.candidates:
        assert candidate.segmentation["size"] == [64, 96]
        assert candidate.area == area(candidate.segmentation)
        assert candidate.bbox == bbox_xywh(candidate.segmentation)


def test_the_offer_is_what_torch_folds_on_the_stored_embedding(lent: Any) -> None:
    lab, assignment = lent
    prompts, chosen = [FIRST, SECOND, BOX], [1, 0]
    with lab.workspace.read() as session:
        ground = predict.ground_of(session, assignment.image_id, lab.version_id)
        weights = session.get_one(ModelVersion, lab.version_id).weights_sha256
    embedding = read_embedding(
        lab.workspace.blobs.local_path(ground.embedding_sha256), weights_sha256=weights
    )
    sam = load_model(lab.workspace.blobs.local_path(weights))
    folded = fold(TorchPrompts(sam, embedding, (64, 96)), prompts, chosen)
    wanted = upscale_logits(folded.low_res_logits, (64, 96), sam.config)[0] > 0
    (candidate,) = offered(lent, prompts, chosen).candidates
    assert np.mean(decode(candidate.segmentation) == wanted) > 0.995


def test_remembered_steps_give_the_same_answer_as_a_fresh_process(lent: Any) -> None:
    for n in range(1, 4):
        offered(lent, [FIRST, SECOND, BOX][:n], [0, 0][: n - 1])
    remembered = offered(lent, [FIRST, SECOND, BOX], [0, 0])
    predict._steps._known.clear()
    assert offered(lent, [FIRST, SECOND, BOX], [0, 0]).candidates == remembered.candidates


def test_the_choice_between_candidates_matters(lent: Any) -> None:
    answers = {offered(lent, [FIRST, SECOND], [k]).candidates[0].predicted_iou for k in range(3)}
    assert len(answers) == 3


@pytest.mark.parametrize(
    "prompts, chosen, reason",
    [
        ([], [], "at least one"),
        ([FIRST | {"x": 97.0}], [], "outside"),
        ([FIRST | {"x": float("nan")}], [], "numbers"),
        ([FIRST | {"label": 2}], [], "label"),
        ([BOX, BOX], [0], "one box"),
        ([FIRST, SECOND], [], "entries in chosen"),
        ([FIRST, SECOND], [3], "only 3 were offered"),
        ([FIRST, SECOND], [-1], "only 3 were offered"),
        ([FIRST] * 65, [0] * 64, "at most 64 prompts"),
    ],
)
def test_unusable_prompts_are_refused(lent: Any, prompts: list[Any], chosen: list[int], reason: str) -> None:
    with pytest.raises(BadInput, match=reason):
        offered(lent, prompts, chosen)


def test_somebody_elses_or_a_closed_image_gets_no_prediction(lent: Any) -> None:
    lab, assignment = lent
    with pytest.raises(NotFound):
        predict.predict(lab.workspace, assignment.id, lab.bea, [FIRST], [])
    with pytest.raises(NotFound):
        predict.predict(lab.workspace, 999, lab.ann, [FIRST], [])
    with lab.workspace.write() as session:
        assign.submit(session, lab.workspace.settings, assignment.id, lab.ann)
    with pytest.raises(Conflict, match="submitted already"):
        offered(lent, [FIRST], [])


def test_an_image_that_is_not_embedded_is_still_being_prepared(lab: Lab) -> None:
    with lab.workspace.read() as session, pytest.raises(Unavailable, match="being prepared"):
        predict.ground_of(session, lab.image_ids[3], lab.version_id)


def test_predicting_writes_nothing(lent: Any) -> None:
    lab, _ = lent
    before = lab.workspace.settings.home.joinpath("maskloop.db").read_bytes()
    offered(lent, [FIRST], [])
    assert lab.workspace.settings.home.joinpath("maskloop.db").read_bytes() == before
