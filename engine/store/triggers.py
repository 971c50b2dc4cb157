"""What the database itself forbids, by name: migrations make these triggers, `db check` looks for them."""

from sqlalchemy import Connection, text

# Written once by their arrow. Embeddings may be deleted (gc), since they can be computed again.
FACTS = (
    "images",
    "embeddings",
    "proposals",
    "annotations",
    "masks",
    "snapshots",
    "snapshot_images",
    "snapshot_masks",
    "model_versions",
    "decisions",
    "evaluations",
    "exports",
    "detector_versions",
    "generations",
    "reviews",
    "events",
)
DELETABLE_FACTS = ("embeddings",)
# Where a held-out image could slip into training.
GUARDED_FROM_HELD_OUT = ("snapshot_images", "snapshot_masks")

INSTALLED = {
    "sqlite": "SELECT name FROM sqlite_master WHERE type = 'trigger'",
    "postgresql": """
        SELECT tgname FROM pg_trigger JOIN pg_class ON pg_class.oid = tgrelid
        WHERE NOT tgisinternal AND tgenabled = 'O' AND relnamespace = current_schema()::regnamespace
    """,
}


def wanted_triggers(dialect: str) -> frozenset[str]:
    """Names of the triggers a database of that dialect must have."""
    kept = [table for table in FACTS if table not in DELETABLE_FACTS]
    verbs = {"update": list(FACTS), "delete": kept, "held_out": list(GUARDED_FROM_HELD_OUT)}
    if dialect == "postgresql":
        verbs["truncate"] = kept
    return frozenset(f"{table}_refuse_{verb}" for verb, tables in verbs.items() for table in tables)


def installed_triggers(connection: Connection) -> frozenset[str]:
    """Names of the enabled triggers the database has."""
    return frozenset(connection.execute(text(INSTALLED[connection.dialect.name])).scalars())
