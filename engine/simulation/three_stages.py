"""All three stages of the paper's data engine (section 4) with simulated people: a row per round.

Stage 1: people draw, the model learns. Stage 2: a detector boxes, the model masks the boxes, people refuse,
correct and add. Stage 3: a grid of points over every image, nobody looks. Each round is drained before the
next begins, so equal seeds and steps give equal rows.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from engine.pipeline import access, report, stages
from engine.simulation.annotators import Turn
from engine.simulation.campaign import Campaign


@dataclass
class ThreeStages:
    """Runs a campaign's people through the stages; `rounds` trainings in each of the first two."""

    campaign: Campaign
    rounds: int = 1

    def run(self) -> list[dict[str, Any]]:
        """One row per round, and one for stage 3: what was annotated, by which model and detector."""
        rows = []
        for name in ("assisted_manual", "semi_automatic"):
            self._open(name)
            for number in range(1, self.rounds + 1):
                rows.append(self._round(name, number))
                self.campaign.retrain()
        self._open("fully_automatic")
        self.campaign.work()
        rows.append(self._row("fully_automatic", 1, self._active(), self._stage("fully_automatic")))
        return rows

    def _round(self, stage: str, number: int) -> dict[str, Any]:
        model = self._active()
        # What the stage needs (embeddings, detector, proposals) is made before anyone takes an image.
        self.campaign.work()
        turns = self.campaign.annotate()
        return self._row(stage, number, model, _counted(turns))

    def _row(self, stage: str, number: int, model: str, figures: dict[str, Any]) -> dict[str, Any]:
        detector = self._stage(stage)["detector"] or {}
        return {
            "stage": stage,
            "round": number,
            "model_version": model,
            "images": figures["images"],
            "masks": figures["masks"],
            "masks_per_image": figures["masks_per_image"],
            "prefilled": figures["prefilled"] or None,
            "share_kept": figures["share_kept"],
            "seconds_per_image": figures.get("seconds_per_image"),
            "detector": detector.get("name"),
            "detector_average_recall": detector.get("average_recall"),
            "detector_precision": detector.get("precision_at_threshold"),
            "detector_false_share": detector.get("false_share"),
        }

    def _open(self, stage: str) -> None:
        with self.campaign.workspace.write() as session:
            stages.open_stage(session, self.campaign.dataset_id, stage)
        self.campaign.say(f"stage {stage} is open")

    def _stage(self, name: str) -> dict[str, Any]:
        return next(row for row in self._progress()["by_stage"] if row["stage"] == name)

    def _active(self) -> str:
        rows: Sequence[dict[str, Any]] = self._progress()["by_model_version"]
        return next(str(row["model_version"]) for row in rows if row["state"] == "active")

    def _progress(self) -> dict[str, Any]:
        workspace = self.campaign.workspace
        with workspace.read() as session:
            dataset = access.dataset(session, self.campaign.dataset)
            return report.progress(session, workspace.settings, dataset)


def _counted(turns: Sequence[Turn]) -> dict[str, Any]:
    """One round's images in numbers; `prefilled` is what people looked at."""
    kept = sum(turn.n_kept for turn in turns)
    standing = kept + sum(turn.n_corrected for turn in turns)
    judged = standing + sum(turn.n_rejected for turn in turns)
    n_masks = standing + sum(turn.n_masks for turn in turns)
    return {
        "images": len(turns),
        "masks": n_masks,
        "masks_per_image": n_masks / len(turns) if turns else None,
        "prefilled": judged,
        "share_kept": kept / judged if judged else None,
        "seconds_per_image": sum(turn.seconds for turn in turns) / len(turns) if turns else None,
    }
