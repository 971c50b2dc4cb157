"""Rounds of the loop with simulated annotators: annotate, retrain, annotate again; then measure each version.

Everything that a person or a worker would do goes through the pipeline and the jobs ledger; only the order
of the steps, and the truth that the annotators see, come from here.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from engine.errors import Unavailable
from engine.pipeline import access, evaluate, loop, pictures, promote, report, stages
from engine.pipeline.assign import Waiting
from engine.simulation.annotators import Habits, SimulatedAnnotator, Turn
from engine.simulation.truth import Truth, draw_masks
from engine.store.session import Workspace

SET_ASIDE = "held out: there are enough masks to judge models by"


@dataclass(frozen=True)
class Plan:
    """How much is annotated between two trainings, and how versions are measured.

    `images_per_round` counts training images; None: a quarter of them. Held-out images that come along are
    annotated until `gate_masks` masks are there to judge candidates by, then set aside.
    """

    rounds: int = 1
    images_per_round: int | None = None
    masks_per_image: int = 8
    n_annotators: int = 1
    gate_masks: int = 100
    eval_masks: int = 400
    seed: int = 0
    habits: Habits = field(default_factory=Habits)


@dataclass
class Campaign:
    """One run on one dataset. `work` runs due jobs until none is left; `say` gets a line for people."""

    workspace: Workspace
    dataset: str
    truth: Truth
    plan: Plan
    work: Callable[[], None]
    say: Callable[[str], None]

    def __post_init__(self) -> None:
        with self.workspace.read() as session:
            self.dataset_id = access.dataset(session, self.dataset).id
            self.held_out = pictures.image_names(session, self.dataset_id, split="val")
            everything = pictures.image_names(session, self.dataset_id)
        self.truth.check_covers(everything)
        self._ask_for_rounds_ourselves()
        n_train = len(everything) - len(self.held_out)
        # The design's share of a stage in simulation is a quarter of the images.
        self.n_images = self.plan.images_per_round or math.ceil(n_train / 4)
        self.annotators = [
            SimulatedAnnotator(
                self.workspace, self.dataset_id, self.truth, self.plan.habits, number, self.plan.seed
            )
            for number in range(1, self.plan.n_annotators + 1)
        ]

    def _ask_for_rounds_ourselves(self) -> None:
        with self.workspace.write() as session:
            for name in stages.NAMES:
                stages.override_stage(
                    session, self.workspace.settings, self.dataset_id, name, retrain_after_new_masks=0
                )

    def run(self, between: Callable[[], object] | None = None) -> None:
        """Annotates and retrains `rounds` times and annotates once more; `between` runs before a training."""
        for _ in range(self.plan.rounds):
            self.annotate()
            if between is not None:
                between()
            self.retrain()
        self.annotate()

    def annotate(self) -> list[Turn]:
        """One round's training images, and the held-out ones among them; fewer when there are no more."""
        turns: list[Turn] = []
        n_train = 0
        while n_train < self.n_images:
            annotator = self.annotators[len(turns) % len(self.annotators)]
            view = self._next(annotator)
            if view is None:
                break
            is_held_out = view["image"]["id"] in self.held_out
            if is_held_out and self._n_gate_masks() >= self.plan.gate_masks:
                annotator.leave(view, SET_ASIDE)
                continue
            turns.append(annotator.work_on(view, self.plan.masks_per_image))
            n_train += not is_held_out
        n_masks, seconds = sum(turn.n_masks for turn in turns), sum(turn.seconds for turn in turns)
        self.say(f"annotated {len(turns)} images: {n_masks} masks in {seconds / 60:.0f} simulated minutes")
        return turns

    def retrain(self) -> None:
        """One round of the loop: snapshots, training, evaluations, the gate's decision, warm embeddings."""
        with self.workspace.write() as session:
            number = loop.start_round(session, self.workspace.settings, self.dataset_id)
        self.say(f"training round {number}")
        self.work()
        failed = self._progress()["failed_jobs"]
        if failed:
            raise Unavailable(f"job {failed[0]['id']} ({failed[0]['kind']}) failed: {failed[0]['reason']}")

    def figures(self) -> list[dict[str, Any]]:
        """One row per model version: its state, what was annotated with it, and how well it follows clicks.

        Measured on true masks of held-out images, the same for every version, none of them ever stored.
        """
        masks = draw_masks(
            self.truth,
            self.held_out,
            n_masks=self.plan.eval_masks,
            min_area_px=evaluate.MIN_AREA_PX,
            seed=self.plan.seed,
        )
        rows = []
        for row in self._progress()["by_model_version"]:
            self.say(f"measuring {row['model_version']} on {sum(map(len, masks.values()))} held-out masks")
            with self.workspace.read() as session:
                version = promote.version_named(session, self.dataset_id, row["model_version"])
            rows.append(_figures(row, evaluate.measure_on(self.workspace, version.id, masks)))
        return rows

    def _next(self, annotator: SimulatedAnnotator) -> dict[str, Any] | None:
        """The next image; when embeddings are missing they are made first. None when there is no image."""
        view = annotator.take()
        if isinstance(view, Waiting) and view.retry_after_s is not None:
            self.work()
            view = annotator.take()
        if not isinstance(view, Waiting):
            return view
        if view.retry_after_s is not None:
            raise Unavailable(f"no image came although all work is done: {view.reason}")
        return None

    def _n_gate_masks(self) -> int:
        with self.workspace.read() as session:
            return loop.held_out_masks(session, self.dataset_id)

    def _progress(self) -> dict[str, Any]:
        with self.workspace.read() as session:
            dataset = access.dataset(session, self.dataset)
            return report.progress(session, self.workspace.settings, dataset)


def _figures(row: dict[str, Any], measured: dict[str, Any]) -> dict[str, Any]:
    return {
        "model_version": row["model_version"],
        "state": row["state"],
        "clicks_per_mask": measured["noc"],
        "miou_1_click": measured["miou"].get("1"),
        "miou_3_clicks": measured["miou"].get("3"),
        "reached": measured["reached"],
        "eval_masks": measured["n_masks"],
        "masks": row["masks"],
        "images": row["images"],
        "active_seconds_per_mask": row["active_seconds_per_mask"],
        "clicks_per_accepted_mask": row["clicks_per_mask"],
        "reason": row["decided_reason"],
    }
