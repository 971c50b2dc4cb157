"""The gate: what serves was measured better, on enough masks, against what serves now."""

from typing import Any

import pytest
from sqlalchemy import select
from sqlalchemy.exc import IntegrityError

from engine.errors import Conflict, NotFound
from engine.pipeline.promote import activate, decide, verdict, version_named
from engine.store.evaluations import Evaluation
from engine.store.events import Event
from engine.store.model_versions import ActiveModel, Decision
from engine.store.runner import Work, commit
from engine.store.session import Workspace
from tests.factories import a_dataset, a_model_version, a_snapshot, add, digest
from tests.pipeline.conftest import rows


def figures(one: float, three: float, noc: float, n_masks: int = 60) -> dict[str, Any]:
    return {"miou": {"1": one, "3": three}, "noc": noc, "reached": 0.5, "n_masks": n_masks}


ACTIVE = figures(0.60, 0.70, 8.0)
NOTHING = {"miou": {"1": None, "3": None}, "noc": None, "reached": None, "n_masks": 0}


@pytest.mark.parametrize(
    "candidate, word, reason",
    [
        (figures(0.65, 0.74, 7.0), "promote", "better on 60 held-out masks: IoU 0.650 -> 0.695"),
        (figures(0.65, 0.74, 8.0), "promote", "clicks 8.00 -> 8.00"),
        (ACTIVE, "refuse", "not better"),
        (figures(0.601, 0.701, 7.9), "refuse", "not better"),
        (figures(0.05, 0.10, 20.0), "refuse", "not better"),
        (figures(0.70, 0.75, 8.1), "promote", "clicks 8.00 -> 8.10"),
        (figures(0.70, 0.69, 7.0), "refuse", "worse after 3 clicks"),
        (
            figures(0.90, 0.95, 2.0, n_masks=1),
            "refuse",
            "only 1 held-out masks were there to judge by; 2 are",
        ),
        (NOTHING, "refuse", "only 0 held-out masks"),
    ],
    ids=[
        "better",
        "same clicks",
        "unchanged",
        "rounding",
        "noise",
        "more clicks",
        "worse later",
        "too few",
        "none",
    ],
)
def test_verdicts(sqlite_workspace: Workspace, candidate: dict[str, Any], word: str, reason: str) -> None:
    found, sentence = verdict(candidate, ACTIVE, sqlite_workspace.settings)
    assert found == word and reason in sentence


class Gate:
    """A dataset with an active version, a candidate and the masks that judge them."""

    def __init__(self, workspace: Workspace) -> None:
        self.workspace = workspace
        with workspace.write() as session:
            self.dataset_id = a_dataset(session).id
            self.active = a_model_version(session, self.dataset_id, 1, active=True).id
            self.candidate = a_model_version(session, self.dataset_id, 2).id
            self.snapshot = a_snapshot(session, self.dataset_id, "evaluation").id

    def evaluated(self, version_id: int, found: dict[str, Any], protocol: str = "p") -> None:
        with self.workspace.write() as session:
            row = Evaluation(model_version_id=version_id, snapshot_id=self.snapshot)
            row.protocol_sha256, row.protocol, row.figures = digest(protocol), {}, found
            add(session, row)

    def decide(self) -> dict[str, Any]:
        work = Work.inline(self.workspace)
        return commit(
            self.workspace, decide(work, model_version_id=self.candidate, snapshot_id=self.snapshot)
        )

    def activate(self, version_id: int, expected_id: int | None = None) -> dict[str, Any]:
        work = Work.inline(self.workspace)
        return commit(self.workspace, activate(work, model_version_id=version_id, expected_id=expected_id))

    def active_now(self) -> int:
        return int(rows(self.workspace, select(ActiveModel.model_version_id))[0])


@pytest.fixture
def gate(workspace: Workspace) -> Gate:
    return Gate(workspace)


def test_a_decision_is_made_once_and_keeps_its_figures(gate: Gate) -> None:
    gate.evaluated(gate.active, ACTIVE)
    gate.evaluated(gate.candidate, figures(0.65, 0.74, 7.0))
    assert gate.decide() == gate.decide()
    (decision,) = rows(gate.workspace, select(Decision))
    assert decision.verdict == "promote" and decision.figures["active_id"] == gate.active
    assert decision.figures["candidate"]["noc"] == 7.0
    assert rows(gate.workspace, select(Event.kind)) == ["model.promoted"]
    # A decision promotes nothing by itself: the next images are warmed first.
    assert gate.active_now() == gate.active


def test_undecidable_without_both_evaluations_by_one_protocol(gate: Gate) -> None:
    with pytest.raises(Conflict, match="not evaluated"):
        gate.decide()
    gate.evaluated(gate.candidate, ACTIVE)
    gate.evaluated(gate.active, ACTIVE, protocol="another")
    with pytest.raises(Conflict, match="different protocols"):
        gate.decide()
    assert rows(gate.workspace, select(Decision.id)) == []


def test_the_pointer_moves_only_from_where_it_was_expected(gate: Gate) -> None:
    with pytest.raises(Conflict, match="became active meanwhile"):
        gate.activate(gate.candidate, expected_id=gate.candidate)
    assert gate.active_now() == gate.active
    assert gate.activate(gate.candidate, expected_id=gate.active) == {"active": "version-2"}
    with pytest.raises(Conflict):
        gate.activate(gate.candidate, expected_id=gate.active)
    assert gate.active_now() == gate.candidate
    (event,) = rows(gate.workspace, select(Event).where(Event.kind == "model.activated"))
    assert (event.subject_id, event.payload["before"]) == (gate.candidate, gate.active)


def test_a_person_may_go_back_to_an_older_version(gate: Gate) -> None:
    gate.activate(gate.candidate)
    gate.activate(gate.active)
    assert gate.active_now() == gate.active


def test_unknown_versions_are_named(gate: Gate) -> None:
    with pytest.raises(NotFound, match="no model version 99"):
        gate.activate(99)
    with gate.workspace.read() as session:
        assert version_named(session, gate.dataset_id, "version-2").id == gate.candidate
        with pytest.raises(NotFound, match="there are: version-1, version-2"):
            version_named(session, gate.dataset_id, "version-3")


def test_a_decision_is_never_edited(gate: Gate) -> None:
    gate.evaluated(gate.active, ACTIVE)
    gate.evaluated(gate.candidate, ACTIVE)
    gate.decide()
    with pytest.raises(IntegrityError, match="facts"), gate.workspace.write() as session:
        session.scalars(select(Decision)).one().verdict = "promote"
