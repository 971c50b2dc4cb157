"""Any order of asks, claims, beats, deaths and ends: the ledger always agrees with a model of a few lines.

The model is the contract of DESIGN section 5; hypothesis shrinks a disagreement to its shortest story.
"""

from dataclasses import dataclass, replace
from typing import Any, ClassVar

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    Bundle,
    RuleBasedStateMachine,
    invariant,
    multiple,
    rule,
    run_state_machine_as_test,
)
from sqlalchemy import delete, func, select

from engine.errors import Conflict
from engine.store import jobs
from engine.store.events import Event, record_event
from engine.store.jobs import Claim, ClaimLost, Job
from engine.store.session import Workspace
from tests.store.test_jobs import LEASE_S, expire

MAX_ATTEMPTS = 2


@dataclass
class Expected:
    """What the ledger must say about one job."""

    state: str = "queued"
    attempt: int = 0
    max_attempts: int = MAX_ATTEMPTS
    is_due: bool = True
    cancel_requested: bool = False
    n_effects: int = 0

    def holds(self, claim: Claim) -> bool:
        return self.state == "running" and self.attempt == claim.attempt


class Ledger(RuleBasedStateMachine):
    """The ledger beside the model of it; `machine` says over which self.workspace."""

    workspace: ClassVar[Workspace]
    asked, claims = Bundle("asked"), Bundle("claims")

    def __init__(self) -> None:
        super().__init__()
        self.expected: dict[int, Expected] = {}
        with self.workspace.write() as session:
            session.execute(delete(Job))
            self.n_before = session.scalar(select(func.max(Event.id))) or 0

    @rule(target=asked, key=st.integers(1, 3))
    def ask(self, key: int) -> int:
        with self.workspace.write() as session:
            job_id = jobs.ask(session, "embed", {}, f"key:{key}", max_attempts=MAX_ATTEMPTS).id
        self.expected.setdefault(job_id, Expected())
        return job_id

    @rule(target=claims, job_id=asked)
    def claim(self, job_id: int) -> Any:
        job = self.expected[job_id]
        with self.workspace.write() as session:
            claim = jobs.claim(session, job_id, "one", LEASE_S)
        if not job.is_due:
            assert claim is None
            return multiple()
        if job.cancel_requested or job.attempt >= job.max_attempts:
            assert claim is None
            self.end(job_id, "cancelled" if job.cancel_requested else "failed")
            return multiple()
        assert claim is not None and claim.attempt == job.attempt + 1
        self.change(job_id, state="running", attempt=claim.attempt, is_due=False)
        return claim

    @rule(job_id=asked)
    def time_passes(self, job_id: int) -> None:
        expire(self.workspace, job_id)
        if self.expected[job_id].state in ("queued", "running"):
            self.change(job_id, is_due=True)

    @rule(claim=claims)
    def beat(self, claim: Claim) -> None:
        job = self.expected[claim.job_id]
        with self.workspace.write() as session:
            beat = jobs.heartbeat(session, claim, LEASE_S)
        assert beat.kept == job.holds(claim)
        if beat.kept:
            assert beat.cancel_requested == job.cancel_requested
            self.change(claim.job_id, is_due=False)

    @rule(claim=claims, verb=st.sampled_from(["finish", "fail", "try later", "give back", "cancelled"]))
    def end_attempt(self, claim: Claim, verb: str) -> None:
        job = self.expected[claim.job_id]
        try:
            with self.workspace.write() as session:
                record_event(session, "effect", subject_id=claim.job_id)
                session.flush()
                write_end(session, claim, verb)
        except ClaimLost:
            assert not job.holds(claim)
            return
        assert job.holds(claim)
        self.change(claim.job_id, n_effects=job.n_effects + 1)
        if verb == "give back":
            self.change(claim.job_id, state="queued", is_due=True, max_attempts=job.max_attempts + 1)
        elif verb == "try later" and job.attempt < job.max_attempts:
            self.change(claim.job_id, state="queued", is_due=False)
        else:
            ends = {"finish": "done", "cancelled": "cancelled"}
            self.end(claim.job_id, ends.get(verb, "failed"))

    @rule(job_id=asked)
    def cancel(self, job_id: int) -> None:
        state = self.expected[job_id].state
        try:
            with self.workspace.write() as session:
                jobs.request_cancel(session, job_id)
        except Conflict:
            assert state in ("done", "failed", "cancelled")
            return
        assert state in ("queued", "running")
        self.change(job_id, cancel_requested=True)
        if state == "queued":
            self.end(job_id, "cancelled")

    @rule(job_id=asked)
    def retry(self, job_id: int) -> None:
        job = self.expected[job_id]
        try:
            with self.workspace.write() as session:
                jobs.retry(session, job_id, attempts=MAX_ATTEMPTS)
        except Conflict:
            assert job.state not in ("failed", "cancelled")
            return
        assert job.state in ("failed", "cancelled")
        again = job.attempt + MAX_ATTEMPTS
        self.change(job_id, state="queued", is_due=True, cancel_requested=False, max_attempts=again)

    @invariant()
    def the_ledger_agrees(self) -> None:
        with self.workspace.read() as session:
            rows = session.scalars(select(Job)).all()
            due = set(jobs.due_ids(session))
            effects = select(Event.subject_id, func.count()).where(Event.id > self.n_before)
            n_effects: dict[int | None, int] = dict(
                map(tuple, session.execute(effects.group_by(Event.subject_id)))
            )
        found = {
            row.id: Expected(
                row.state,
                row.attempt,
                row.max_attempts,
                row.id in due,
                row.cancel_requested,
                n_effects.get(row.id, 0),
            )
            for row in rows
        }
        assert found == self.expected

    def change(self, job_id: int, **fields: Any) -> None:
        self.expected[job_id] = replace(self.expected[job_id], **fields)

    def end(self, job_id: int, state: str) -> None:
        self.change(job_id, state=state, is_due=False)


def machine(workspace: Workspace) -> type[RuleBasedStateMachine]:
    """The state machine over that workspace; each story begins with an empty ledger."""
    return type("LedgerHere", (Ledger,), {"workspace": workspace})


def write_end(session: Any, claim: Claim, verb: str) -> None:
    if verb == "finish":
        jobs.finish(session, claim, {})
    elif verb == "cancelled":
        jobs.cancel_done(session, claim)
    elif verb == "give back":
        jobs.give_back(session, claim)
    else:
        jobs.fail(session, claim, verb, retry_in_s=600 if verb == "try later" else None)


def tell_stories(workspace: Workspace, n: int) -> None:
    checks = [HealthCheck.too_slow, HealthCheck.function_scoped_fixture]
    plan = settings(max_examples=n, stateful_step_count=25, deadline=None, suppress_health_check=checks)
    run_state_machine_as_test(machine(workspace), settings=plan)


def test_the_ledger_agrees_with_its_model_in_any_order(workspace: Workspace) -> None:
    tell_stories(workspace, n=15)


@pytest.mark.slow
def test_the_ledger_agrees_with_its_model_in_many_orders(workspace: Workspace) -> None:
    tell_stories(workspace, n=200)
