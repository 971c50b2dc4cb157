"""How Alembic reaches the database: through a connection it is given, or through the settings of the home."""

from alembic import context
from sqlalchemy import Connection, Engine, text

from engine.config import load_settings
from engine.store.session import open_workspace
from engine.store.tables import metadata

# Two processes that upgrade at once take turns (SQLite's BEGIN IMMEDIATE does the same there).
UPGRADE_LOCK = 20261122


def run(connection: Connection) -> None:
    """Runs the asked revisions in the caller's transaction: all of them, or none."""
    if connection.dialect.name == "postgresql":
        connection.execute(text(f"SELECT pg_advisory_xact_lock({UPGRADE_LOCK})"))
    context.configure(
        connection=connection, target_metadata=metadata, compare_type=True, transactional_ddl=True
    )
    with context.begin_transaction():
        context.run_migrations()


given = context.config.attributes.get("connection")
if given is None:
    given = open_workspace(load_settings(), check_revision=False).engine
if isinstance(given, Engine):
    with given.begin() as begun:
        run(begun)
else:
    run(given)
