"""Stages 2 and 3: generations, detector versions, reviews of proposals; schedules and their due times.

Revision ID: 0004
Revises: 0003
"""

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import postgresql

revision = "0004"
down_revision = "0003"
branch_labels = None
depends_on = None

# Frozen here on purpose: a later change of engine/store must not change what this revision made.
INTEGER = sa.BigInteger().with_variant(sa.Integer(), "sqlite")
JSON = sa.JSON(none_as_null=True).with_variant(postgresql.JSONB(none_as_null=True), "postgresql")
AT = sa.DateTime(timezone=True)
SHA256 = sa.String(64)
TEXT = sa.String()
NEW_FACTS = ("generations", "detector_versions", "reviews")

VIEW_OF_0003 = """
CREATE VIEW current_masks AS
SELECT m.id AS mask_id, m.dataset_id AS dataset_id, m.image_id AS image_id
FROM masks m
WHERE NOT m.second_opinion
  AND NOT EXISTS (SELECT 1 FROM masks n WHERE n.supersedes_id = m.id AND NOT n.second_opinion)
  AND NOT EXISTS (SELECT 1 FROM annotations a WHERE a.act = 'delete' AND a.target_mask_id = m.id)
"""
ONLY_THE_NEWEST_GENERATION = """  AND NOT EXISTS (
    SELECT 1 FROM proposals p
    JOIN generations mine ON mine.image_id = p.image_id AND mine.model_version_id = p.model_version_id
      AND mine.stage = p.stage AND mine.config_sha256 = p.config_sha256
    JOIN generations newer ON newer.image_id = p.image_id AND newer.stage = p.stage AND newer.id > mine.id
    WHERE p.id = m.proposal_id AND p.stage = 'fully_automatic' AND NOT m.touched_by_person
  )
"""


def upgrade() -> None:
    _detector_versions()
    _generations()
    _proposal_columns()
    _reviews()
    _schedules()
    op.add_column("images", sa.Column("contrast", sa.Float(), nullable=True))
    op.execute("DROP VIEW current_masks")
    op.execute(VIEW_OF_0003 + ONLY_THE_NEWEST_GENERATION)
    for table in NEW_FACTS:
        _refuse_edits(table)


def downgrade() -> None:
    op.execute("DROP VIEW current_masks")
    on_sqlite = op.get_bind().dialect.name == "sqlite"
    for table in NEW_FACTS:
        for verb in _verbs():
            op.execute(f"DROP TRIGGER {table}_refuse_{verb}" + ("" if on_sqlite else f" ON {table}"))
    op.drop_column("images", "contrast")
    for table in ("schedule_runs", "schedules", "reviews"):
        op.drop_table(table)
    for column in ("chosen", "prompts", "score"):
        op.drop_column("proposals", column)
    op.drop_table("generations")
    op.drop_table("detector_versions")
    op.execute(VIEW_OF_0003)


def _detector_versions() -> None:
    op.create_table(
        "detector_versions",
        sa.Column("id", INTEGER, nullable=False),
        sa.Column("dataset_id", INTEGER, nullable=False),
        sa.Column("name", TEXT, nullable=False),
        sa.Column("model_version_id", INTEGER, nullable=False),
        sa.Column("snapshot_id", INTEGER, nullable=False),
        sa.Column("weights_sha256", SHA256, nullable=False),
        sa.Column("threshold", sa.Float(), nullable=True),
        sa.Column("false_prefill_rate", sa.Float(), nullable=False),
        sa.Column("figures", JSON, nullable=False),
        sa.Column("created_at", AT, nullable=False),
        _to("detector_versions", "dataset_id", "datasets"),
        _to("detector_versions", "model_version_id", "model_versions"),
        _to("detector_versions", "snapshot_id", "snapshots"),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_detector_versions")),
        sa.UniqueConstraint("dataset_id", "name", name=op.f("uq_detector_versions_dataset_id_name")),
    )
    op.create_index(op.f("ix_detector_versions_model_version_id"), "detector_versions", ["model_version_id"])


def _generations() -> None:
    op.create_table(
        "generations",
        sa.Column("id", INTEGER, nullable=False),
        sa.Column("dataset_id", INTEGER, nullable=False),
        sa.Column("image_id", INTEGER, nullable=False),
        sa.Column("model_version_id", INTEGER, nullable=False),
        sa.Column("detector_version_id", INTEGER, nullable=True),
        sa.Column("stage", TEXT, nullable=False),
        sa.Column("config_sha256", SHA256, nullable=False),
        sa.Column("n_proposals", INTEGER, nullable=False),
        sa.Column("n_masks", INTEGER, nullable=False),
        sa.Column("created_at", AT, nullable=False),
        _to("generations", "dataset_id", "datasets"),
        _to("generations", "image_id", "images"),
        _to("generations", "model_version_id", "model_versions"),
        _to("generations", "detector_version_id", "detector_versions"),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_generations")),
        sa.UniqueConstraint(
            "image_id",
            "model_version_id",
            "stage",
            "config_sha256",
            name=op.f("uq_generations_image_id_model_version_id_stage_config_sha256"),
        ),
    )
    op.create_index("ix_generations_image_id_stage_id", "generations", ["image_id", "stage", "id"])


def _proposal_columns() -> None:
    op.add_column("proposals", sa.Column("score", sa.Float(), nullable=True))
    for column in ("prompts", "chosen"):
        op.add_column("proposals", sa.Column(column, JSON, nullable=False, server_default="[]"))


def _reviews() -> None:
    op.create_table(
        "reviews",
        sa.Column("id", INTEGER, nullable=False),
        sa.Column("client_id", SHA256, nullable=False),
        sa.Column("body_sha256", SHA256, nullable=False),
        sa.Column("act", TEXT, nullable=False),
        sa.Column("proposal_id", INTEGER, nullable=False),
        sa.Column("image_id", INTEGER, nullable=False),
        sa.Column("author_id", INTEGER, nullable=False),
        sa.Column("assignment_id", INTEGER, nullable=False),
        sa.Column("created_at", AT, nullable=False),
        sa.CheckConstraint("act in ('keep', 'reject', 'unreject')", name=op.f("ck_reviews_act")),
        _to("reviews", "proposal_id", "proposals"),
        _to("reviews", "image_id", "images"),
        _to("reviews", "author_id", "users"),
        _to("reviews", "assignment_id", "assignments"),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_reviews")),
        sa.UniqueConstraint("client_id", "proposal_id", name=op.f("uq_reviews_client_id_proposal_id")),
    )
    op.create_index(op.f("ix_reviews_author_id"), "reviews", ["author_id"])
    op.create_index("ix_reviews_image_id", "reviews", ["image_id"])
    op.create_index("ix_reviews_proposal_id_id", "reviews", ["proposal_id", "id"])


def _schedules() -> None:
    op.create_table(
        "schedules",
        sa.Column("id", INTEGER, nullable=False),
        sa.Column("dataset_id", INTEGER, nullable=False),
        sa.Column("nightly_at", TEXT, nullable=True),
        sa.Column("every_new_masks", INTEGER, nullable=True),
        sa.Column("created_by_id", INTEGER, nullable=True),
        sa.Column("created_at", AT, nullable=False),
        sa.Column("removed_at", AT, nullable=True),
        sa.CheckConstraint(
            "nightly_at is not null or every_new_masks is not null", name=op.f("ck_schedules_something")
        ),
        sa.CheckConstraint(
            "every_new_masks is null or every_new_masks > 0", name=op.f("ck_schedules_every_new_masks")
        ),
        _to("schedules", "dataset_id", "datasets"),
        _to("schedules", "created_by_id", "users"),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_schedules")),
    )
    op.create_index(op.f("ix_schedules_dataset_id"), "schedules", ["dataset_id"])
    op.create_table(
        "schedule_runs",
        sa.Column("id", INTEGER, nullable=False),
        sa.Column("schedule_id", INTEGER, nullable=False),
        sa.Column("due", TEXT, nullable=False),
        sa.Column("due_at", AT, nullable=False),
        sa.Column("state", TEXT, nullable=False),
        sa.Column("reason", TEXT, nullable=True),
        sa.Column("round_number", INTEGER, nullable=True),
        sa.Column("started_at", AT, nullable=True),
        sa.CheckConstraint("state in ('waiting', 'started', 'skipped')", name=op.f("ck_schedule_runs_state")),
        _to("schedule_runs", "schedule_id", "schedules"),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_schedule_runs")),
        sa.UniqueConstraint("schedule_id", "due", name=op.f("uq_schedule_runs_schedule_id_due")),
    )
    op.create_index("ix_schedule_runs_state", "schedule_runs", ["state"])


def _to(table: str, column: str, parents: str) -> sa.ForeignKeyConstraint:
    return sa.ForeignKeyConstraint([column], [f"{parents}.id"], name=op.f(f"fk_{table}_{column}"))


def _verbs() -> tuple[str, ...]:
    # SQLite has no TRUNCATE; there, DELETE without a condition fires the row trigger.
    return (
        ("update", "delete") if op.get_bind().dialect.name == "sqlite" else ("update", "delete", "truncate")
    )


def _refuse_edits(table: str) -> None:
    sentence = f"{table} are facts: they are never edited or deleted"
    for verb in _verbs():
        name = f"{table}_refuse_{verb}"
        if op.get_bind().dialect.name == "sqlite":
            raised = f"SELECT RAISE(ABORT, '{sentence}')"
            op.execute(f"CREATE TRIGGER {name} BEFORE {verb} ON {table} BEGIN {raised}; END")
        else:
            each = "STATEMENT" if verb == "truncate" else "ROW"
            act = f"BEFORE {verb} ON {table} FOR EACH {each} EXECUTE FUNCTION refuse_edit()"
            op.execute(f"CREATE TRIGGER {name} {act}")
