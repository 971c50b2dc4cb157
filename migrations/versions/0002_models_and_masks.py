"""Model versions, the acts of people, the masks that come of them, and the snapshots that freeze masks.

Revision ID: 0002
Revises: 0001
"""

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import postgresql

revision = "0002"
down_revision = "0001"
branch_labels = None
depends_on = None

# Frozen here on purpose: a later change of engine/store must not change what this revision made.
INTEGER = sa.BigInteger().with_variant(sa.Integer(), "sqlite")
JSON = sa.JSON(none_as_null=True).with_variant(postgresql.JSONB(none_as_null=True), "postgresql")
AT = sa.DateTime(timezone=True)
SHA256 = sa.String(64)
TEXT = sa.String()
TO_MASKS = "fk_annotations_target_mask_id"


def upgrade() -> None:
    for create in TABLES:
        create()
    if op.get_bind().dialect.name != "sqlite":
        op.create_foreign_key(TO_MASKS, "annotations", "masks", ["target_mask_id"], ["id"])


def downgrade() -> None:
    if op.get_bind().dialect.name == "sqlite":
        # The two tables point at each other, so neither can go first while rows are held by the other.
        op.execute("PRAGMA defer_foreign_keys = ON")
    else:
        op.drop_constraint(TO_MASKS, "annotations", type_="foreignkey")
    for create in reversed(TABLES):
        op.drop_table(create.__name__.removeprefix("_"))


def _snapshots() -> None:
    op.create_table(
        "snapshots",
        sa.Column("id", INTEGER, nullable=False),
        sa.Column("dataset_id", INTEGER, nullable=False),
        sa.Column("name", TEXT, nullable=False),
        sa.Column("kind", TEXT, nullable=False),
        sa.Column("digest_sha256", SHA256, nullable=False),
        sa.Column("query", JSON, nullable=False),
        sa.Column("n_images", INTEGER, nullable=False),
        sa.Column("n_masks", INTEGER, nullable=False),
        sa.Column("created_at", AT, nullable=False),
        sa.CheckConstraint("kind in ('training', 'evaluation', 'release')", name=op.f("ck_snapshots_kind")),
        sa.ForeignKeyConstraint(["dataset_id"], ["datasets.id"], name=op.f("fk_snapshots_dataset_id")),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_snapshots")),
        sa.UniqueConstraint("dataset_id", "name", name=op.f("uq_snapshots_dataset_id_name")),
    )
    op.create_index(op.f("ix_snapshots_digest_sha256"), "snapshots", ["digest_sha256"])


def _snapshot_images() -> None:
    op.create_table(
        "snapshot_images",
        sa.Column("snapshot_id", INTEGER, nullable=False),
        sa.Column("image_id", INTEGER, nullable=False),
        sa.ForeignKeyConstraint(["image_id"], ["images.id"], name=op.f("fk_snapshot_images_image_id")),
        sa.ForeignKeyConstraint(
            ["snapshot_id"], ["snapshots.id"], name=op.f("fk_snapshot_images_snapshot_id")
        ),
        sa.PrimaryKeyConstraint("snapshot_id", "image_id", name=op.f("pk_snapshot_images")),
    )


def _exports() -> None:
    op.create_table(
        "exports",
        sa.Column("id", INTEGER, nullable=False),
        sa.Column("snapshot_id", INTEGER, nullable=False),
        sa.Column("format", TEXT, nullable=False),
        sa.Column("options", JSON, nullable=False),
        sa.Column("manifest_sha256", SHA256, nullable=False),
        sa.Column("n_masks", INTEGER, nullable=False),
        sa.Column("created_at", AT, nullable=False),
        sa.ForeignKeyConstraint(["snapshot_id"], ["snapshots.id"], name=op.f("fk_exports_snapshot_id")),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_exports")),
    )
    op.create_index(op.f("ix_exports_snapshot_id"), "exports", ["snapshot_id"])


def _model_versions() -> None:
    op.create_table(
        "model_versions",
        sa.Column("id", INTEGER, nullable=False),
        sa.Column("dataset_id", INTEGER, nullable=False),
        sa.Column("name", TEXT, nullable=False),
        sa.Column("architecture", TEXT, nullable=False),
        sa.Column("config", JSON, nullable=False),
        sa.Column("weights_sha256", SHA256, nullable=False),
        sa.Column("decoder_sha256", SHA256, nullable=False),
        sa.Column("parent_id", INTEGER, nullable=True),
        sa.Column("snapshot_id", INTEGER, nullable=True),
        sa.Column("training", JSON, nullable=True),
        sa.Column("created_at", AT, nullable=False),
        sa.ForeignKeyConstraint(["dataset_id"], ["datasets.id"], name=op.f("fk_model_versions_dataset_id")),
        sa.ForeignKeyConstraint(
            ["parent_id"], ["model_versions.id"], name=op.f("fk_model_versions_parent_id")
        ),
        sa.ForeignKeyConstraint(
            ["snapshot_id"], ["snapshots.id"], name=op.f("fk_model_versions_snapshot_id")
        ),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_model_versions")),
        sa.UniqueConstraint("dataset_id", "name", name=op.f("uq_model_versions_dataset_id_name")),
        sa.UniqueConstraint(
            "dataset_id", "weights_sha256", name=op.f("uq_model_versions_dataset_id_weights_sha256")
        ),
    )


def _decisions() -> None:
    op.create_table(
        "decisions",
        sa.Column("id", INTEGER, nullable=False),
        sa.Column("model_version_id", INTEGER, nullable=False),
        sa.Column("verdict", TEXT, nullable=False),
        sa.Column("reason", TEXT, nullable=False),
        sa.Column("figures", JSON, nullable=False),
        sa.Column("created_at", AT, nullable=False),
        sa.CheckConstraint("verdict in ('promote', 'refuse')", name=op.f("ck_decisions_verdict")),
        sa.ForeignKeyConstraint(
            ["model_version_id"], ["model_versions.id"], name=op.f("fk_decisions_model_version_id")
        ),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_decisions")),
        sa.UniqueConstraint("model_version_id", name=op.f("uq_decisions_model_version_id")),
    )


def _active_models() -> None:
    op.create_table(
        "active_models",
        sa.Column("dataset_id", INTEGER, nullable=False),
        sa.Column("model_version_id", INTEGER, nullable=False),
        sa.Column("activated_at", AT, nullable=False),
        sa.ForeignKeyConstraint(["dataset_id"], ["datasets.id"], name=op.f("fk_active_models_dataset_id")),
        sa.ForeignKeyConstraint(
            ["model_version_id"], ["model_versions.id"], name=op.f("fk_active_models_model_version_id")
        ),
        sa.PrimaryKeyConstraint("dataset_id", name=op.f("pk_active_models")),
    )


def _evaluations() -> None:
    op.create_table(
        "evaluations",
        sa.Column("id", INTEGER, nullable=False),
        sa.Column("model_version_id", INTEGER, nullable=False),
        sa.Column("snapshot_id", INTEGER, nullable=False),
        sa.Column("protocol_sha256", SHA256, nullable=False),
        sa.Column("protocol", JSON, nullable=False),
        sa.Column("figures", JSON, nullable=False),
        sa.Column("created_at", AT, nullable=False),
        sa.ForeignKeyConstraint(
            ["model_version_id"], ["model_versions.id"], name=op.f("fk_evaluations_model_version_id")
        ),
        sa.ForeignKeyConstraint(["snapshot_id"], ["snapshots.id"], name=op.f("fk_evaluations_snapshot_id")),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_evaluations")),
        sa.UniqueConstraint(
            "model_version_id",
            "snapshot_id",
            "protocol_sha256",
            name=op.f("uq_evaluations_model_version_id_snapshot_id_protocol_sha256"),
        ),
    )


def _embeddings() -> None:
    op.create_table(
        "embeddings",
        sa.Column("id", INTEGER, nullable=False),
        sa.Column("image_id", INTEGER, nullable=False),
        sa.Column("model_version_id", INTEGER, nullable=False),
        sa.Column("blob_sha256", SHA256, nullable=False),
        sa.Column("dtype", TEXT, nullable=False),
        sa.Column("shape", JSON, nullable=False),
        sa.Column("n_bytes", INTEGER, nullable=False),
        sa.Column("created_at", AT, nullable=False),
        sa.ForeignKeyConstraint(["image_id"], ["images.id"], name=op.f("fk_embeddings_image_id")),
        sa.ForeignKeyConstraint(
            ["model_version_id"], ["model_versions.id"], name=op.f("fk_embeddings_model_version_id")
        ),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_embeddings")),
        sa.UniqueConstraint(
            "image_id", "model_version_id", name=op.f("uq_embeddings_image_id_model_version_id")
        ),
    )
    op.create_index(op.f("ix_embeddings_model_version_id"), "embeddings", ["model_version_id"])


def _proposals() -> None:
    op.create_table(
        "proposals",
        sa.Column("id", INTEGER, nullable=False),
        sa.Column("image_id", INTEGER, nullable=False),
        sa.Column("model_version_id", INTEGER, nullable=False),
        sa.Column("stage", TEXT, nullable=False),
        sa.Column("config_sha256", SHA256, nullable=False),
        sa.Column("counts", TEXT, nullable=False),
        sa.Column("area", INTEGER, nullable=False),
        sa.Column("bbox_xywh", JSON, nullable=False),
        sa.Column("predicted_iou", sa.Float, nullable=False),
        sa.Column("stability_score", sa.Float, nullable=False),
        sa.Column("crop_box_xywh", JSON, nullable=False),
        sa.Column("point_coords", JSON, nullable=False),
        sa.Column("created_at", AT, nullable=False),
        sa.ForeignKeyConstraint(["image_id"], ["images.id"], name=op.f("fk_proposals_image_id")),
        sa.ForeignKeyConstraint(
            ["model_version_id"], ["model_versions.id"], name=op.f("fk_proposals_model_version_id")
        ),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_proposals")),
    )
    op.create_index("ix_proposals_image_id_model_version_id", "proposals", ["image_id", "model_version_id"])


def _assignments() -> None:
    op.create_table(
        "assignments",
        sa.Column("id", INTEGER, nullable=False),
        sa.Column("image_id", INTEGER, nullable=False),
        sa.Column("stage", TEXT, nullable=False),
        sa.Column("user_id", INTEGER, nullable=False),
        sa.Column("model_version_id", INTEGER, nullable=False),
        sa.Column("state", TEXT, nullable=False),
        sa.Column("lease_until", AT, nullable=False),
        sa.Column("opened_at", AT, nullable=False),
        sa.Column("ended_at", AT, nullable=True),
        sa.CheckConstraint(
            "state in ('open', 'submitted', 'skipped', 'released', 'expired')",
            name=op.f("ck_assignments_state"),
        ),
        sa.ForeignKeyConstraint(["image_id"], ["images.id"], name=op.f("fk_assignments_image_id")),
        sa.ForeignKeyConstraint(
            ["model_version_id"], ["model_versions.id"], name=op.f("fk_assignments_model_version_id")
        ),
        sa.ForeignKeyConstraint(["user_id"], ["users.id"], name=op.f("fk_assignments_user_id")),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_assignments")),
    )
    op.create_index("ix_assignments_user_id_state", "assignments", ["user_id", "state"])
    op.create_index(
        "uq_assignments_open",
        "assignments",
        ["image_id", "stage"],
        unique=True,
        sqlite_where=sa.text("state = 'open'"),
        postgresql_where=sa.text("state = 'open'"),
    )


def _annotations() -> None:
    target = sa.ForeignKeyConstraint(["target_mask_id"], ["masks.id"], name=op.f(TO_MASKS))
    # SQLite cannot add the key later, but lets a table name one that is not there yet.
    to_masks = [target] if op.get_bind().dialect.name == "sqlite" else []
    op.create_table(
        "annotations",
        sa.Column("id", INTEGER, nullable=False),
        sa.Column("client_id", SHA256, nullable=False),
        sa.Column("body_sha256", SHA256, nullable=False),
        sa.Column("act", TEXT, nullable=False),
        sa.Column("image_id", INTEGER, nullable=False),
        sa.Column("author_id", INTEGER, nullable=False),
        sa.Column("assignment_id", INTEGER, nullable=False),
        sa.Column("target_mask_id", INTEGER, nullable=True),
        sa.Column("model_version_id", INTEGER, nullable=True),
        sa.Column("embedding_sha256", SHA256, nullable=True),
        sa.Column("prompts", JSON, nullable=False),
        sa.Column("chosen", JSON, nullable=False),
        sa.Column("strokes", JSON, nullable=False),
        sa.Column("predicted_iou", sa.Float, nullable=True),
        sa.Column("stability_score", sa.Float, nullable=True),
        sa.Column("counts", TEXT, nullable=True),
        sa.Column("n_clicks", INTEGER, nullable=False),
        sa.Column("n_undos", INTEGER, nullable=False),
        sa.Column("active_ms", INTEGER, nullable=False),
        sa.Column("created_at", AT, nullable=False),
        sa.CheckConstraint(
            "act = 'accept' or target_mask_id is not null", name=op.f("ck_annotations_target")
        ),
        sa.CheckConstraint("act in ('accept', 'delete', 'restore')", name=op.f("ck_annotations_act")),
        sa.ForeignKeyConstraint(
            ["assignment_id"], ["assignments.id"], name=op.f("fk_annotations_assignment_id")
        ),
        sa.ForeignKeyConstraint(["author_id"], ["users.id"], name=op.f("fk_annotations_author_id")),
        sa.ForeignKeyConstraint(["image_id"], ["images.id"], name=op.f("fk_annotations_image_id")),
        sa.ForeignKeyConstraint(
            ["model_version_id"], ["model_versions.id"], name=op.f("fk_annotations_model_version_id")
        ),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_annotations")),
        sa.UniqueConstraint("client_id", name=op.f("uq_annotations_client_id")),
        *to_masks,
    )
    op.create_index(op.f("ix_annotations_author_id"), "annotations", ["author_id"])
    op.create_index("ix_annotations_image_id_created_at", "annotations", ["image_id", "created_at"])
    op.create_index(op.f("ix_annotations_target_mask_id"), "annotations", ["target_mask_id"])


def _masks() -> None:
    op.create_table(
        "masks",
        sa.Column("id", INTEGER, nullable=False),
        sa.Column("dataset_id", INTEGER, nullable=False),
        sa.Column("image_id", INTEGER, nullable=False),
        sa.Column("annotation_id", INTEGER, nullable=True),
        sa.Column("proposal_id", INTEGER, nullable=True),
        sa.Column("supersedes_id", INTEGER, nullable=True),
        sa.Column("export_id", INTEGER, nullable=False),
        sa.Column("imported_id", INTEGER, nullable=True),
        sa.Column("height", INTEGER, nullable=False),
        sa.Column("width", INTEGER, nullable=False),
        sa.Column("counts", TEXT, nullable=False),
        sa.Column("area", INTEGER, nullable=False),
        sa.Column("bbox_xywh", JSON, nullable=False),
        sa.Column("stage", TEXT, nullable=True),
        sa.Column("source", TEXT, nullable=False),
        sa.Column("touched_by_person", sa.Boolean, nullable=False),
        sa.Column("second_opinion", sa.Boolean, nullable=False),
        sa.Column("predicted_iou", sa.Float, nullable=True),
        sa.Column("stability_score", sa.Float, nullable=True),
        sa.Column("crop_box_xywh", JSON, nullable=True),
        sa.Column("prompts", JSON, nullable=False),
        sa.Column("chosen", JSON, nullable=False),
        sa.Column("model_version_id", INTEGER, nullable=True),
        sa.Column("author_id", INTEGER, nullable=True),
        sa.Column("active_seconds", sa.Float, nullable=True),
        sa.Column("category_id", INTEGER, nullable=True),
        sa.Column("iscrowd", INTEGER, nullable=False),
        sa.Column("attributes", JSON, nullable=True),
        sa.Column("extra", JSON, nullable=True),
        sa.Column("created_at", AT, nullable=False),
        sa.CheckConstraint("source in ('human', 'model', 'imported')", name=op.f("ck_masks_source")),
        sa.CheckConstraint("area >= 0", name=op.f("ck_masks_area")),
        sa.ForeignKeyConstraint(["annotation_id"], ["annotations.id"], name=op.f("fk_masks_annotation_id")),
        sa.ForeignKeyConstraint(["author_id"], ["users.id"], name=op.f("fk_masks_author_id")),
        sa.ForeignKeyConstraint(["category_id"], ["categories.id"], name=op.f("fk_masks_category_id")),
        sa.ForeignKeyConstraint(["dataset_id"], ["datasets.id"], name=op.f("fk_masks_dataset_id")),
        sa.ForeignKeyConstraint(["image_id"], ["images.id"], name=op.f("fk_masks_image_id")),
        sa.ForeignKeyConstraint(
            ["model_version_id"], ["model_versions.id"], name=op.f("fk_masks_model_version_id")
        ),
        sa.ForeignKeyConstraint(["proposal_id"], ["proposals.id"], name=op.f("fk_masks_proposal_id")),
        sa.ForeignKeyConstraint(["supersedes_id"], ["masks.id"], name=op.f("fk_masks_supersedes_id")),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_masks")),
    )
    op.create_index(op.f("ix_masks_author_id"), "masks", ["author_id"])
    op.create_index("ix_masks_dataset_id_export_id", "masks", ["dataset_id", "export_id"])
    op.create_index("ix_masks_image_id_id", "masks", ["image_id", "id"])
    op.create_index(op.f("ix_masks_model_version_id"), "masks", ["model_version_id"])
    op.create_index("uq_masks_annotation_id", "masks", ["annotation_id"], unique=True)
    op.create_index("uq_masks_supersedes_id", "masks", ["supersedes_id"], unique=True)


def _snapshot_masks() -> None:
    op.create_table(
        "snapshot_masks",
        sa.Column("snapshot_id", INTEGER, nullable=False),
        sa.Column("mask_id", INTEGER, nullable=False),
        sa.ForeignKeyConstraint(["mask_id"], ["masks.id"], name=op.f("fk_snapshot_masks_mask_id")),
        sa.ForeignKeyConstraint(
            ["snapshot_id"], ["snapshots.id"], name=op.f("fk_snapshot_masks_snapshot_id")
        ),
        sa.PrimaryKeyConstraint("snapshot_id", "mask_id", name=op.f("pk_snapshot_masks")),
    )
    op.create_index("ix_snapshot_masks_mask_id", "snapshot_masks", ["mask_id"])


# Parents before children; downgrade goes backwards.
TABLES = (
    _snapshots,
    _snapshot_images,
    _exports,
    _model_versions,
    _decisions,
    _active_models,
    _evaluations,
    _embeddings,
    _proposals,
    _assignments,
    _annotations,
    _masks,
    _snapshot_masks,
)
