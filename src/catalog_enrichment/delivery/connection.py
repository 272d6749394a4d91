"""The connection to the PostgreSQL database that values are delivered to."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from catalog_enrichment.config.delivery import DeliveryConfig
from catalog_enrichment.delivery.postgres_errors import answering
from catalog_enrichment.errors import ConfigError

if TYPE_CHECKING:
    import psycopg

APPLICATION = "catalog-enrichment"
"""Name of the connection in pg_stat_activity."""

_ENDS_SOON = {
    # a client that vanished must not keep its transaction, and the lock on deliveries, for hours
    "tcp_keepalives_idle": "30s",
    "tcp_keepalives_interval": "10s",
    "tcp_keepalives_count": "3",
    "idle_in_transaction_session_timeout": "10min",
}


@contextmanager
def connected(config: DeliveryConfig, for_migration: bool = False) -> Iterator[psycopg.Connection]:
    """An open connection with autocommit; inside the block errors of PostgreSQL are raised as this program's.

    ``for_migration``: to `migration_uri`, if there is one. Raises ConfigError without a URI, without psycopg or without
    the password's variable, and what :mod:`postgres_errors` makes of the server's answers.
    """
    own = for_migration and bool(config.migration_uri)
    uri = config.migration_uri if own else config.uri
    if not uri:
        raise ConfigError("delivery.uri is empty: set it to the database, postgresql://ROLE@HOST/DATABASE")
    try:
        import psycopg
    except ImportError:
        raise ConfigError("psycopg is not installed: pip install 'catalog-enrichment[postgres]'") from None
    password = "" if own else _password(config.login_variable)
    given = {"password": password} if password else {}
    secrets = (password, os.environ.get("PGPASSWORD", ""))
    with answering(uri, secrets), psycopg.connect(
        uri, autocommit=True, connect_timeout=config.connect_seconds, application_name=APPLICATION,
        client_encoding="utf8", tcp_user_timeout=60_000, keepalives_idle=30,
        prepare_threshold=None,  # poolers between here and the server do not know prepared statements
        **given,  # type: ignore[arg-type]
    ) as connection:  # fmt: skip
        for name, value in {**_ENDS_SOON, "lock_timeout": f"{config.lock_seconds}s"}.items():
            connection.execute("SELECT set_config(%s, %s, false)", (name, value))
        yield connection


def _password(variable: str) -> str:
    if not variable:
        return ""  # libpq looks into PGPASSWORD and ~/.pgpass
    if not (password := os.environ.get(variable, "")):
        raise ConfigError(
            f"delivery.login_variable names the environment variable {variable}, which is empty or not set"
        )
    return password
