"""Drill 31, second half: the newest revision arrives while people save and workers run, old code and new."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from sqlalchemy import exists, func, select, text

from engine.config import load_settings
from engine.pipeline.loop_ask import ask_for
from engine.store import session as store
from engine.store.embeddings import Embedding
from engine.store.jobs import Job
from engine.store.model_versions import ActiveModel, ModelVersion
from engine.store.session import Workspace, open_workspace
from tests import factories
from tests.faults.crew import Crew
from tests.faults.drill import Drill, full_only, short_and_full, wait_for
from tests.faults.ground import break_ground
from tests.faults.page import Saves
from tests.faults.rollout import Locks, Previous, Rollout, code_before

SAVES_PER_S, N_PEOPLE = 20, 4
EVERY_S = N_PEOPLE / SAVES_PER_S
# RELIABILITY 6.31.
LONGEST_LOCK_S = 4.0
N_ROWS, N_UPGRADES, N_JOBS = 10_000, 5, 500
MASKS_EACH = 4
N_WARM = 8
PLACES = 2
# Keys that the code before knows too.
CLOCKS: dict[str, object] = {"nice": 0, "lease_s": 30, "tick_s": 0.1, "threads": PLACES}

# The small model of tests/conftest.py, which takes no time to run.
MAKE_A_MODEL = """
import sys
from pathlib import Path
from engine.modeling import SamConfig, build_sam
from engine.modeling.checkpoint import save_checkpoint
from engine.modeling.sam_config import TinyVitConfig
encoder = TinyVitConfig((8, 8, 16, 16), (1, 1, 1, 1), (1, 1, 2, 2), (4, 4, 8, 4))
config = SamConfig("small", 128, encoder, prompt_dim=16, mlp_dim=32, iou_hidden=16)
save_checkpoint(Path(sys.argv[1]), build_sam(config, seed=0).state_dict(), config)
"""


@pytest.fixture(scope="session")
def previous(tmp_path_factory: pytest.TempPathFactory) -> Previous:
    """Unpacked once."""
    return code_before(tmp_path_factory.mktemp("previous"))


@pytest.fixture(params=["postgres", "sqlite"])
def rollout(request: pytest.FixtureRequest, previous: Previous, tmp_path: Path) -> Iterator[Rollout]:
    """An installation at the newest revision; nobody works yet. On SQLite without Redis, as `up` runs it."""
    home, broker = tmp_path / "home", "memory://"
    url = f"sqlite:///{home}/maskloop.db"
    if request.param == "postgres":
        url = request.getfixturevalue("private_database")
        broker = request.getfixturevalue("private_redis").url
    overrides: dict[str, Any] = {"database": {"url": url}, "worker": {"broker": broker} | CLOCKS}
    settings = load_settings(home, overrides)
    store.upgrade(settings)
    opened = Rollout(Crew(open_workspace(settings), overrides, tmp_path / "crew.log"), previous)
    try:
        yield opened
    finally:
        opened.crew.close()


def fill(workspace: Workspace, n_rows: int) -> list[int]:
    """People with images to draw on, beside a dataset that has as many rows; the people."""
    ground = break_ground(workspace, N_PEOPLE, N_PEOPLE)
    with workspace.write() as session:
        dataset = factories.a_dataset(session, 2)
        for n in range(n_rows // (1 + MASKS_EACH)):
            image = factories.an_image(workspace, session, dataset.id, n)
            for _ in range(MASKS_EACH):
                factories.a_mask(session, image)
    return ground.user_ids


@dataclass
class Pile:
    """Images that nobody draws on, and a model that N-1 made: each job is one embedding."""

    workspace: Workspace
    dataset_id: int
    version_id: int
    image_ids: list[int]

    def ask(self, n: int) -> list[int]:
        """The job ids of the next `n` images."""
        taken, self.image_ids = self.image_ids[:n], self.image_ids[n:]
        keys = [f"{image_id}:{self.version_id}" for image_id in taken]
        with self.workspace.write() as session:
            for image_id, key in zip(taken, keys, strict=True):
                wanted = {"image_id": image_id, "model_version_id": self.version_id}
                ask_for(session, self.workspace.settings, "embed", self.dataset_id, wanted, key)
            ours = Job.unique_key.in_(f"embed:{key}" for key in keys)
            return list(session.scalars(select(Job.id).where(ours)))

    def n_failures(self, ids: Sequence[int]) -> int:
        """Jobs that are not done, needed a second attempt, or left no embedding."""
        image_id = Job.arguments["image_id"].as_integer()
        embedded = exists().where(
            Embedding.image_id == image_id, Embedding.model_version_id == self.version_id
        )
        well = select(func.count()).where(Job.id.in_(ids), Job.state == "done", Job.attempt == 1, embedded)
        with self.workspace.read() as session:
            return len(ids) - (session.scalar(well) or 0)


def pile_up(workspace: Workspace, previous: Previous, n_images: int) -> Pile:
    """No stage is open there, so the loop asks for nothing of its own."""
    file = previous.code / "small.safetensors"
    made = [sys.executable, "-c", MAKE_A_MODEL, str(file)]
    subprocess.run(made, cwd=previous.code, check=True, timeout=120)
    weights, decoder = workspace.blobs.put(file.read_bytes()), workspace.blobs.put(b"decoder of nobody")
    with workspace.write() as session:
        dataset = factories.a_dataset(session, 3)
        version = ModelVersion(dataset_id=dataset.id, name="small", architecture="tiny", config={})
        version.weights_sha256, version.decoder_sha256 = weights, decoder
        factories.add(session, version)
        session.add(ActiveModel(dataset_id=dataset.id, model_version_id=version.id))
        images = [factories.an_image(workspace, session, dataset.id, n).id for n in range(n_images)]
        return Pile(workspace, dataset.id, version.id, images)


def claim_saved(drill: Drill, saves: Saves, workspace: Workspace) -> None:
    """What RELIABILITY 6.31 asks of saves; how often it took a second try is a note."""
    drill.note("saves", len(saves.saved_in_s))
    drill.note("saves per s", len(saves.saved_in_s) / saves.lasted_s)
    drill.note("sent again", saves.n_sent_again)
    drill.claim("saves failed after retry", len(saves.failed), 0)
    drill.missed += saves.failed[:3]
    drill.claim("acknowledged saves not kept", saves.journal.n_not_kept(workspace), 0)
    drill.note("slowest save in s", max(saves.saved_in_s))


@short_and_full(short=0.02)
def test_upgrade_under_saves(drill: Drill, rollout: Rollout) -> None:
    """Each time the code before serves, and goes on serving after `maskloop db upgrade`."""
    workspace = rollout.crew.workspace
    user_ids = fill(workspace, drill.n(N_ROWS))
    calm_s = 3.0 if drill.scale > 0.1 else 0.6
    said, n_upgrades, saves = list[str](), drill.n(N_UPGRADES), Saves()
    rollout.go_back()
    rollout.start_web("N-1")
    rollout.serve_by("N-1")
    with Locks(workspace.settings.database.url) as locks:
        for number in range(n_upgrades):
            if number:
                rollout.go_back()
            with rollout.people(user_ids, "dataset-1", EVERY_S, saves):
                time.sleep(calm_s)
                said.append(rollout.upgrade())
                time.sleep(calm_s)
    drill.note("rows", drill.n(N_ROWS))
    drill.note("upgrades", n_upgrades)
    drill.claim("upgrades failed", sum(map(bool, said)), 0)
    drill.missed += filter(None, said)
    drill.claim("longest lock in s", locks.longest_s, LONGEST_LOCK_S)
    claim_saved(drill, saves, workspace)
    drill.examined(workspace)
    drill.end()


@full_only()
def test_rolling_upgrade(drill: Drill, rollout: Rollout) -> None:
    """docs/deploying.md, "Upgrading": the database first, then the page, then the workers; people save on."""
    workspace, n_jobs, saves = rollout.crew.workspace, drill.n(N_JOBS), Saves()
    user_ids = fill(workspace, drill.n(N_ROWS))
    pile = pile_up(workspace, rollout.previous, 2 * n_jobs + N_WARM)
    warm = pile.ask(N_WARM)
    rollout.go_back()
    n_begun = sum(not rollout.refuses("N", module) for module in ("workers", "annotator_ui"))
    rollout.start_web("N-1")
    rollout.serve_by("N-1")
    rollout.start_worker("N-1")
    with Locks(workspace.settings.database.url) as locks:
        with rollout.people(user_ids, "dataset-1", EVERY_S, saves):
            # In this N-1 a forked child that runs its first job after the upgrade would refuse the database.
            wait_for(lambda: n_done(workspace) == len(warm), 120, f"no job ends: {rollout.crew.said()}")
            said = rollout.upgrade()
            assert not said, said
            n_begun += sum(not rollout.refuses("N-1", module) for module in ("workers", "annotator_ui"))
            rollout.start_web("N")
            rollout.serve_by("N")
            by_old = pile.ask(n_jobs)
            wait_for(lambda: not rollout.crew.n_open(by_old), 400, f"jobs left: {rollout.crew.said()}")
            rollout.stop("N-1 worker")
            rollout.serve_by("N-1")
            rollout.start_worker("N")
            by_new = pile.ask(n_jobs)
            wait_for(lambda: not rollout.crew.n_open(by_new), 400, f"jobs left: {rollout.crew.said()}")
            rollout.serve_by("N")
            rollout.stop("N-1 web")
            time.sleep(1.0)
    drill.note("jobs each", n_jobs)
    drill.claim("jobs failed by N-1 workers with N web", pile.n_failures(by_old), 0)
    drill.claim("jobs failed by N workers with N-1 web", pile.n_failures(by_new), 0)
    drill.claim("processes that began on another revision", n_begun, 0)
    drill.claim("longest lock in s", locks.longest_s, LONGEST_LOCK_S)
    claim_saved(drill, saves, workspace)
    drill.examined(workspace)
    drill.end()


def n_done(workspace: Workspace) -> int:
    """Jobs that ended well; as a bare column, since the database may be at either revision."""
    with workspace.read() as session:
        return int(session.execute(text("SELECT count(*) FROM jobs WHERE state = 'done'")).scalar_one())


def test_children_begun_after_an_upgrade_work_on(crew: Crew) -> None:
    """Workers of this code on a database that a later version has upgraded; nothing may have to be warm."""
    crew.start("worker")
    wait_for(
        lambda: len(crew.children("worker")) >= PLACES and "worker ready" in crew.said(), 60, crew.said()
    )
    with crew.workspace.write() as session:
        session.execute(text("UPDATE alembic_version SET version_num = 'later'"))
    ids = crew.ask(("nap",), 4, np.random.default_rng(0))
    wait_for(lambda: not crew.n_open(ids), 60, f"children refuse: {crew.said()}")
    for child in crew.children("worker"):
        os.kill(child, signal.SIGKILL)
    ids += crew.ask(("nap",), 4, np.random.default_rng(0))
    wait_for(lambda: not crew.n_open(ids), 60, f"new children refuse: {crew.said()}")
    assert crew.n_lost_and_doubled(ids) == (0, 0)
