"""The revision of the tables in the database: which one this program needs, which one is there, how it gets there.

The migrations are Alembic's, in the folder `migrations`. Every one that was released stays as it is; a change is a new
file there and its revision here.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from catalog_enrichment.errors import ConfigError, DataContractError

if TYPE_CHECKING:
    import psycopg
    from alembic.config import Config as AlembicConfig

KNOWN = ("0001",)
"""All revisions, oldest first."""

NEEDED = KNOWN[-1]
"""The revision of the tables that this program writes."""

FOLDER = Path(__file__).parent / "migrations"


def present(connection: psycopg.Connection, schema: str) -> str | None:
    """The revision of the tables in ``schema``; None if there are none."""
    table = f"{schema}.alembic_version"
    exists = connection.execute("SELECT to_regclass(%s) IS NOT NULL", (table,)).fetchone()
    if exists is None or not exists[0]:
        return None
    row = connection.execute(f"SELECT version_num FROM {table}").fetchone()
    return None if row is None else str(row[0])


def require(connection: psycopg.Connection, schema: str) -> None:
    """Raises DataContractError unless the tables in ``schema`` have the revision NEEDED."""
    found = present(connection, schema)
    if found == NEEDED:
        return
    if found is None:
        raise DataContractError(f"the database has no tables in schema {schema}: run deliver_values --migrate")
    if found not in KNOWN:
        raise DataContractError(
            f"schema {schema} has the revision {found}, which this program does not know: a newer one migrated it. "
            f"Install that; this one needs {NEEDED}"
        )
    raise DataContractError(
        f"schema {schema} has the revision {found}, this program needs {NEEDED}: run deliver_values --migrate"
    )


def migrate(connection: psycopg.Connection, schema: str, role: str) -> tuple[str | None, str]:
    """Bring the tables in ``schema`` to the revision NEEDED and give ``role`` its rights; revisions before and after.

    In one transaction, one migration at a time; ``connection`` is not used afterwards. Raises ConfigError for a role
    that does not exist or without Alembic, DataContractError for a revision that this program does not know.
    """
    try:
        from alembic import command
        from sqlalchemy.exc import DBAPIError
    except ImportError:
        raise ConfigError("alembic is not installed: pip install 'catalog-enrichment[postgres]'") from None
    if connection.execute("SELECT 1 FROM pg_roles WHERE rolname = %s", (role,)).fetchone() is None:
        raise ConfigError(
            f"delivery.role = {role}: there is no such role in the database. Create it: "
            f"CREATE ROLE {role} LOGIN PASSWORD ..."
        )
    # of the session: alembic's transaction is not this one
    connection.execute("SELECT pg_advisory_lock(hashtextextended(%s, 0))", (f"migrate {schema}",))
    before = present(connection, schema)
    if before is not None and before not in KNOWN:
        require(connection, schema)
    connection.autocommit = False  # else every statement of a migration would be a transaction
    try:
        command.upgrade(alembic_config(connection, schema, role), "head")
    except DBAPIError as problem:
        raise problem.orig or problem from None
    return before, NEEDED


def alembic_config(connection: psycopg.Connection, schema: str, role: str) -> AlembicConfig:
    """For alembic's commands over ``connection``."""
    from alembic.config import Config

    config = Config()
    config.set_main_option("script_location", str(FOLDER).replace("%", "%%"))
    config.set_main_option("path_separator", "os")
    config.attributes.update(connection=connection, schema=schema, role=role)
    return config
