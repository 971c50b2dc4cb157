"""Rounds of the loop with simulated annotators."""

import pytest
from sqlalchemy import select

from engine.errors import NotFound
from engine.pipeline import loop
from engine.simulation.campaign import SET_ASIDE, Campaign, Plan
from engine.simulation.truth import Truth
from engine.store.assignments import Assignment
from engine.store.images import Image, ImageProgress
from engine.store.masks import Mask
from tests.simulation.conftest import EASY, Studio


def campaign(studio: Studio, plan: Plan, truth: Truth | None = None) -> tuple[Campaign, list[str]]:
    said: list[str] = []
    return Campaign(studio.workspace, "discs", truth or studio.truth, plan, studio.work, said.append), said


def test_a_round_takes_a_quarter_of_the_training_images(studio: Studio) -> None:
    ran, said = campaign(studio, Plan(habits=EASY, masks_per_image=2))
    turns = ran.annotate()
    assert [turn.n_masks for turn in turns] == [2, 2]
    assert "annotated 2 images: 4 masks" in said[0]


def test_held_out_images_beyond_the_gate_are_set_aside(studio: Studio) -> None:
    ran, _ = campaign(studio, Plan(images_per_round=99, masks_per_image=2, gate_masks=2, habits=EASY))
    ran.annotate()
    with studio.workspace.read() as session:
        n_held_out = loop.held_out_masks(session, studio.dataset_id)
        skipped = session.execute(
            select(Image.split, ImageProgress.reason)
            .join(ImageProgress, ImageProgress.image_id == Image.id)
            .where(ImageProgress.state == "skipped")
        ).all()
    assert n_held_out == 2
    assert skipped == [("val", SET_ASIDE)]


def test_annotators_take_the_images_in_turn(studio: Studio) -> None:
    ran, _ = campaign(studio, Plan(images_per_round=3, masks_per_image=1, n_annotators=2, habits=EASY))
    ran.annotate()
    with studio.workspace.read() as session:
        users = list(session.scalars(select(Assignment.user_id).order_by(Assignment.id)))
    assert len(users) == 4 and users[0] == users[2] != users[1] == users[3]


def test_figures_are_measured_on_held_out_truth_that_is_not_stored(studio: Studio) -> None:
    ran, _ = campaign(
        studio, Plan(rounds=0, images_per_round=1, masks_per_image=1, eval_masks=6, habits=EASY)
    )
    ran.run()
    (row,) = ran.figures()
    assert (row["model_version"], row["state"]) == ("small", "active")
    assert (row["eval_masks"], row["masks"], row["images"]) == (6, 1, 1)
    assert 1 <= row["clicks_per_mask"] <= 20
    assert 0 <= row["miou_1_click"] <= 1
    with studio.workspace.read() as session:
        assert len(list(session.scalars(select(Mask.id)))) == 1


def test_a_truth_of_other_pictures_is_refused_before_anything_happens(studio: Studio) -> None:
    with pytest.raises(NotFound, match="names no picture"):
        campaign(studio, Plan(), Truth({"elsewhere.png": studio.truth.of("disc-0.png")}))


def test_held_out_images_on_the_way_do_not_count_as_a_rounds_images(studio: Studio) -> None:
    ran, _ = campaign(studio, Plan(images_per_round=3, masks_per_image=1, habits=EASY))
    assert [turn.image_id in ran.held_out for turn in ran.annotate()] == [False, False, True, False]
