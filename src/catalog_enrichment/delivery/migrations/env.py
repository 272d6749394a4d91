"""Alembic runs this file: the migrations over the connection of postgres.migrate, in one transaction."""

from __future__ import annotations

from alembic import context
from sqlalchemy import Connection, create_engine, text
from sqlalchemy.pool import StaticPool
from sqlalchemy.sql.elements import quoted_name

from catalog_enrichment.delivery.postgres import quoted


def run() -> None:
    attributes = context.config.attributes
    engine = create_engine("postgresql+psycopg://", creator=lambda: attributes["connection"], poolclass=StaticPool)
    with engine.connect() as connection:
        schema = quoted(attributes["schema"])
        with connection.begin():
            # alembic's own table is made in the schema before the first migration runs
            connection.execute(text(f"CREATE SCHEMA IF NOT EXISTS {schema}"))
            own = quoted_name(attributes["schema"], quote=True)
            context.configure(connection=connection, version_table_schema=own, transactional_ddl=True)
            with context.begin_transaction():
                context.run_migrations()
            if connection.execute(text(f"SELECT to_regclass('{schema}.delivered_values')")).scalar():
                _grant(connection, schema, quoted(attributes["role"]))


_RELATIONS = ("delivered_values", "merchant_values", "catalog_values", "position", "deliveries", "alembic_version")
"""What the migrations make. On other tables of the schema the role keeps its rights."""


def _grant(connection: Connection, schema: str, role: str) -> None:
    """Give ``role`` exactly the rights of a delivery: none on merchants' values. Both names are quoted."""
    for statement in (
        f"REVOKE ALL ON {', '.join(f'{schema}.{relation}' for relation in _RELATIONS)} FROM {role}",
        f"GRANT USAGE ON SCHEMA {schema} TO {role}",
        f"GRANT SELECT, INSERT, UPDATE, DELETE ON {schema}.delivered_values TO {role}",
        f"GRANT SELECT, UPDATE ON {schema}.position TO {role}",
        f"GRANT SELECT, INSERT ON {schema}.deliveries TO {role}",
        f"GRANT SELECT ON {schema}.alembic_version TO {role}",
    ):
        connection.execute(text(statement))


run()
