"""decode(prompts, chosen): what a list of prompts means, whichever backend answers."""

from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from engine.errors import BadInput
from engine.modeling.prompts import (
    Candidates,
    Floats,
    check_prompts,
    fold,
    labelled_points,
    prefix_key,
    prompt_arrays,
    to_model_frame,
)

HW = (40, 60)


def point(x: Any, y: Any, label: int = 1, **more: int) -> dict[str, Any]:
    return {"kind": "point", "x": x, "y": y, "label": label} | more


BOX = {"kind": "box", "x0": 1, "y0": 2, "x1": 30, "y1": 20}


class Recorder:
    """A decoder whose logits say which call made them and which mask it was given."""

    def __init__(self) -> None:
        self.calls: list[tuple[Any, ...]] = []

    def decode(
        self,
        point_coords: Floats | None,
        point_labels: Floats | None,
        box: Floats | None,
        mask_input: Floats | None,
        multimask_output: bool,
    ) -> tuple[Floats, Floats]:
        self.calls.append((point_coords, point_labels, box, mask_input, multimask_output))
        n = 3 if multimask_output else 1
        logits = np.array([10.0 * len(self.calls) + index for index in range(n)], np.float32)
        return logits[:, None, None], np.array([0.2, 0.9, 0.9], np.float32)[:n]


def test_one_prompt_offers_three_masks_and_the_best_is_the_default() -> None:
    candidates = fold(Recorder(), [point(3, 4)], [])
    assert candidates.low_res_logits.shape == (3, 1, 1)
    assert candidates.best == 1


def test_each_further_prompt_feeds_back_the_chosen_logits() -> None:
    decoder = Recorder()
    candidates = fold(decoder, [point(3, 4), point(5, 6, 0), BOX], [2, 0, 0])
    masks = [call[3] for call in decoder.calls]
    assert masks[0] is None and masks[1].item() == 12.0 and masks[2].item() == 20.0
    assert [call[4] for call in decoder.calls] == [True, False, False]
    assert [0 if call[0] is None else len(call[0]) for call in decoder.calls] == [1, 2, 2]
    assert decoder.calls[1][2] is None and decoder.calls[2][2].tolist() == [1, 2, 30, 20]
    assert len(candidates.iou_predictions) == 1


def test_remembered_steps_are_not_decoded_again() -> None:
    decoder, previous = Recorder(), {}
    fold(decoder, [point(3, 4)], [], previous)
    first = fold(decoder, [point(3, 4, at_ms=5), point(5, 6)], [1], previous)
    again = fold(decoder, [point(3, 4), point(5, 6, at_ms=900)], [1, 0], previous)
    assert len(decoder.calls) == 2 and again is first
    fold(decoder, [point(3, 4), point(5, 6)], [2], previous)
    assert len(decoder.calls) == 3


def test_keys_tell_order_label_and_choice_apart() -> None:
    a, b = point(1, 2), point(3, 4)
    keys = {
        prefix_key(*case)
        for case in (([a, b], [0]), ([b, a], [0]), ([a, b], [1]), ([a, point(3, 4, 0)], [0]))
    }
    assert len(keys) == 4


@pytest.mark.parametrize(
    ("prompts", "chosen", "complaint"),
    [([], [], "at least one"), ([point(1, 1)] * 3, [0], "2 entries"), ([point(1, 1)] * 2, [3], "offered")],
)
def test_a_fold_that_cannot_be_is_refused(prompts: Any, chosen: list[int], complaint: str) -> None:
    with pytest.raises(BadInput, match=complaint):
        fold(Recorder(), prompts, chosen)


@pytest.mark.parametrize(
    ("prompts", "complaint"),
    [
        ("point", "list"),
        ([], "at least one"),
        ([{"kind": "text"}], "kind"),
        ([7], "kind"),
        ([point(1, float("nan"))], "numbers"),
        ([point("1", 1)], "numbers"),
        ([point(True, 1)], "numbers"),
        ([point(61, 1)], "outside the image of 60 x 40"),
        ([point(1, -0.1)], "outside"),
        ([point(1, 1, 2)], "label"),
        ([point(1, 1), BOX | {"x1": 1}], "prompt 2: a box needs"),
        ([BOX, point(1, 1), BOX], "one box"),
        ([point(1, 1)] * 65, "at most 64"),
    ],
)
def test_malformed_prompts_are_refused_with_a_sentence(prompts: Any, complaint: str) -> None:
    with pytest.raises(BadInput, match=complaint):
        check_prompts(prompts, HW)


def test_prompts_on_the_border_are_welcome() -> None:
    prompts = [point(0, 0), point(60, 40, 0), {"kind": "box", "x0": 0, "y0": 0, "x1": 60, "y1": 40}]
    assert check_prompts(prompts, HW) is prompts


coordinates = st.floats(0, 40, width=32)
drawn_points = st.lists(st.builds(point, coordinates, coordinates, st.integers(0, 1)), min_size=1, max_size=9)


@given(drawn_points)
def test_points_keep_their_order_and_end_with_padding(prompts: Any) -> None:
    coords, labels = labelled_points(*prompt_arrays(check_prompts(prompts, HW)))
    assert coords.shape == (1, len(prompts) + 1, 2) and coords.dtype == labels.dtype == np.float32
    assert labels[0].tolist() == [float(prompt["label"]) for prompt in prompts] + [-1.0]
    assert coords[0, :-1].tolist() == [[prompt["x"], prompt["y"]] for prompt in prompts]


def test_a_box_takes_the_corner_labels_and_no_padding() -> None:
    coords, labels = labelled_points(*prompt_arrays([BOX, point(5, 6, 0)]))
    assert coords[0].tolist() == [[5, 6], [1, 2], [30, 20]]
    assert labels[0].tolist() == [0, 2, 3]


def test_coordinates_scale_per_axis() -> None:
    assert to_model_frame(np.array([60.0, 40.0]), HW, (85, 128)).tolist() == [128.0, 85.0]


def test_the_first_of_equal_scores_is_best() -> None:
    assert Candidates(np.zeros((3, 1, 1), np.float32), np.array([0.5, 0.5, 0.1], np.float32)).best == 0
