"""Drill 26: 64 people claim, lose, return and save at once. Never two live leases; no save is lost."""

import threading
import time
from dataclasses import dataclass, field

import numpy as np
import pytest
from sqlalchemy import select

from engine.errors import Conflict
from engine.pipeline import annotate, assign
from engine.store.assignments import Assignment
from engine.store.events import Event
from engine.store.session import Workspace
from tests.faults.drill import Drill, full_only
from tests.faults.ground import Ground, Journal, act, break_ground, expire, insist

N_CLIENTS = 64
N_IMAGES = 40


@dataclass
class Crowd:
    """What all clients share: the ground, what they were told, and how many acts are left to do."""

    workspace: Workspace
    ground: Ground
    n_wanted: int
    journal: Journal = field(default_factory=Journal)
    n_claims: int = 0
    n_expiries: int = 0
    n_returns: int = 0
    n_after_expiry: int = 0
    lost: list[str] = field(default_factory=list)
    turn: threading.Lock = field(default_factory=threading.Lock)

    @property
    def is_done(self) -> bool:
        return self.n_claims + self.n_expiries + self.n_returns >= self.n_wanted

    def count(self, what: str) -> None:
        with self.turn:
            setattr(self, what, getattr(self, what) + 1)


class Client(threading.Thread):
    """One person: claims, saves or not, lets the lease run out or gives the image back, saves late."""

    def __init__(self, crowd: Crowd, user_id: int, seed: int) -> None:
        super().__init__(name=f"person {user_id}", daemon=True)
        self.crowd, self.user_id, self.rng = crowd, user_id, np.random.default_rng((seed, user_id))
        self.error: Exception | None = None
        self.n_saves = 0

    def run(self) -> None:
        """Until the crowd has done its acts."""
        try:
            while not self.crowd.is_done:
                self.visit()
        except Exception as error:
            self.error = error

    def visit(self) -> None:
        """One image, from the claim to its end."""
        lent = insist(self.claim)
        if lent is None:
            time.sleep(0.05)
            return
        self.crowd.count("n_claims")
        if self.rng.random() < 0.3:
            insist(lambda: self.save(lent))
        if self.rng.random() < 0.4:
            insist(lambda: self.run_out(lent))
            time.sleep(float(self.rng.uniform(0, 0.2)))
            if self.rng.random() < 0.5:
                insist(lambda: self.save(lent))
                self.crowd.count("n_after_expiry")
        insist(lambda: self.give_back(lent))

    def claim(self) -> Assignment | None:
        with self.crowd.workspace.write() as session:
            settings, dataset_id = self.crowd.workspace.settings, self.crowd.ground.dataset_id
            found = assign.next_assignment(session, settings, dataset_id, self.user_id)
        return found if isinstance(found, Assignment) else None

    def save(self, lent: Assignment) -> None:
        client_id = f"drill-{lent.id}-{self.n_saves:06}"
        workspace = self.crowd.workspace
        try:
            with workspace.write() as session:
                mask, _ = annotate.accept(session, workspace.settings, self.user_id, act(lent, client_id))
        except Conflict as error:
            self.crowd.lost.append(f"{client_id}: {error}")
            return
        self.n_saves += 1
        self.crowd.journal.note(client_id, mask.id)

    def run_out(self, lent: Assignment) -> None:
        with self.crowd.workspace.write() as session:
            expire(session, lent.id)
        self.crowd.count("n_expiries")

    def give_back(self, lent: Assignment) -> None:
        try:
            with self.crowd.workspace.write() as session:
                assign.release(session, self.crowd.workspace.settings, lent.id, self.user_id)
        except Conflict:
            # Somebody else has the image by now: there is nothing to give back.
            return
        self.crowd.count("n_returns")


def had_run_out(lease: Assignment) -> bool:
    return lease.state == "expired" and lease.ended_at is not None and lease.lease_until <= lease.ended_at


def early_stamps_s(workspace: Workspace) -> list[float]:
    """Seconds by which a lease's `opened_at` lies before the end of the lease before it, where it does."""
    with workspace.read() as session:
        history = list(session.scalars(select(Assignment).order_by(Assignment.opened_at, Assignment.id)))
    found: list[float] = []
    last: dict[tuple[int, str], Assignment] = {}
    for lease in history:
        before = last.get((lease.image_id, lease.stage))
        if before is not None:
            live_until = min(before.lease_until, before.ended_at or before.lease_until)
            found.append((live_until - lease.opened_at).total_seconds())
        last[(lease.image_id, lease.stage)] = lease
    return [seconds for seconds in found if seconds > 0]


def live_pairs(workspace: Workspace) -> int:
    """How often an image was lent while an earlier lease on it in that stage still lived.

    Told from the order of the events, which are numbered as the acts take hold; times alone do not tell, as
    a claim is stamped before it waits for others. A lease that was ended for the next person, which leaves
    no event, must have run out by then.
    """
    lent_to = select(Event.kind, Assignment).join(Assignment, Assignment.id == Event.subject_id)
    n, open_now = 0, {}
    with workspace.read() as session:
        acts = lent_to.where(Event.kind.startswith("assignment."))
        history = session.execute(acts.order_by(Event.id)).all()
    for kind, lease in history:
        place = (lease.image_id, lease.stage)
        if kind == "assignment.opened":
            before = open_now.get(place)
            n += before is not None and not had_run_out(before)
            open_now[place] = lease
        elif open_now.get(place) is lease:
            del open_now[place]
    return n


@full_only()
@pytest.mark.parametrize("either_workspace", ["postgres", "sqlite"], indirect=True)
def test_leases(drill: Drill, either_workspace: Workspace) -> None:
    workspace = either_workspace
    ground = break_ground(workspace, N_IMAGES, N_CLIENTS)
    crowd = Crowd(workspace, ground, drill.n(20_000))
    clients = [Client(crowd, user_id, drill.seed) for user_id in ground.user_ids]
    for client in clients:
        client.start()
    for client in clients:
        client.join()
    errors = [client.error for client in clients if client.error is not None]
    drill.note("claims", crowd.n_claims)
    drill.note("expiries", crowd.n_expiries)
    drill.note("returns", crowd.n_returns)
    drill.note("saves", len(crowd.journal.saved))
    drill.note("of them after an expiry", crowd.n_after_expiry)
    drill.claim("pairs of live leases", live_pairs(workspace), 0)
    early_s = early_stamps_s(workspace)
    drill.note("leases stamped before the one before had ended", len(early_s))
    drill.note("by s at most", max(early_s, default=0.0))
    drill.claim("saves refused", len(crowd.lost), 0)
    drill.claim("acknowledged saves not kept", crowd.journal.n_not_kept(workspace), 0)
    drill.claim("other errors", len(errors), 0)
    drill.missed += [*crowd.lost[:3], *(repr(error) for error in errors[:3])]
    drill.examined(workspace)
    drill.end()
