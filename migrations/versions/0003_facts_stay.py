"""The view of current masks, and triggers: facts are never edited, held-out images never train.

Revision ID: 0003
Revises: 0002
"""

from alembic import op

revision = "0003"
down_revision = "0002"
branch_labels = None
depends_on = None

# A refusal reads as a broken constraint (IntegrityError) on both databases.
NEVER_EDITED = (
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
    "events",
)
# Old embeddings may go (gc): they can be computed again.
NEVER_DELETED = tuple(table for table in NEVER_EDITED if table != "embeddings")
HELD_OUT = {
    "snapshot_images": "SELECT split FROM images WHERE id = NEW.image_id",
    "snapshot_masks": "SELECT split FROM images i JOIN masks m ON m.image_id = i.id WHERE m.id = NEW.mask_id",
}
IN_TRAINING = "(SELECT kind FROM snapshots WHERE id = NEW.snapshot_id) = 'training'"
NO_LEAK = "a held-out image enters no training snapshot"

CURRENT_MASKS = """
CREATE VIEW current_masks AS
SELECT m.id AS mask_id, m.dataset_id AS dataset_id, m.image_id AS image_id
FROM masks m
WHERE NOT m.second_opinion
  AND NOT EXISTS (SELECT 1 FROM masks n WHERE n.supersedes_id = m.id AND NOT n.second_opinion)
  AND NOT EXISTS (SELECT 1 FROM annotations a WHERE a.act = 'delete' AND a.target_mask_id = m.id)
"""

REFUSE_EDIT = """
CREATE FUNCTION refuse_edit() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    RAISE EXCEPTION '% are facts: they are never edited or deleted', TG_TABLE_NAME
        USING ERRCODE = 'integrity_constraint_violation';
END $$
"""


def upgrade() -> None:
    op.execute(CURRENT_MASKS)
    if op.get_bind().dialect.name == "sqlite":
        _refuse_on_sqlite()
    else:
        _refuse_on_postgres()


def downgrade() -> None:
    on_sqlite = op.get_bind().dialect.name == "sqlite"
    for name, table in _triggers(on_sqlite):
        op.execute(f"DROP TRIGGER {name}" if on_sqlite else f"DROP TRIGGER {name} ON {table}")
    if not on_sqlite:
        for function in ("refuse_edit", *(f"{table}_refuse_held_out" for table in HELD_OUT)):
            op.execute(f"DROP FUNCTION {function}()")
    op.execute("DROP VIEW current_masks")


def _triggers(on_sqlite: bool) -> list[tuple[str, str]]:
    """(trigger, table) of everything this revision makes."""
    verbs = {"update": NEVER_EDITED, "delete": NEVER_DELETED}
    # SQLite has no TRUNCATE; there, DELETE without a condition fires the row trigger.
    verbs |= {} if on_sqlite else {"truncate": NEVER_DELETED}
    verbs |= {"held_out": tuple(HELD_OUT)}
    return [(f"{table}_refuse_{verb}", table) for verb, tables in verbs.items() for table in tables]


def _refuse_on_sqlite() -> None:
    for name, table in _triggers(on_sqlite=True):
        verb = name.removeprefix(f"{table}_refuse_")
        if verb == "held_out":
            when = f"BEFORE INSERT ON {table} WHEN {IN_TRAINING} AND ({HELD_OUT[table]}) = 'val'"
            sentence = NO_LEAK
        else:
            when, sentence = (
                f"BEFORE {verb} ON {table}",
                f"{table} are facts: they are never edited or deleted",
            )
        op.execute(f"CREATE TRIGGER {name} {when} BEGIN SELECT RAISE(ABORT, '{sentence}'); END")


def _refuse_on_postgres() -> None:
    op.execute(REFUSE_EDIT)
    for table, split in HELD_OUT.items():
        op.execute(_refuse_held_out(table, split))
    for name, table in _triggers(on_sqlite=False):
        verb = name.removeprefix(f"{table}_refuse_")
        if verb == "held_out":
            op.execute(
                f"CREATE TRIGGER {name} BEFORE INSERT ON {table} FOR EACH ROW EXECUTE FUNCTION {name}()"
            )
        else:
            each = "STATEMENT" if verb == "truncate" else "ROW"
            act = f"BEFORE {verb} ON {table} FOR EACH {each} EXECUTE FUNCTION refuse_edit()"
            op.execute(f"CREATE TRIGGER {name} {act}")


def _refuse_held_out(table: str, split: str) -> str:
    return f"""
CREATE FUNCTION {table}_refuse_held_out() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    IF {IN_TRAINING} AND ({split}) = 'val' THEN
        RAISE EXCEPTION '{NO_LEAK}' USING ERRCODE = 'integrity_constraint_violation';
    END IF;
    RETURN NEW;
END $$
"""
