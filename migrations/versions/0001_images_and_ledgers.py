"""Datasets with their images, the people, and the ledgers of events and jobs.

Revision ID: 0001
Revises:
"""

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import postgresql

revision = "0001"
down_revision = None
branch_labels = None
depends_on = None

# Frozen here on purpose: a later change of engine/store must not change what this revision made.
INTEGER = sa.BigInteger().with_variant(sa.Integer(), "sqlite")
JSON = sa.JSON(none_as_null=True).with_variant(postgresql.JSONB(none_as_null=True), "postgresql")
AT = sa.DateTime(timezone=True)
SHA256 = sa.String(64)
TEXT = sa.String()


def upgrade() -> None:
    for create in TABLES:
        create()


def downgrade() -> None:
    for create in reversed(TABLES):
        op.drop_table(create.__name__.removeprefix("_"))


def _datasets() -> None:
    op.create_table(
        "datasets",
        sa.Column("id", INTEGER, nullable=False),
        sa.Column("name", TEXT, nullable=False),
        sa.Column("created_at", AT, nullable=False),
        sa.Column("open_stage", TEXT, nullable=True),
        sa.Column("settings", JSON, nullable=False),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_datasets")),
        sa.UniqueConstraint("name", name=op.f("uq_datasets_name")),
    )


def _users() -> None:
    op.create_table(
        "users",
        sa.Column("id", INTEGER, nullable=False),
        sa.Column("name", TEXT, nullable=False),
        sa.Column("role", TEXT, nullable=False),
        sa.Column("password_hash", TEXT, nullable=True),
        sa.Column("active", sa.Boolean, nullable=False),
        sa.Column("created_at", AT, nullable=False),
        sa.CheckConstraint(
            "role in ('annotator', 'reviewer', 'researcher', 'admin', 'simulated')",
            name=op.f("ck_users_role"),
        ),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_users")),
        sa.UniqueConstraint("name", name=op.f("uq_users_name")),
    )


def _sign_in_sessions() -> None:
    op.create_table(
        "sign_in_sessions",
        sa.Column("id_sha256", SHA256, nullable=False),
        sa.Column("user_id", INTEGER, nullable=False),
        sa.Column("csrf_token", TEXT, nullable=False),
        sa.Column("created_at", AT, nullable=False),
        sa.Column("last_seen_at", AT, nullable=False),
        sa.Column("expires_at", AT, nullable=False),
        sa.ForeignKeyConstraint(["user_id"], ["users.id"], name=op.f("fk_sign_in_sessions_user_id")),
        sa.PrimaryKeyConstraint("id_sha256", name=op.f("pk_sign_in_sessions")),
    )
    op.create_index(op.f("ix_sign_in_sessions_user_id"), "sign_in_sessions", ["user_id"])


def _sign_in_links() -> None:
    op.create_table(
        "sign_in_links",
        sa.Column("token_sha256", SHA256, nullable=False),
        sa.Column("user_id", INTEGER, nullable=False),
        sa.Column("expires_at", AT, nullable=False),
        sa.Column("used_at", AT, nullable=True),
        sa.ForeignKeyConstraint(["user_id"], ["users.id"], name=op.f("fk_sign_in_links_user_id")),
        sa.PrimaryKeyConstraint("token_sha256", name=op.f("pk_sign_in_links")),
    )


def _events() -> None:
    op.create_table(
        "events",
        sa.Column("id", INTEGER, nullable=False),
        sa.Column("created_at", AT, nullable=False),
        sa.Column("kind", TEXT, nullable=False),
        sa.Column("dataset_id", INTEGER, nullable=True),
        sa.Column("actor_id", INTEGER, nullable=True),
        sa.Column("subject_id", INTEGER, nullable=True),
        sa.Column("payload", JSON, nullable=False),
        sa.ForeignKeyConstraint(["actor_id"], ["users.id"], name=op.f("fk_events_actor_id")),
        sa.ForeignKeyConstraint(["dataset_id"], ["datasets.id"], name=op.f("fk_events_dataset_id")),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_events")),
    )
    op.create_index("ix_events_dataset_id_kind_id", "events", ["dataset_id", "kind", "id"])


def _jobs() -> None:
    op.create_table(
        "jobs",
        sa.Column("id", INTEGER, nullable=False),
        sa.Column("kind", TEXT, nullable=False),
        sa.Column("dataset_id", INTEGER, nullable=True),
        sa.Column("arguments", JSON, nullable=False),
        sa.Column("unique_key", TEXT, nullable=False),
        sa.Column("queue", TEXT, nullable=False),
        sa.Column("priority", INTEGER, nullable=False),
        sa.Column("state", TEXT, nullable=False),
        sa.Column("attempt", INTEGER, nullable=False),
        sa.Column("max_attempts", INTEGER, nullable=False),
        sa.Column("not_before", AT, nullable=True),
        sa.Column("lease_until", AT, nullable=True),
        sa.Column("cancel_requested", sa.Boolean, nullable=False),
        sa.Column("progress", JSON, nullable=True),
        sa.Column("outcome", JSON, nullable=True),
        sa.Column("reason", TEXT, nullable=True),
        sa.Column("worker", TEXT, nullable=True),
        sa.Column("created_at", AT, nullable=False),
        sa.Column("started_at", AT, nullable=True),
        sa.Column("ended_at", AT, nullable=True),
        sa.CheckConstraint(
            "state in ('queued', 'running', 'done', 'failed', 'cancelled')", name=op.f("ck_jobs_state")
        ),
        sa.ForeignKeyConstraint(["dataset_id"], ["datasets.id"], name=op.f("fk_jobs_dataset_id")),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_jobs")),
        sa.UniqueConstraint("unique_key", name=op.f("uq_jobs_unique_key")),
    )
    op.create_index("ix_jobs_state_queue_priority_id", "jobs", ["state", "queue", "priority", "id"])


def _export_ids() -> None:
    op.create_table(
        "export_ids",
        sa.Column("dataset_id", INTEGER, nullable=False),
        sa.Column("kind", TEXT, nullable=False),
        sa.Column("next_id", INTEGER, nullable=False),
        sa.CheckConstraint("kind in ('image', 'category', 'mask')", name=op.f("ck_export_ids_kind")),
        sa.ForeignKeyConstraint(["dataset_id"], ["datasets.id"], name=op.f("fk_export_ids_dataset_id")),
        sa.PrimaryKeyConstraint("dataset_id", "kind", name=op.f("pk_export_ids")),
    )


def _categories() -> None:
    op.create_table(
        "categories",
        sa.Column("id", INTEGER, nullable=False),
        sa.Column("dataset_id", INTEGER, nullable=False),
        sa.Column("name", TEXT, nullable=False),
        sa.Column("supercategory", TEXT, nullable=True),
        sa.Column("export_id", INTEGER, nullable=False),
        sa.Column("imported_id", INTEGER, nullable=True),
        sa.Column("extra", JSON, nullable=True),
        sa.Column("created_at", AT, nullable=False),
        sa.Column("retired_at", AT, nullable=True),
        sa.ForeignKeyConstraint(["dataset_id"], ["datasets.id"], name=op.f("fk_categories_dataset_id")),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_categories")),
        sa.UniqueConstraint("dataset_id", "export_id", name=op.f("uq_categories_dataset_id_export_id")),
        sa.UniqueConstraint("dataset_id", "name", name=op.f("uq_categories_dataset_id_name")),
    )


def _images() -> None:
    op.create_table(
        "images",
        sa.Column("id", INTEGER, nullable=False),
        sa.Column("dataset_id", INTEGER, nullable=False),
        sa.Column("export_id", INTEGER, nullable=False),
        sa.Column("imported_id", INTEGER, nullable=True),
        sa.Column("original_name", TEXT, nullable=False),
        sa.Column("original_sha256", SHA256, nullable=False),
        sa.Column("pixels_sha256", SHA256, nullable=False),
        sa.Column("media_type", TEXT, nullable=False),
        sa.Column("width", INTEGER, nullable=False),
        sa.Column("height", INTEGER, nullable=False),
        sa.Column("orientation", INTEGER, nullable=False),
        sa.Column("changes", JSON, nullable=False),
        sa.Column("source", TEXT, nullable=True),
        sa.Column("licence", TEXT, nullable=True),
        sa.Column("attribution", TEXT, nullable=True),
        sa.Column("extra", JSON, nullable=True),
        sa.Column("near_duplicate_group", TEXT, nullable=False),
        sa.Column("split", TEXT, nullable=False),
        sa.Column("created_at", AT, nullable=False),
        sa.CheckConstraint("split in ('train', 'val')", name=op.f("ck_images_split")),
        sa.CheckConstraint("width > 0 and height > 0", name=op.f("ck_images_size")),
        sa.ForeignKeyConstraint(["dataset_id"], ["datasets.id"], name=op.f("fk_images_dataset_id")),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_images")),
        sa.UniqueConstraint("dataset_id", "export_id", name=op.f("uq_images_dataset_id_export_id")),
        sa.UniqueConstraint(
            "dataset_id", "original_sha256", name=op.f("uq_images_dataset_id_original_sha256")
        ),
    )
    op.create_index("ix_images_dataset_id_pixels_sha256", "images", ["dataset_id", "pixels_sha256"])


def _image_progress() -> None:
    op.create_table(
        "image_progress",
        sa.Column("image_id", INTEGER, nullable=False),
        sa.Column("stage", TEXT, nullable=False),
        sa.Column("state", TEXT, nullable=False),
        sa.Column("reason", TEXT, nullable=True),
        sa.Column("updated_at", AT, nullable=False),
        sa.CheckConstraint("state in ('done', 'skipped')", name=op.f("ck_image_progress_state")),
        sa.ForeignKeyConstraint(["image_id"], ["images.id"], name=op.f("fk_image_progress_image_id")),
        sa.PrimaryKeyConstraint("image_id", "stage", name=op.f("pk_image_progress")),
    )


# Parents before children; downgrade goes backwards.
TABLES = (
    _datasets,
    _users,
    _sign_in_sessions,
    _sign_in_links,
    _events,
    _jobs,
    _export_ids,
    _categories,
    _images,
    _image_progress,
)
