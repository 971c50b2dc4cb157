"""The schema as the migrations make it: equal to the models, up and down, and it defends its facts."""

from collections.abc import Callable, Iterator
from typing import Any

import pytest
from pytest_alembic.config import Config
from pytest_alembic.tests import (  # noqa: F401 - pytest collects them here
    test_model_definitions_match_ddl,
    test_single_head_revision,
    test_up_down_consistency,
    test_upgrade,
)
from sqlalchemy import Engine, inspect, select, text
from sqlalchemy.exc import IntegrityError

from engine.config import Settings, migrations_folder
from engine.errors import Unavailable
from engine.store import session as store
from engine.store.annotations import Annotation
from engine.store.assignments import Assignment
from engine.store.masks import CURRENT_MASKS_SQL, current_masks
from engine.store.reviews import Review
from engine.store.schedules import Schedule, ScheduleRun
from engine.store.session import Workspace, open_workspace
from engine.store.snapshots import SnapshotImage, SnapshotMask
from engine.store.tables import metadata
from engine.store.triggers import FACTS, installed_triggers, wanted_triggers
from tests import factories
from tests.conftest import a_home

NEW_IN_0004 = ("detector_versions", "generations", "reviews", "schedules", "schedule_runs")


@pytest.fixture(params=["sqlite", "postgres"])
def empty_settings(request: pytest.FixtureRequest) -> Settings:
    """A home whose database has no tables yet."""
    if request.param == "sqlite":
        return request.getfixturevalue("settings")
    url = request.getfixturevalue("empty_postgres")
    return a_home(request.getfixturevalue("tmp_path") / "home", url)


@pytest.fixture
def alembic_engine(empty_settings: Settings) -> Iterator[Engine]:
    workspace = open_workspace(empty_settings, check_revision=False)
    yield workspace.engine.execution_options(writes=True)
    workspace.close()


@pytest.fixture
def alembic_config() -> Config:
    return Config(config_options={"script_location": str(migrations_folder())})


def fill(workspace: Workspace) -> dict[str, int]:
    """Rows that point at each other in every way the schema knows; returns the count per table."""
    with workspace.write() as session:
        dataset = factories.a_dataset(session, open_stage="assisted_manual")
        user = factories.a_user(session)
        image = factories.an_image(workspace, session, dataset.id)
        version = factories.a_model_version(session, dataset.id, active=True)
        now = store_now(session)
        lent: dict[str, Any] = {"image_id": image.id, "stage": "assisted_manual", "lease_until": now}
        assignment = factories.add(session, Assignment(user_id=user.id, model_version_id=version.id, **lent))
        act: dict[str, Any] = {"image_id": image.id, "author_id": user.id, "assignment_id": assignment.id}
        act["body_sha256"] = factories.digest("body")
        accept = factories.add(session, Annotation(client_id="a", act="accept", **act))
        mask = factories.a_mask(session, image, annotation_id=accept.id, source="human")
        factories.add(session, Annotation(client_id="b", act="delete", target_mask_id=mask.id, **act))
        snapshot = factories.a_snapshot(session, dataset.id)
        session.add(SnapshotImage(snapshot_id=snapshot.id, image_id=image.id))
        session.add(SnapshotMask(snapshot_id=snapshot.id, mask_id=mask.id))
        detector = factories.a_detector_version(session, version, snapshot)
        proposal = factories.a_proposal(session, image, version, detector_version_id=detector.id)
        factories.add(
            session,
            Review(client_id="c", act="reject", proposal_id=proposal.id, **act),
        )
        schedule = factories.add(session, Schedule(dataset_id=dataset.id, nightly_at="02:00"))
        session.add(ScheduleRun(schedule_id=schedule.id, due="2026-11-22T02:00Z", due_at=now))
    return counts(workspace)


def store_now(session: Any) -> Any:
    from engine.store.base import database_now

    return database_now(session)


def counts(workspace: Workspace) -> dict[str, int]:
    with workspace.read() as session:
        names = set(metadata.tables) & set(inspect(session.connection()).get_table_names())
        return {name: session.scalar(text(f"SELECT count(*) FROM {name}")) or 0 for name in names}


def test_down_and_up_again_work_with_rows_in_place(empty_settings: Settings) -> None:
    store.upgrade(empty_settings)
    workspace = open_workspace(empty_settings)
    filled = fill(workspace)
    assert filled["masks"] == 1 and filled["annotations"] == 2
    assert all(filled[table] for table in NEW_IN_0004)
    store.downgrade(empty_settings, "0002")
    older = {table: n for table, n in filled.items() if table not in NEW_IN_0004}
    assert counts(workspace) == older
    store.upgrade(empty_settings)
    assert counts(workspace) == older | dict.fromkeys(NEW_IN_0004, 0)
    store.downgrade(empty_settings, "base")
    assert inspect(workspace.engine).get_table_names() == ["alembic_version"]
    store.upgrade(empty_settings)
    assert fill(workspace) == filled
    workspace.close()


def test_a_failed_migration_leaves_nothing_behind(empty_settings: Settings) -> None:
    workspace = open_workspace(empty_settings, check_revision=False)
    with workspace.engine.execution_options(writes=True).begin() as connection:
        connection.execute(text("CREATE TABLE masks (id INTEGER)"))
    with pytest.raises(Exception, match="masks"):
        store.upgrade(empty_settings)
    assert set(inspect(workspace.engine).get_table_names()) <= {"masks", "alembic_version"}
    assert store.revision(empty_settings) is None
    workspace.close()


def test_a_database_of_another_revision_is_refused_with_what_to_do(empty_settings: Settings) -> None:
    with pytest.raises(Unavailable, match="maskloop db upgrade"):
        open_workspace(empty_settings)
    store.upgrade(empty_settings, "0002")
    with pytest.raises(Unavailable, match=r"older \(0002\).*maskloop db upgrade"):
        open_workspace(empty_settings)
    workspace = open_workspace(empty_settings, check_revision=False)
    with workspace.write() as session:
        session.execute(text("UPDATE alembic_version SET version_num = '9999'"))
    workspace.close()
    with pytest.raises(Unavailable, match=r"newer \(9999\).*update Maskloop"):
        open_workspace(empty_settings)


def test_the_database_has_exactly_the_wanted_triggers(workspace: Workspace) -> None:
    with workspace.read() as session:
        connection = session.connection()
        assert installed_triggers(connection) == wanted_triggers(connection.dialect.name)


def test_the_view_in_the_models_is_the_migrated_one(workspace: Workspace) -> None:
    """The migration is frozen text, so the model's copy may drift: both must define the same view."""
    recreate = [text("DROP VIEW current_masks"), text(CURRENT_MASKS_SQL)]
    with workspace.write() as session:
        before = inspect(session.connection()).get_view_definition("current_masks")
        for statement in recreate:
            session.execute(statement)
        after = inspect(session.connection()).get_view_definition("current_masks")
    assert " ".join(str(before).split()) == " ".join(str(after).split())


def refused(workspace: Workspace, act: Callable[[Any], object], match: str) -> None:
    with pytest.raises(IntegrityError, match=match), workspace.write() as session:
        act(session)


def test_facts_are_never_edited_or_deleted_even_by_sql(workspace: Workspace) -> None:
    fill(workspace)
    filled = {table for table, n in counts(workspace).items() if n and table in FACTS}
    assert {"images", "masks", "annotations", "model_versions", "snapshot_masks"} <= filled
    for table in filled:
        column = metadata.tables[table].primary_key.columns.keys()[0]
        edit = text(f"UPDATE {table} SET {column} = {column}")
        refused(workspace, lambda session, edit=edit: session.execute(edit), "facts")
        delete = text(f"DELETE FROM {table}")
        refused(workspace, lambda session, delete=delete: session.execute(delete), "facts")


def test_a_held_out_image_enters_no_training_snapshot(workspace: Workspace) -> None:
    with workspace.write() as session:
        dataset = factories.a_dataset(session)
        image = factories.an_image(workspace, session, dataset.id, split="val")
        mask = factories.a_mask(session, image)
        training = factories.a_snapshot(session, dataset.id, "training", 1).id
        evaluation = factories.a_snapshot(session, dataset.id, "evaluation", 2).id
    image_row = {"snapshot_id": training, "image_id": image.id}
    mask_row = {"snapshot_id": training, "mask_id": mask.id}
    refused(workspace, lambda session: session.add(SnapshotImage(**image_row)), "held-out")
    refused(workspace, lambda session: session.add(SnapshotMask(**mask_row)), "held-out")
    with workspace.write() as session:
        session.add(SnapshotImage(**image_row | {"snapshot_id": evaluation}))
        session.add(SnapshotMask(**mask_row | {"snapshot_id": evaluation}))


def test_current_masks_leaves_out_superseded_deleted_and_second_opinions(workspace: Workspace) -> None:
    with workspace.write() as session:
        dataset = factories.a_dataset(session)
        image = factories.an_image(workspace, session, dataset.id)
        kept, corrected = factories.a_mask(session, image), factories.a_mask(session, image)
        correction = factories.a_mask(session, image, supersedes_id=corrected.id)
        opinion = factories.a_mask(session, image, second_opinion=True)
    with workspace.read() as session:
        current = set(session.scalars(select(current_masks.c.mask_id)))
    assert current == {kept.id, correction.id}
    assert opinion.id not in current
