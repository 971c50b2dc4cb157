"""The three stages with simulated people: a row per round, and every row's masks with their parents."""

from sqlalchemy import func, select

from engine.pipeline import stages
from engine.simulation.campaign import Campaign, Plan
from engine.simulation.three_stages import ThreeStages
from engine.store.generations import Generation
from engine.store.images import Image
from engine.store.masks import Mask
from engine.store.proposals import Proposal
from tests.simulation.conftest import EASY, Studio

# A model of random weights is never sure of anything.
ANYTHING = {"points_per_side": 2, "pred_iou_thresh": 0.0, "stability_score_thresh": 0.0, "max_coverage": 1.0}


class Untrained(Campaign):
    """Its people work as ever, its model stays as it is: masks of random weights teach nothing."""

    def retrain(self) -> None:
        self.say("a round")


def test_every_stage_gives_a_row_and_stage_three_covers_every_image(studio: Studio) -> None:
    said: list[str] = []
    plan = Plan(images_per_round=1, masks_per_image=1, gate_masks=1, eval_masks=2, habits=EASY)
    ran = Untrained(studio.workspace, "discs", studio.truth, plan, studio.work, said.append)
    with studio.workspace.write() as session:
        stages.override_stage(
            session, studio.workspace.settings, studio.dataset_id, "fully_automatic", proposer=ANYTHING
        )
    rows = ThreeStages(ran).run()
    assert [(row["stage"], row["round"]) for row in rows] == [
        ("assisted_manual", 1),
        ("semi_automatic", 1),
        ("fully_automatic", 1),
    ]
    assert all(row["images"] and row["model_version"] for row in rows)
    with studio.workspace.read() as session:
        n_images = session.scalar(select(func.count()).select_from(Image))
        automatic = select(func.count()).select_from(Generation).where(Generation.stage == "fully_automatic")
        assert session.scalar(automatic) == n_images == rows[2]["images"]
        model_made = session.scalars(select(Mask).where(Mask.source == "model")).all()
        assert model_made and all(session.get(Proposal, mask.proposal_id) for mask in model_made)
    assert said[-1] == "stage fully_automatic is open"
