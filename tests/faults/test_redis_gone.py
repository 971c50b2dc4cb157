"""Drill 2: Redis is killed, emptied and away for minutes. Messages are lost; jobs and saves are not."""

import threading
import time

from tests.faults.crew import Crew
from tests.faults.drill import Drill, short_and_full, wait_for
from tests.faults.ground import Journal, break_ground, keep_saving, lend
from tests.faults.servers import PrivateRedis

AWAY_S = 300.0


def troubles(drill: Drill, n_kills: int, n_flushes: int) -> list[str]:
    """Kills and flushes in random order."""
    return [str(kind) for kind in drill.rng.permutation(["kill"] * n_kills + ["flush"] * n_flushes)]


@short_and_full(short=0.05)
def test_redis_gone(drill: Drill, crew: Crew, private_redis: PrivateRedis) -> None:
    ground = break_ground(crew.workspace, n_images=2, n_people=1)
    lent, journal, stopped = lend(crew.workspace, ground, ground.user_ids[0]), Journal(), threading.Event()
    saving = threading.Thread(target=keep_saving, args=(crew.workspace, lent, journal, 0.2, stopped))
    saving.start()
    try:
        n_jobs, plan = drill.n(500), troubles(drill, drill.n(20), drill.n(10))
        ids = crew.ask(("nap", "knead"), n_jobs, drill.rng)
        crew.start("worker")
        if drill.scale > 0.1:
            crew.start("other worker", "--no-tick")
        wait_for(lambda: crew.n_open(ids) < n_jobs, 120, f"no job ended: {crew.said()}")
        for number, kind in enumerate(plan):
            left = n_jobs * (1 - number / (len(plan) + 1))
            wait_for(lambda left=left: crew.n_open(ids) <= left, 300, f"jobs stand still: {crew.said()}")
            if kind == "flush":
                private_redis.client().flushall()
            else:
                private_redis.crash()
                private_redis.start()
        away_s = max(2.0, AWAY_S * drill.scale * (drill.scale > 0.1))
        private_redis.crash()
        # What is asked while nobody carries messages has to run once somebody does.
        ids += crew.ask(("nap",), drill.n(50), drill.rng)
        time.sleep(away_s)
        private_redis.start()
        recovered_in_s = wait_for(lambda: not crew.n_open(ids), 300, f"jobs left: {crew.said()}")
    finally:
        stopped.set()
        saving.join()
    lost, doubled = crew.n_lost_and_doubled(ids)
    drill.note("jobs", len(ids))
    drill.note("kills and flushes", len(plan))
    drill.note("s away", away_s)
    drill.claim("lost", lost, 0)
    drill.claim("doubled", doubled, 0)
    drill.note("s from Redis' return to the last job", recovered_in_s)
    drill.note("saves meanwhile", len(journal.saved))
    drill.claim("saves refused", journal.n_refused + sum(journal.troubles.values()), 0)
    drill.claim("acknowledged saves not kept", journal.n_not_kept(crew.workspace), 0)
    drill.examined(crew.workspace)
    drill.end()
