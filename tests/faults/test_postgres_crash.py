"""Drill 3: Postgres stops at once, again and again, while people save. What was acknowledged is there."""

import threading
import time

from engine.store.session import Workspace
from tests.faults.drill import Drill, short_and_full, wait_for
from tests.faults.ground import Journal, break_ground, keep_saving, lend
from tests.faults.servers import PrivatePostgres

SAVES_PER_S = 40
N_PEOPLE = 8
CALM_S = 6.0


@short_and_full(short=1 / 15)
def test_postgres_crash(drill: Drill, drill_workspace: Workspace, private_postgres: PrivatePostgres) -> None:
    """The client journal is compared with the database; a save without an answer is sent again."""
    ground = break_ground(drill_workspace, N_PEOPLE, N_PEOPLE)
    journal, stopped = Journal(), threading.Event()
    every_s = N_PEOPLE / SAVES_PER_S
    clients = [
        threading.Thread(target=keep_saving, args=(drill_workspace, lent, journal, every_s, stopped))
        for lent in [lend(drill_workspace, ground, user_id) for user_id in ground.user_ids]
    ]
    began, n_crashes, recovered_in_s, down_s = time.monotonic(), drill.n(15), [0.0], 0.0
    for client in clients:
        client.start()
    calm_s = CALM_S if drill.scale > 0.1 else 1.0
    try:
        for _ in range(n_crashes):
            n_before = len(journal.saved)
            wait_for(lambda n=n_before: len(journal.saved) > n, 60, f"nobody saves: {journal.troubles}")
            time.sleep(float(drill.rng.uniform(0.5, 1.5)) * calm_s)
            crashed_at = time.monotonic()
            private_postgres.crash()
            private_postgres.start()
            back_at = time.monotonic()
            down_s += back_at - crashed_at
            wait_for(lambda at=back_at: journal.first_after(at) is not None, 60, f"{journal.troubles}")
            recovered_in_s.append(journal.first_after(back_at) or 0.0)
        time.sleep(calm_s)
    finally:
        stopped.set()
        for client in clients:
            client.join()
    up_s = time.monotonic() - began - down_s
    unexpected = sum(journal.troubles.values()) - journal.n_refused
    drill.note("stops", n_crashes)
    drill.note("saves", len(journal.saved))
    drill.note("saves per s while up", len(journal.saved) / up_s)
    drill.note("saves sent again", journal.n_refused)
    drill.claim("acknowledged saves not kept", journal.n_not_kept(drill_workspace), 0)
    drill.claim("answers other than yes or try again", unexpected, 0)
    drill.claim("slowest recovery in s", max(recovered_in_s), 10)
    drill.examined(drill_workspace)
    drill.end()
    assert not unexpected, journal.troubles
