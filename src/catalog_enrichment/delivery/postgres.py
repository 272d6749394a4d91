"""The PostgreSQL database that values are delivered to: the connection, the revision of its tables, and its errors.

The migrations are Alembic's, in the folder `migrations`. A released migration stays as it is; a change of the tables is
a new file there and its revision in :data:`KNOWN`.
"""

from __future__ import annotations

import os
from collections.abc import Collection, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from catalog_enrichment import extras
from catalog_enrichment.catalog.table_checks import WAY_OUT
from catalog_enrichment.config.operations import DeliveryConfig
from catalog_enrichment.errors import CatalogEnrichmentError, ConfigError, DataContractError, TemporaryFailure
from catalog_enrichment.masking import masked

if TYPE_CHECKING:
    import psycopg
    from alembic.config import Config as AlembicConfig

APPLICATION = "catalog-enrichment"
"""Name of the connection in pg_stat_activity."""

KNOWN = ("0001",)
"""All revisions of the tables, oldest first. This program writes to the newest."""

FOLDER = Path(__file__).parent / "migrations"

_SETTINGS = {
    # a client that vanished must not keep its transaction, and the lock on deliveries, for hours
    "tcp_keepalives_idle": "30s",
    "tcp_keepalives_interval": "10s",
    "tcp_keepalives_count": "3",
    "idle_in_transaction_session_timeout": "10min",
}

# how the server refuses a connection: it sends no SQLSTATE then, so its English text tells
_PASSWORD = ("password authentication failed", "no password supplied", "authentication failed for user")
_FORBIDDEN = ("no pg_hba.conf entry", "is not permitted to log in", "permission denied for database")
_URI = ("invalid connection option", "invalid URI query parameter", "invalid sslmode value", "missing key/value")


@contextmanager
def connected(config: DeliveryConfig, for_migration: bool = False) -> Iterator[psycopg.Connection]:
    """Open a connection with autocommit; inside the block errors of PostgreSQL are raised as this program's.

    ``for_migration``: to `migration_uri`, if it is set. Raises ConfigError without a URI, without psycopg or without
    the password's variable, and what :func:`translated` makes of the server's errors.
    """
    own = for_migration and bool(config.migration_uri)
    uri = config.migration_uri if own else config.uri
    if not uri:
        raise ConfigError("delivery.uri is empty: set it to the database, postgresql://ROLE@HOST/DATABASE")
    try:
        import psycopg
    except ImportError:
        raise ConfigError(extras.missing("psycopg")) from None
    password = "" if own else _password(config.login_variable)
    login = {"password": password} if password else {}
    try:
        with psycopg.connect(
            uri, autocommit=True, connect_timeout=config.connect_seconds, application_name=APPLICATION,
            client_encoding="utf8", tcp_user_timeout=60_000, keepalives_idle=30,
            prepare_threshold=None,  # poolers between here and the server do not know prepared statements
            **login,  # type: ignore[arg-type]
        ) as connection:  # fmt: skip
            for name, value in {**_SETTINGS, "lock_timeout": f"{config.lock_seconds}s"}.items():
                connection.execute("SELECT set_config(%s, %s, false)", (name, value))
            yield connection
    except psycopg.Error as problem:  # not chained: the original may repeat a row
        raise translated(problem, uri, (password, os.environ.get("PGPASSWORD", ""))) from None


def _password(variable: str) -> str:
    if not variable:
        return ""  # libpq looks into PGPASSWORD and ~/.pgpass
    if not (password := os.environ.get(variable, "")):
        raise ConfigError(
            f"delivery.login_variable names the environment variable {variable}, which is empty or not set"
        )
    return password


def server(uri: str) -> str:
    """Return host, port and database of ``uri``, without user and password."""
    parts = urlsplit(uri)
    return f"{parts.netloc.rpartition('@')[2] or 'the local socket'}{parts.path}"


def quoted(name: str) -> str:
    """Return a schema or role of the config, whose names have no quotes, for SQL: a reserved word needs quotes."""
    return f'"{name}"'


def revision(connection: psycopg.Connection, schema: str) -> str | None:
    """Return the revision of the tables in ``schema``, or None if there are no tables."""
    table = f"{quoted(schema)}.alembic_version"
    exists = connection.execute("SELECT to_regclass(%s) IS NOT NULL", (table,)).fetchone()
    if exists is None or not exists[0]:
        return None
    row = connection.execute(f"SELECT version_num FROM {table}").fetchone()
    return None if row is None else str(row[0])


def require_newest(connection: psycopg.Connection, schema: str) -> None:
    """Raise DataContractError unless the tables in ``schema`` have the newest revision."""
    found, needed = revision(connection, schema), KNOWN[-1]
    if found is None:
        raise DataContractError(f"the database has no tables in schema {schema}: run deliver_values --migrate")
    if found not in KNOWN:
        raise DataContractError(
            f"schema {schema} has the revision {found}, which this program does not know: a newer program migrated "
            f"it. Install that program; this program needs {needed}"
        )
    if found != needed:
        raise DataContractError(
            f"schema {schema} has the revision {found}, this program needs {needed}: run deliver_values --migrate"
        )


def migrate(connection: psycopg.Connection, schema: str, role: str) -> tuple[str | None, str]:
    """Bring the tables in ``schema`` to the newest revision and give ``role`` its rights; revisions before and after.

    In one transaction, one migration at a time; ``connection`` is not used afterwards. Raises ConfigError for a role
    that does not exist or without Alembic, DataContractError for a revision that this program does not know.
    """
    try:
        from alembic import command
        from sqlalchemy.exc import DBAPIError
    except ImportError:
        raise ConfigError(extras.missing("alembic")) from None
    if connection.execute("SELECT 1 FROM pg_roles WHERE rolname = %s", (role,)).fetchone() is None:
        raise ConfigError(
            f"delivery.role = {role}: there is no such role in the database. Create it: "
            f"CREATE ROLE {quoted(role)} LOGIN PASSWORD ..."
        )
    # a lock of the session, because Alembic has a transaction of its own
    connection.execute("SELECT pg_advisory_lock(hashtextextended(%s, 0))", (f"migrate {schema}",))
    before = revision(connection, schema)
    if before not in (None, *KNOWN):
        require_newest(connection, schema)
    connection.autocommit = False  # else every statement of a migration would be a transaction
    try:
        command.upgrade(alembic_config(connection, schema, role), "head")
    except DBAPIError as problem:
        raise problem.orig or problem from None
    return before, KNOWN[-1]


def alembic_config(connection: psycopg.Connection, schema: str, role: str) -> AlembicConfig:
    """Return the config of Alembic's commands over ``connection``."""
    from alembic.config import Config

    config = Config()
    config.set_main_option("script_location", str(FOLDER).replace("%", "%%"))
    config.set_main_option("path_separator", "os")
    config.attributes.update(connection=connection, schema=schema, role=role)
    return config


def translated(problem: psycopg.Error, uri: str, secrets: Collection[str]) -> CatalogEnrichmentError:
    """Return the error to raise instead of ``problem``; its message names the server and no password.

    Exit code 2 for what an administrator mends, 4 for what passes by itself, by the SQLSTATE or else the text.
    """
    lines = [line for line in str(problem).splitlines() if line.strip()]
    answer = masked(lines[0] if lines else type(problem).__name__, [secret for secret in secrets if secret])[:300]
    what = f"PostgreSQL at {server(uri)}: {answer}"
    return _by_state(problem.sqlstate, what) if problem.sqlstate else _by_text(str(problem), what)


def _by_state(state: str, what: str) -> CatalogEnrichmentError:
    if state == "42501":
        return ConfigError(
            f"{what}. The role of delivery.uri lacks a right: name it in delivery.role and run deliver_values --migrate"
        )
    if state in ("42P01", "42703", "3F000", "42704"):
        return DataContractError(f"{what}. The tables are not those of this program: run deliver_values --migrate")
    if state == "21000":
        return DataContractError(
            f"{what}. The catalog's table current_values has a product's attribute twice: another program changed it, "
            f"or the products. {WAY_OUT}"
        )
    if state.startswith("28") or state == "3D000":
        return ConfigError(f"{what}. Check delivery.uri, and the password in PGPASSWORD, ~/.pgpass or login_variable")
    if state in ("53100", "53200"):
        return TemporaryFailure(f"{what}. The database server has no room; make room and run again")
    if state == "55P03":
        return TemporaryFailure(f"{what}. Another session holds a lock on the tables for longer than lock_seconds")
    if state == "25006":
        return TemporaryFailure(f"{what}. The server is read-only (a standby?); run again when it takes writes")
    if state[:2] in ("08", "53", "57", "58", "40", "25"):
        return TemporaryFailure(f"{what}. Nothing of this step was applied, or all of it; run again")
    return DataContractError(f"{what} (SQLSTATE {state}). Nothing of this step was applied")


def _by_text(text: str, what: str) -> CatalogEnrichmentError:
    if any(part in text for part in _PASSWORD):
        return ConfigError(f"{what}. Give the password in PGPASSWORD, ~/.pgpass or the variable of login_variable")
    if any(part in text for part in _URI):
        return ConfigError(f"{what}. Correct delivery.uri")
    if any(part in text for part in _FORBIDDEN) or ("FATAL" in text and "does not exist" in text):
        return ConfigError(f"{what}. Create the role and the database of delivery.uri, and let the role connect")
    return TemporaryFailure(
        f"{what}. The connection failed or was lost; what was committed is kept. Run again when the server answers"
    )
