"""The doctor: a sound installation has no finding, and each rule, once broken, is named with its row."""

import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import create_engine, select, text

from engine.config import load_settings
from engine.geometry.rle import encode
from engine.pipeline import annotate, assign, snapshot
from engine.pipeline.doctor import FILES, OPENED, Examination, examine
from engine.pipeline.export import export
from engine.store.assignments import Assignment
from engine.store.embeddings import Embedding
from engine.store.images import Image
from engine.store.integrity import BLOB_COLUMN_NAMES, INTEGRITY, Check, Look
from engine.store.model_versions import ModelVersion
from engine.store.promises import PROMISES
from engine.store.session import Workspace, open_workspace
from engine.store.tables import metadata
from tests.pipeline.conftest import Drawn, Lab, ellipse
from tests.whole import a_whole_home, fill

CHECKS = {check.name: check for check in (*INTEGRITY, *PROMISES, *FILES, *OPENED)}
# Digests of something that is not kept as a file of the store.
NO_FILES = {
    "original_sha256", "body_sha256", "embedding_sha256", "digest_sha256", "manifest_sha256", "config_sha256",
    "protocol_sha256", "id_sha256", "token_sha256",
}  # fmt: skip


@pytest.fixture(scope="module")
def whole_home(tmp_path_factory: pytest.TempPathFactory, sqlite_template: Path) -> Path:
    """A filled home, to be copied."""
    return a_whole_home(tmp_path_factory.mktemp("whole") / "home", sqlite_template).home


@pytest.fixture
def whole(whole_home: Path, tmp_path: Path) -> Iterator[Workspace]:
    shutil.copytree(whole_home, tmp_path / "whole")
    workspace = open_workspace(load_settings(tmp_path / "whole"))
    yield workspace
    workspace.close()


def tamper(workspace: Workspace, *statements: str) -> None:
    """Changes what the database defends, as somebody with its file and bad intentions would."""
    engine = create_engine(workspace.engine.url)
    with engine.begin() as connection:
        if engine.dialect.name == "postgresql":
            guards: list[str] = []
            connection.execute(text("SET LOCAL session_replication_role = replica"))
        else:
            kept = "SELECT sql FROM sqlite_master WHERE type = 'trigger'"
            guards = [] if "TRIGGER" in statements[0] else list(connection.execute(text(kept)).scalars())
            connection.execute(text("PRAGMA ignore_check_constraints = ON"))
        for guard in guards:
            connection.execute(text(f"DROP TRIGGER {guard.split()[2]}"))
        for statement in (*statements, *guards):
            connection.exec_driver_sql(statement)
    engine.dispose()


TAMPERED = [
    ("revision_is_head", "UPDATE alembic_version SET version_num = '0001'"),
    ("triggers_installed", "DROP TRIGGER masks_refuse_update"),
    ("indexes_installed", "DROP INDEX uq_assignments_open"),
    ("file_is_sound", "UPDATE users SET role = 'king' WHERE id = 1"),
    (
        "current_masks_is_the_view",
        "DROP VIEW current_masks",
        "CREATE VIEW current_masks AS SELECT id AS mask_id, dataset_id, image_id FROM masks",
    ),
    ("foreign_keys_resolve", "DELETE FROM users WHERE id = 1"),
    ("one_dataset_throughout", "UPDATE images SET dataset_id = 2 WHERE id = 1"),
    ("one_image_throughout", "UPDATE annotations SET image_id = 2 WHERE id = 1"),
    ("digests_are_digests", "UPDATE images SET original_sha256 = 'abc' WHERE id = 1"),
    ("named_rows_exist", """UPDATE jobs SET arguments = '{"image_id": 99}' WHERE kind = 'embed'"""),
    ("named_rows_exist", "UPDATE events SET subject_id = 99 WHERE kind = 'model.activated'"),
    ("named_rows_exist", """UPDATE decisions SET figures = '{"active": {"evaluation_id": 99}}'"""),
    ("masks_have_their_images_size", "UPDATE masks SET height = 7 WHERE id = 1"),
    ("an_accepted_act_made_one_mask", "UPDATE masks SET annotation_id = NULL WHERE id = 1"),
    ("a_persons_mask_has_its_act", "UPDATE masks SET annotation_id = NULL WHERE id = 1"),
    ("a_persons_mask_has_its_act", "UPDATE masks SET counts = '0`1' WHERE id = 1"),
    ("acts_are_by_who_held_the_image", "UPDATE annotations SET author_id = 2 WHERE id = 1"),
    ("kept_proposals_have_masks", "UPDATE masks SET proposal_id = NULL"),
    ("corrections_are_chains", "UPDATE masks SET export_id = 77 WHERE supersedes_id = 1"),
    ("corrections_are_chains", "UPDATE masks SET supersedes_id = 3 WHERE id = 1"),
    (
        "corrections_are_chains",
        "DROP INDEX uq_masks_supersedes_id",
        "UPDATE masks SET supersedes_id = 1 WHERE id = 3",
    ),
    ("export_ids_are_unique", "UPDATE masks SET export_id = 1"),
    ("export_ids_are_counted", "UPDATE export_ids SET next_id = 1"),
    ("held_out_never_trains", "UPDATE images SET split = 'val' WHERE id = 1"),
    (
        "look_alikes_share_a_split",
        "UPDATE images SET near_duplicate_group = 'one'",
        "UPDATE images SET split = 'val' WHERE id = 1",
    ),
    ("snapshots_cover_their_masks_images", "DELETE FROM snapshot_images"),
    ("snapshots_are_as_taken", "DELETE FROM snapshot_masks WHERE mask_id > 3"),
    ("snapshots_are_as_taken", "UPDATE images SET pixels_sha256 = replace(pixels_sha256, '1', '2')"),
    (
        "one_open_lease_per_image_and_stage",
        "DROP INDEX uq_assignments_open",
        "UPDATE assignments SET state = 'open', image_id = 1",
    ),
    ("ended_things_say_so", "UPDATE assignments SET ended_at = NULL WHERE state = 'submitted'"),
    ("ended_things_say_so", "UPDATE jobs SET state = 'failed' WHERE kind = 'train'"),
    ("no_job_is_stuck", "UPDATE jobs SET state = 'running', lease_until = '2020-01-01 00:00' WHERE id = 1"),
    ("done_jobs_left_their_rows", "DELETE FROM evaluations"),
    ("done_jobs_left_their_rows", "UPDATE jobs SET outcome = '{}' WHERE kind = 'train'"),
    ("active_versions_were_activated", "DELETE FROM events"),
    ("the_loop_switches_only_to_promoted", "UPDATE decisions SET verdict = 'refuse'"),
    ("models_learn_from_training_snapshots", "UPDATE snapshots SET kind = 'release'"),
    ("generations_are_whole", "UPDATE generations SET n_proposals = 9"),
    ("generations_are_whole", "UPDATE generations SET n_masks = 9 WHERE id = 1"),
    ("exports_are_whole", "UPDATE exports SET n_masks = 99"),
    ("masks_are_regions", "UPDATE masks SET area = 5 WHERE id = 1"),
    ("masks_are_regions", "UPDATE masks SET bbox_xywh = '[0, 0, 1, 1]' WHERE id = 1"),
    ("masks_are_regions", "UPDATE proposals SET counts = '0' WHERE id = 1"),
    ("files_exist", "UPDATE images SET pixels_sha256 = replace(pixels_sha256, '1', '2') WHERE id = 1"),
    ("embeddings_have_their_length", "UPDATE embeddings SET n_bytes = 1"),
    ("files_are_what_their_rows_say", "UPDATE images SET width = 7 WHERE id = 1"),
]


def broken(workspace: Workspace, check: Check) -> list[str]:
    return [str(row) for row in check.broken(Look(workspace, lambda _n: None))]


@pytest.mark.parametrize("tampering", TAMPERED, ids=lambda tampering: tampering[0])
def test_each_broken_rule_is_named(whole: Workspace, tampering: tuple[str, ...]) -> None:
    name, *statements = tampering
    before = broken(whole, CHECKS[name])
    tamper(whole, *statements)
    assert set(broken(whole, CHECKS[name])) - set(before), f"{name} does not see {statements}"


def test_every_rule_is_broken_once_in_these_tests() -> None:
    assert {name for name, *_ in TAMPERED} == set(CHECKS)


def test_every_digest_column_is_known_to_name_a_file_or_not() -> None:
    columns = {c.name for table in metadata.sorted_tables for c in table.columns if "sha256" in c.name}
    assert columns == BLOB_COLUMN_NAMES | NO_FILES, "say in integrity.py whether the column names a blob"


def test_an_installation_with_every_kind_of_row_is_sound(workspace: Workspace) -> None:
    fill(workspace)
    told: list[tuple[int, int]] = []
    found = examine(workspace, on_progress=lambda done, total: told.append((done, total)))
    assert found.findings == []
    assert found.n_checks == len(CHECKS) - len(OPENED) and found.n_rows > 25
    assert told[-1][0] == told[-1][1]


def test_findings_on_postgres_name_the_rows_and_what_to_do(postgres_workspace: Workspace) -> None:
    fill(postgres_workspace)
    tamper(
        postgres_workspace,
        "DELETE FROM users WHERE id = 1",
        "UPDATE masks SET area = area + 1",
        "UPDATE proposals SET area = area + 1",
        "UPDATE images SET split = 'val' WHERE id = 1",
        "UPDATE jobs SET state = 'running', ended_at = NULL WHERE kind = 'train'",
        "UPDATE assignments SET ended_at = NULL",
    )
    found = by_name(examine(postgres_workspace))
    assert {
        "foreign_keys_resolve", "masks_are_regions", "held_out_never_trains", "no_job_is_stuck",
        "ended_things_say_so",
    } <= found.keys()  # fmt: skip
    regions = found["masks_are_regions"]
    assert (regions.n, regions.first) == (7, [f"masks {n}" for n in range(1, 6)])
    assert "maskloop work" in found["no_job_is_stuck"].mend


def by_name(found: Examination) -> dict[str, Any]:
    return {finding.check: finding for finding in found.findings}


def test_a_rule_that_cannot_be_asked_is_a_finding(whole: Workspace) -> None:
    tamper(whole, "DROP TRIGGER exports_refuse_delete", "DROP TABLE exports")
    found = by_name(examine(whole))["exports_are_whole"]
    assert found.n == 1 and "could not be checked" in found.first[0]


def test_what_the_arrows_make_is_sound_down_to_the_bytes(lab: Lab, drawn: Drawn, tmp_path: Path) -> None:
    use(lab, tmp_path)
    assert examine(lab.workspace, deep=True).findings == []


def use(lab: Lab, tmp_path: Path) -> None:
    """One image annotated, corrected, deleted and brought back; then a snapshot and an export."""
    workspace, settings = lab.workspace, lab.workspace.settings
    lab.embed(lab.image_ids[0])
    with workspace.write() as session:
        lent = assign.next_assignment(session, settings, lab.dataset_id, lab.ann)
        assert isinstance(lent, Assignment)
    masks: list[int] = []
    for n in range(2):
        act = annotate.Accept(
            assignment_id=lent.id,
            client_id=f"client-000{n}",
            prompts=[{"kind": "point", "x": 16.0, "y": 30.0, "label": 1}],
            chosen=[0],
            segmentation=encode(ellipse(16, 30, 8 + n, 8)),
            model_version_id=lent.model_version_id,
            supersedes_id=masks[0] if masks else None,
        )
        with workspace.write() as session:
            masks.append(annotate.accept(session, settings, lab.ann, act)[0].id)
    with workspace.write() as session:
        annotate.delete(session, settings, lab.ann, lent.id, "client-0002", masks[1])
        annotate.restore(session, settings, lab.ann, lent.id, "client-0003", masks[1])
        assign.submit(session, settings, lent.id, lab.ann)
    with workspace.write() as session:
        taken = snapshot.take(session, lab.dataset_id, "training")
        release = snapshot.take(session, lab.dataset_id, "release")
        assert (taken.n_masks, release.n_images) == (1, 6)
    export(workspace, "cells", release.id, tmp_path / "out")


@pytest.mark.parametrize(
    ("column", "words"),
    [
        (Image.pixels_sha256, "is damaged"),
        (Embedding.blob_sha256, "is damaged"),
        (ModelVersion.weights_sha256, "is damaged"),
        (ModelVersion.decoder_sha256, "is damaged"),
    ],
    ids=str,
)
def test_a_flipped_bit_in_a_file_is_seen_by_the_deep_look_only(
    whole: Workspace, column: Any, words: str
) -> None:
    with whole.read() as session:
        path = whole.blobs.local_path(session.scalars(select(column).limit(1)).one())
    content = bytearray(path.read_bytes())
    content[-1] ^= 1
    path.write_bytes(content)
    assert examine(whole).findings == []
    found = by_name(examine(whole, deep=True))["files_are_what_their_rows_say"]
    assert any(words in sentence for sentence in found.first)


def test_an_embedding_of_other_pixels_is_found(lab: Lab) -> None:
    lab.embed(*lab.image_ids[:2])
    tamper(lab.workspace, "UPDATE embeddings SET image_id = image_id + 2")
    found = by_name(examine(lab.workspace, deep=True))["files_are_what_their_rows_say"]
    assert found.n == 2 and "made of other pixels" in found.first[0]
