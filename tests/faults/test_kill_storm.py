"""Drill 1: processes die at random times under a full ledger. No job is lost, none has its effect twice."""

import os
import signal
import time
import urllib.request

import numpy as np

from tests.faults.crew import Crew
from tests.faults.drill import Drill, short_and_full, wait_for
from tests.faults.ground import break_ground
from tests.faults.servers import a_free_port

N_WORKERS = 4
# RELIABILITY 6.1: of the kills 60 % hit children, 25 % whole workers, 10 % the web, 5 % the sweeper.
SHARES = {"child": 0.6, "worker": 0.25, "web": 0.1, "tick": 0.05}
# A lease and a sweep, as RELIABILITY has them; the leases of configs/test.toml are shorter still.
STUCK_S = 75.0


class Storm:
    """Four workers, a tick and the web app, each replaced as soon as it was killed."""

    def __init__(self, crew: Crew, n_workers: int, with_web: bool) -> None:
        self.crew, self.port = crew, a_free_port()
        self.workers = [f"worker {n}" for n in range(n_workers)]
        for name in [*self.workers, "tick", *(["web"] if with_web else [])]:
            self.begin(name)
        self.longest_past_lease_s = 0.0

    def begin(self, name: str) -> None:
        if name == "web":
            self.crew.start(name, "--port", str(self.port), module="annotator_ui")
        else:
            self.crew.start(name, "--only-tick" if name == "tick" else "--no-tick")

    def strike(self, kind: str, rng: np.random.Generator) -> bool:
        """One kill -9; False when there is nobody of that kind at this moment."""
        if kind == "child":
            return self._kill_child(rng)
        name = str(rng.choice(self.workers)) if kind == "worker" else kind
        self.crew.kill(name)
        self.begin(name)
        return True

    def _kill_child(self, rng: np.random.Generator) -> bool:
        living = [child for name in self.workers for child in self.crew.children(name)]
        if not living:
            return False
        try:
            os.kill(int(rng.choice(living)), signal.SIGKILL)
        except ProcessLookupError:
            return False
        return True

    def look(self) -> None:
        """Notes how long an abandoned job has been waiting."""
        self.longest_past_lease_s = max(self.longest_past_lease_s, self.crew.past_lease_s())

    def web_answers(self) -> bool:
        try:
            with urllib.request.urlopen(f"http://127.0.0.1:{self.port}/healthz", timeout=5) as answer:
                return bool(answer.status == 200)
        except OSError:
            return False


def victims(drill: Drill, n_kills: int) -> list[str]:
    """What each kill hits, in random order; a short storm still has a worker and the tick in it."""
    least = {"child": 1, "worker": 1, "web": 0, "tick": 1}
    rest = {kind: max(least[kind], round(share * n_kills)) for kind, share in SHARES.items()}
    rest["child"] += n_kills - sum(rest.values())
    kinds = [kind for kind, n in rest.items() for _ in range(n)]
    return [str(kind) for kind in drill.rng.permutation(kinds)]


@short_and_full(short=0.02)
def test_kill_storm(drill: Drill, crew: Crew) -> None:
    """Kills are spread over the whole run: each waits until its share of the jobs has ended."""
    n_jobs, plan = drill.n(2000), victims(drill, drill.n(200))
    ids = crew.ask(("nap", "knead", "stroll"), n_jobs, drill.rng, queues=("cpu", "export"))
    # Without people or due work the tick would still send; with it, it also asks as in a real home.
    break_ground(crew.workspace, n_images=4, n_people=1)
    storm = Storm(crew, N_WORKERS if drill.scale > 0.1 else 1, with_web="web" in plan)
    wait_for(lambda: crew.n_open(ids) < n_jobs, 120, f"no job ended: {crew.said()}")
    n_kills = 0
    for number, kind in enumerate(plan):
        left = n_jobs * (1 - number / len(plan))
        wait_for(lambda left=left: crew.n_open(ids) <= left, 300, f"jobs stand still: {crew.said()}")
        time.sleep(float(drill.rng.uniform(0, 0.3)))
        wait_for(lambda kind=kind: storm.strike(kind, drill.rng), 60, f"nobody to kill: {kind}")
        n_kills += 1
        storm.look()
    ended_in_s = wait_for(lambda: storm.look() or not crew.n_open(ids), 300, f"stuck: {crew.said()}")
    lost, doubled = crew.n_lost_and_doubled(ids)
    drill.note("jobs", n_jobs)
    drill.note("kills", n_kills)
    drill.claim("lost", lost, 0)
    drill.claim("doubled", doubled, 0)
    drill.claim("files missing", crew.n_missing_files(), 0)
    drill.claim("longest wait past a lease in s", storm.longest_past_lease_s, STUCK_S)
    drill.note("s from the last kill to the last job", ended_in_s)
    if "web" in plan:
        wait_for(storm.web_answers, 60, "the web app does not answer after the storm")
    drill.examined(crew.workspace)
    drill.end()
