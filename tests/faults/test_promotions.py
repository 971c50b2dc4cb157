"""Five promotions under people at work: the next image is ready, an open one stays as it is, old ones go."""

import threading
import time
from dataclasses import dataclass, field, replace
from datetime import datetime
from pathlib import Path

import numpy as np
import torch
from sqlalchemy import func, select
from sqlalchemy.orm import Session

from engine.errors import MaskloopError
from engine.modeling.checkpoint import save_checkpoint
from engine.modeling.embedding_file import read_embedding
from engine.modeling.registry import build_sam
from engine.modeling.sam_config import CONFIGS, SamConfig
from engine.pipeline import annotate, assign, predict
from engine.pipeline.assign import Waiting
from engine.pipeline.snapshot import freeze_round
from engine.store.assignments import Assignment
from engine.store.embeddings import Embedding
from engine.store.images import Image, ImageProgress
from engine.store.jobs import Job
from engine.store.model_versions import ActiveModel, Decision, ModelVersion
from engine.store.runner import Work
from engine.store.session import Workspace
from tests import factories
from tests.faults.crew import Crew
from tests.faults.drill import Drill, full_only, wait_for
from tests.faults.ground import STAGE, act, insist

# The bundled layout at half its side: a real encoder, 35 ms an image on one core.
CONFIG = replace(CONFIGS["tiny"], img_size=256)
N_IMAGES, N_PROMOTIONS = 1000, 5
# As by default; the homes of tests keep fewer images ready, and look for due work far more often.
AHEAD, TICK_S = 8, 2.0
# Together they finish 1.6 images a second; a machine that embeds twice as many keeps up with two versions.
# Most people take seconds for an image. Two keep one open through a whole promotion, the minute after it in
# which nothing of the version before is collected, and the collecting.
N_FAST, FAST_S = 8, (4.0, 6.0)
N_SLOW, SLOW_S = 2, (90.0, 120.0)
LOOK_AGAIN_S = 1.0
# A page that has to wait asks again when it was told to; at the end images come back sooner than that.
LONGEST_WAIT_S = 2.0
COLLECT_EVERY_S = 5.0
# Who misses an image so soon after a switch misses it for the switch.
JUST_SWITCHED_S = 10.0
WINDOW = 1000


@dataclass
class Tally:
    """What the people met with: `hits` in order, one for each time somebody asked for the next image."""

    hits: list[bool] = field(default_factory=list)
    missed_at: list[float] = field(default_factory=list)
    n_looks: int = 0
    reloads: list[str] = field(default_factory=list)
    held_s: list[float] = field(default_factory=list)

    def miss(self) -> None:
        """Somebody has to wait."""
        self.hits.append(False)
        self.missed_at.append(time.monotonic())

    def n_missed_after(self, moments: list[float]) -> int:
        """How many had to wait just after one of these moments."""
        return sum(any(0 <= at - moment < JUST_SWITCHED_S for moment in moments) for at in self.missed_at)

    def worst_share(self) -> float:
        """The lowest hit rate of any 1,000 requests that follow each other."""
        hits = np.asarray(self.hits, np.float64)
        size = min(WINDOW, len(hits))
        return float(np.convolve(hits, np.ones(size), "valid").min() / size)


class Person(threading.Thread):
    """Takes an image, looks at it again and again as a page does that is reloaded, saves a mask, submits."""

    def __init__(self, crew: Crew, dataset_id: int, user_id: int, tally: Tally, hold_s: tuple[float, float]):
        super().__init__(name=f"person {user_id}", daemon=True)
        self.workspace, self.dataset_id, self.user_id = crew.workspace, dataset_id, user_id
        self.tally, self.hold_s, self.rng = tally, hold_s, np.random.default_rng(user_id)
        self.error: Exception | None = None

    def run(self) -> None:
        """Until every image is done."""
        try:
            while (found := insist(self.next_image)) is not None:
                if isinstance(found, Waiting):
                    time.sleep(min(found.retry_after_s or 0.0, LONGEST_WAIT_S))
                else:
                    self.work_on(found)
        except Exception as error:
            self.error = error

    def next_image(self) -> Assignment | Waiting | None:
        """The request that the drill is about; None when all is done."""
        found = self.asked()
        if isinstance(found, Assignment) and self.reads(found):
            self.tally.hits.append(True)
        elif isinstance(found, Assignment) or "being prepared" in found.reason:
            self.tally.miss()
        elif found.retry_after_s is None:
            return None
        return found

    def work_on(self, lent: Assignment) -> None:
        began = time.monotonic()
        end = began + self.rng.uniform(*self.hold_s)
        while (left_s := end - time.monotonic()) > 0:
            time.sleep(min(LOOK_AGAIN_S, left_s))
            insist(lambda: self.look_again(lent))
        insist(lambda: self.save_and_submit(lent))
        self.tally.held_s.append(time.monotonic() - began)

    def look_again(self, lent: Assignment) -> None:
        """The image must be the same one, under the same version, and its embedding there."""
        again = self.asked()
        self.tally.n_looks += 1
        same = isinstance(again, Assignment) and (again.id, again.model_version_id) == (
            lent.id,
            lent.model_version_id,
        )
        if not same or not self.reads(lent):
            self.tally.reloads.append(f"lease {lent.id} of version {lent.model_version_id}: {again}")

    def save_and_submit(self, lent: Assignment) -> None:
        settings = self.workspace.settings
        with self.workspace.write() as session:
            annotate.accept(session, settings, self.user_id, act(lent, f"promotion-{lent.id:06}"))
            assign.submit(session, settings, lent.id, self.user_id)

    def asked(self) -> Assignment | Waiting:
        with self.workspace.write() as session:
            return assign.next_assignment(session, self.workspace.settings, self.dataset_id, self.user_id)

    def reads(self, lent: Assignment) -> bool:
        """Whether the embedding that the page would read is there, and of the lease's own version."""
        try:
            with self.workspace.read() as session:
                ground = predict.ground_of(session, lent.image_id, lent.model_version_id)
            path = self.workspace.blobs.local_path(ground.embedding_sha256)
            read_embedding(path, weights_sha256=ground.weights_sha256)
        except MaskloopError:
            return False
        return True


@dataclass(frozen=True)
class Line:
    """A dataset whose stage is open, people, and the weights of versions that are promoted one by one."""

    workspace: Workspace
    dataset_id: int
    user_ids: list[int]
    weights: list[str]
    decoder: str

    def add_version(self, session: Session, number: int, **parents: int) -> ModelVersion:
        """The row of that number in the line; its parents are those of a training."""
        row = ModelVersion(dataset_id=self.dataset_id, name=f"v{number + 1}", architecture=CONFIG.name)
        row.config, row.decoder_sha256 = CONFIG.to_dict(), self.decoder
        row.weights_sha256, row.snapshot_id = self.weights[number], parents.get("snapshot_id")
        row.parent_id = parents.get("parent_id")
        session.add(row)
        session.flush()
        return row

    def promote(self, number: int) -> int:
        """A candidate as a round leaves it once the gate has said yes; the loop does all that follows."""
        freeze = freeze_round(Work.inline(self.workspace), dataset_id=self.dataset_id, number=number)
        with self.workspace.write() as session:
            active = session.get_one(ActiveModel, self.dataset_id).model_version_id
            parents = {"snapshot_id": freeze(session)["training"], "parent_id": active}
            candidate = self.add_version(session, number, **parents)
            decision = Decision(model_version_id=candidate.id, verdict="promote", reason="of the drill")
            decision.figures = {"active_id": active}
            session.add(decision)
            return candidate.id

    def active(self) -> tuple[int, datetime]:
        with self.workspace.read() as session:
            row = session.get_one(ActiveModel, self.dataset_id)
            return row.model_version_id, row.activated_at

    def n_done(self) -> int:
        with self.workspace.read() as session:
            return session.scalar(select(func.count()).select_from(ImageProgress)) or 0

    def n_embedded(self) -> int:
        with self.workspace.read() as session:
            return session.scalar(select(func.count()).select_from(Embedding)) or 0

    def most_of_a_version(self) -> int:
        """Bytes of the version that has most on disk now."""
        sums = select(func.sum(Embedding.n_bytes)).group_by(Embedding.model_version_id)
        with self.workspace.read() as session:
            return max((int(n_bytes) for n_bytes in session.scalars(sums)), default=0)

    def bytes_on_disk(self) -> int:
        """All files that are no picture, no weights, no decoder: embeddings, named by a row or not."""
        with self.workspace.read() as session:
            others = {*session.scalars(select(Image.pixels_sha256)), *self.weights, self.decoder}
        return sum(file.n_bytes for file in self.workspace.blobs.files() if file.name not in others)

    def has_collected(self, since: datetime) -> bool:
        """Whether a collecting that began after that moment has ended."""
        ended = (Job.kind == "collect") & (Job.state == "done") & (Job.started_at > since)
        with self.workspace.read() as session:
            return session.scalar(select(Job.id).where(ended).limit(1)) is not None


def a_line(workspace: Workspace, folder: Path, n_images: int) -> Line:
    """All images train, so that no round begins by itself. The first version serves."""
    weights = [workspace.blobs.put(perturbed(CONFIG, n, folder)) for n in range(N_PROMOTIONS + 1)]
    decoder = workspace.blobs.put(b"decoder of a drill")
    with workspace.write() as session:
        dataset = factories.a_dataset(session, open_stage=STAGE)
        for n in range(n_images):
            factories.an_image(workspace, session, dataset.id, n)
        people = [factories.a_user(session, n).id for n in range(N_FAST + N_SLOW)]
        line = Line(workspace, dataset.id, people, weights, decoder)
        first = line.add_version(session, 0)
        session.add(ActiveModel(dataset_id=dataset.id, model_version_id=first.id))
    return line


def perturbed(config: SamConfig, number: int, folder: Path) -> bytes:
    """Weights as a short training might leave them: the first one's, a little moved."""
    state = build_sam(config, seed=0).state_dict()
    generator = torch.Generator().manual_seed(number)
    for tensor in state.values():
        if tensor.is_floating_point():
            tensor += number * 1e-4 * torch.randn(tensor.shape, generator=generator)
    return save_checkpoint(folder / f"v{number + 1}.safetensors", state, config).read_bytes()


@full_only()
def test_promotions(drill: Drill, crew: Crew, tmp_path: Path) -> None:
    """Issue 3: five promotions over 1,000 small images while people work, by the real worker and tick.

    Every image is embedded once, by the version that serves when it is handed out; of each candidate also the
    head of the queue, before it serves. A request is: ask for the next image, read its embedding.
    """
    crew.overrides["embed"] = {"ahead": AHEAD}
    crew.overrides["gc"] = {"every_s": COLLECT_EVERY_S}
    crew.overrides["worker"]["tick_s"] = TICK_S
    n_images, tally = drill.n(N_IMAGES, least=60), Tally()
    line = a_line(crew.workspace, tmp_path, n_images)
    crew.start("tick", "--only-tick", module="workers")
    crew.start("worker", "--no-tick", module="workers")
    wait_for(lambda: line.n_embedded() == AHEAD, 120, f"nothing is embedded: {crew.said()}")
    people = [
        Person(crew, line.dataset_id, user_id, tally, FAST_S if n < N_FAST else SLOW_S)
        for n, user_id in enumerate(line.user_ids)
    ]
    for person in people:
        # They come one after the other: what is kept ready grows with every open image.
        person.start()
        time.sleep(LOOK_AGAIN_S)
    one_version, on_disk, switches = [], [], []
    for number in range(1, N_PROMOTIONS + 1):
        part = number * n_images // (N_PROMOTIONS + 1)
        wait_for(lambda part=part: line.n_done() >= part, 600, f"people are stuck: {crew.said()}")
        one_version.append(line.most_of_a_version())
        candidate = line.promote(number)
        wait_for(lambda id=candidate: line.active()[0] == id, 120, f"not switched: {crew.said()}")
        switches.append(time.monotonic())
        switched_at = line.active()[1]
        wait_for(lambda at=switched_at: line.has_collected(at), 60, f"not collected: {crew.said()}")
        on_disk.append(line.bytes_on_disk())
    for person in people:
        person.join()
    one_version.append(line.most_of_a_version())
    errors = [person.error for person in people if person.error is not None]
    drill.note("images", line.n_done())
    drill.note("requests", len(tally.hits))
    drill.note("of them missed", len(tally.missed_at))
    drill.claim("of these just after a switch", tally.n_missed_after(switches), 0)
    drill.claim_least("hit rate of the worst 1,000", tally.worst_share(), 0.99)
    drill.note("looks at an open image", tally.n_looks)
    drill.note("longest open s", max(tally.held_s))
    drill.claim("forced reloads", len(tally.reloads), 0)
    drill.note("one version MB", max(one_version) / 1e6)
    drill.claim("disk after gc, in versions", max(on_disk) / max(one_version), 2)
    drill.claim("not done", n_images - line.n_done(), 0)
    drill.claim("other errors", len(errors), 0)
    drill.missed += [*tally.reloads[:3], *(repr(error) for error in errors[:3])]
    drill.examined(crew.workspace)
    drill.end()
