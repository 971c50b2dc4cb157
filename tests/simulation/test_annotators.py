"""Simulated annotators do what people do, through the same functions, and leave the same traces."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
from sqlalchemy import select

from engine.geometry.quality import iou_masks
from engine.geometry.rle import area, bbox_xywh, decode, encode
from engine.modeling.embedding_file import read_embedding
from engine.modeling.onnx_predictor import DecoderSession, fold, upscale_logits
from engine.modeling.sam_config import SamConfig
from engine.pipeline.assign import Waiting
from engine.pipeline.stages import open_stage
from engine.simulation.annotators import Habits, SimulatedAnnotator, Turn
from engine.store.annotations import Annotation
from engine.store.assignments import Assignment
from engine.store.events import Event
from engine.store.images import Image, ImageProgress
from engine.store.masks import Mask
from engine.store.model_versions import ModelVersion
from engine.store.reviews import Review
from engine.store.session import Workspace
from engine.store.users import User
from tests import factories
from tests.simulation.conftest import EASY, Studio, disc


def annotate_all(
    studio: Studio, annotator: SimulatedAnnotator, n_masks: int = 99, n_images: int = 99
) -> list[Turn]:
    turns: list[Turn] = []
    while len(turns) < n_images:
        view = annotator.take()
        if isinstance(view, Waiting) and view.retry_after_s is not None:
            studio.work()
            view = annotator.take()
        if isinstance(view, Waiting):
            return turns
        turns.append(annotator.work_on(view, n_masks))
    return turns


def annotations(workspace: Workspace) -> list[Annotation]:
    with workspace.read() as session:
        return list(session.scalars(select(Annotation).order_by(Annotation.id)))


def replay(workspace: Workspace, act: Annotation) -> np.ndarray:
    """The mask that the act's prompts give on its weights, from the stored files and nothing else."""
    with workspace.read() as session:
        version = session.get_one(ModelVersion, act.model_version_id)
        image = session.get_one(Image, act.image_id)
    config, hw = SamConfig.from_dict(version.config), (image.height, image.width)
    decoder = DecoderSession(workspace.blobs.read(version.decoder_sha256), config)
    path = workspace.blobs.local_path(act.embedding_sha256)
    embedding = read_embedding(path, weights_sha256=version.weights_sha256)
    candidates = fold(decoder, embedding, hw, act.prompts, act.chosen)
    return upscale_logits(candidates.low_res_logits, hw, config)[act.chosen[-1]] > 0


def test_each_accepted_mask_equals_the_replay_of_its_prompts_on_its_weights(studio: Studio) -> None:
    annotate_all(studio, studio.annotator())
    acts = annotations(studio.workspace)
    assert len(acts) >= 100
    for act in acts[:100]:
        with studio.workspace.read() as session:
            mask = session.scalars(select(Mask).where(Mask.annotation_id == act.id)).one()
        drawn = decode({"size": [mask.height, mask.width], "counts": mask.counts})
        assert np.array_equal(drawn, replay(studio.workspace, act)), act.prompts


def test_truth_reaches_no_table(studio: Studio) -> None:
    turns = annotate_all(studio, studio.annotator(), n_masks=3, n_images=3)
    truths = {rle["counts"] for rles in studio.truth.masks.values() for rle in rles}
    with studio.workspace.read() as session:
        masks = list(session.scalars(select(Mask)))
        authors = set(session.scalars(select(User.role).join(Mask, Mask.author_id == User.id)))
        events = "".join(str(payload) for payload in session.scalars(select(Event.payload)))
    assert len(masks) == sum(turn.n_masks for turn in turns)
    assert authors == {"simulated"}
    assert all(mask.source == "human" and mask.prompts and mask.annotation_id for mask in masks)
    assert not truths & {mask.counts for mask in masks}
    assert not any(counts in events for counts in truths)


def test_the_first_choice_is_the_candidate_nearest_to_the_truth(studio: Studio) -> None:
    annotator = studio.annotator(Habits(max_clicks=1, least_iou=0.0))
    studio.work()
    view = annotator.take()
    assert not isinstance(view, Waiting)
    annotator.work_on(view, 5)
    rles = studio.truth.of(view["image"]["name"])
    for act in annotations(studio.workspace):
        truth = decode(rles[int(act.client_id.rsplit("-", 1)[1])])
        ious = []
        for index in range(3):
            act.chosen = [index]
            ious.append(iou_masks(replay(studio.workspace, act), truth))
        with studio.workspace.read() as session:
            kept = session.get_one(Annotation, act.id).chosen
        assert kept == [int(np.argmax(ious))]


def test_the_time_budget_of_an_image_is_kept(studio: Studio) -> None:
    habits = Habits(max_clicks=20, least_iou=0.0, budget_s=40.0)
    turns = annotate_all(studio, studio.annotator(habits), n_images=3)
    assert all(turn.seconds <= 40.0 for turn in turns)
    assert any(turn.seconds > 30.0 for turn in turns)
    with studio.workspace.read() as session:
        per_image: dict[int, float] = {}
        for mask in session.scalars(select(Mask)):
            per_image[mask.image_id] = per_image.get(mask.image_id, 0.0) + (mask.active_seconds or 0.0)
    assert max(per_image.values()) <= 40.0


def test_the_same_seed_gives_the_same_clicks_and_masks(
    studio_in: Callable[[Path], Studio], tmp_path: Path
) -> None:
    shaky = Habits(max_clicks=2, least_iou=0.0, wander_px=2.0)
    traces = {}
    for name, seed in (("first", 1), ("again", 1), ("other", 2)):
        studio = studio_in(tmp_path / name)
        annotate_all(studio, studio.annotator(shaky, seed=seed), n_masks=3, n_images=2)
        traces[name] = [(act.prompts, act.chosen, act.counts) for act in annotations(studio.workspace)]
    assert traces["first"] == traces["again"]
    assert traces["first"] != traces["other"]


def test_a_shaky_hand_stays_on_its_side_of_the_border(studio: Studio) -> None:
    annotator = studio.annotator(Habits(wander_px=6.0))
    truth = decode(studio.truth.of("disc-0.png")[0])
    ys, xs = np.nonzero(truth)
    landed = [annotator._hand(int(xs[0]), int(ys[0]), truth) for _ in range(200)]
    assert all(truth[y, x] for x, y in landed)
    assert len(set(landed)) > 5


def test_a_mask_that_stays_poor_is_given_up(studio: Studio) -> None:
    studio.work()
    annotator = studio.annotator(Habits(max_clicks=2, least_iou=1.0))
    view = annotator.take()
    assert not isinstance(view, Waiting)
    turn = annotator.work_on(view, 3)
    assert (turn.n_masks, annotations(studio.workspace)) == (0, [])
    assert turn.n_given_up == 15
    with studio.workspace.read() as session:
        assert session.get_one(Assignment, view["id"]).state == "submitted"


def test_work_that_was_cut_short_goes_on_without_drawing_twice(studio: Studio) -> None:
    studio.work()
    annotator = studio.annotator(EASY)
    view = annotator.take()
    assert not isinstance(view, Waiting)
    number, truth = annotator._objects(view)[0]
    mask = next(iter(studio.truth.of(view["image"]["name"])[number : number + 1]))
    drawn = view | {"masks": [{"segmentation": mask}]}
    assert number not in [left for left, _ in annotator._objects(drawn)]
    assert len(annotator._objects(drawn)) == 14


def test_an_image_left_is_set_aside_with_its_reason(studio: Studio) -> None:
    studio.work()
    annotator = studio.annotator()
    view = annotator.take()
    assert not isinstance(view, Waiting)
    annotator.leave(view, "enough")
    with studio.workspace.read() as session:
        progress = session.scalars(select(ImageProgress)).one()
    assert (progress.state, progress.reason) == ("skipped", "enough")


def test_an_annotator_finds_its_account_again(studio: Studio) -> None:
    assert studio.annotator().user_id == studio.annotator().user_id


def test_what_was_prefilled_is_let_stand_or_refused_as_it_fits_the_truth(studio: Studio) -> None:
    studio.work()
    with studio.workspace.write() as session:
        open_stage(session, studio.dataset_id, "semi_automatic")
        version = session.get_one(ModelVersion, 1)
        image = session.scalars(select(Image).order_by(Image.id).limit(1)).one()
        right, nowhere = studio.truth.of(image.original_name)[0], encode(disc(26, 31, 3))
        for rle in (right, nowhere):
            columns = {"counts": rle["counts"], "area": area(rle), "bbox_xywh": list(bbox_xywh(rle))}
            factories.a_proposal(session, image, version, **columns)
    annotator = studio.annotator(Habits(max_clicks=1, least_iou=0.5))
    view = annotator.take()
    assert not isinstance(view, Waiting) and len(view["proposals"]) == 2
    turn = annotator.work_on(view, 0)
    assert (turn.n_kept, turn.n_corrected, turn.n_rejected) == (1, 0, 1)
    with studio.workspace.read() as session:
        (mask,) = session.scalars(select(Mask)).all()
        acts = sorted(session.scalars(select(Review.act)))
    assert (mask.source, mask.touched_by_person, mask.counts) == ("model", False, right["counts"])
    assert acts == ["keep", "reject"]
