"""Growing the encoder between rounds: a stage names the architecture, and the gate still decides."""

from dataclasses import replace

import pytest
import torch
from sqlalchemy import select

from engine.errors import BadInput
from engine.pipeline.ingest_masks import import_masks
from engine.pipeline.stages import override_stage
from engine.store.model_versions import Decision, ModelVersion
from tests.factories import a_model_version
from tests.pipeline.conftest import Drawn, Lab, rows
from tests.pipeline.test_loop import active, due, jobs, run_all


def grown(lab: Lab, architecture: str) -> None:
    with lab.workspace.write() as session:
        override_stage(
            session, lab.workspace.settings, lab.dataset_id, "assisted_manual", architecture=architecture
        )


def asked_to_train(lab: Lab, drawn: Drawn) -> dict[str, object]:
    """The arguments of the round's training, snapshots taken."""
    import_masks(lab.workspace, "cells", drawn.annotations)
    due(lab)
    run_all(lab)
    due(lab)
    (asked,) = jobs(lab, "train")
    return asked.arguments


def test_without_a_word_a_round_trains_what_serves(labs: Lab, drawn: Drawn) -> None:
    assert asked_to_train(labs, drawn) == {"snapshot_id": 2, "parent_id": labs.version_id}


def test_the_newest_version_of_the_named_architecture_is_trained(labs: Lab, drawn: Drawn) -> None:
    with labs.workspace.write() as session:
        older, newer = (a_model_version(session, labs.dataset_id, n).id for n in (7, 8))
    assert older < newer
    grown(labs, "tiny")
    assert asked_to_train(labs, drawn) == {"snapshot_id": 2, "parent_id": newer}


def test_where_there_is_none_it_begins_with_random_weights(labs: Lab, drawn: Drawn) -> None:
    grown(labs, "mobile")
    expected = {"snapshot_id": 2, "parent_id": None, "architecture": "mobile"}
    assert asked_to_train(labs, drawn) == expected


def test_an_unknown_architecture_is_refused_with_the_known_ones(lab: Lab) -> None:
    with pytest.raises(BadInput, match="vit_b"):
        grown(lab, "huge")


def test_a_grown_model_goes_through_a_real_round(lab: Lab, drawn: Drawn) -> None:
    """From the small model of these tests to a `tiny` one: another frame, grid, decoder and embedding."""
    torch.set_num_threads(1)
    settings = lab.workspace.settings
    train = settings.train.model_copy(update={"steps": 1, "click_cap": 4})
    quick = replace(
        lab, workspace=replace(lab.workspace, settings=settings.model_copy(update={"train": train}))
    )
    grown(quick, "tiny")
    import_masks(quick.workspace, "cells", drawn.annotations)
    while not rows(quick.workspace, select(Decision.id)):
        assert due(quick) > 0
        run_all(quick)
    first, second = rows(quick.workspace, select(ModelVersion).order_by(ModelVersion.id))
    assert (first.architecture, second.architecture, second.parent_id) == ("small", "tiny", None)
    assert second.config["img_size"] == 512 and second.training["steps"] == "1"
    # One step from random weights is no better than anything: what serves stays.
    assert active(quick) == first.id
