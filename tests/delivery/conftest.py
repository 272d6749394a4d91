"""A database with the tables of the sink, a role for deliveries, and a small catalog to deliver."""

from __future__ import annotations

import itertools
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import psycopg
import pytest

from catalog_enrichment.config.operations import DeliveryConfig
from catalog_enrichment.delivery import deliver

from ..postgres_server import PostgresServer
from .histories import State, Versions

ROLE = "catalog_delivery"
_NUMBERS = itertools.count()


@dataclass
class Database:
    """A database of its own, and the config that delivers to it."""

    server: PostgresServer
    name: str
    config: DeliveryConfig

    def query(self, text: str, values: tuple[Any, ...] = (), user: str = "tests") -> list[tuple[Any, ...]]:
        with psycopg.connect(self.server.uri(self.name, user), autocommit=True) as connection:
            cursor = connection.execute(text, values)  # type: ignore[arg-type]
            return cursor.fetchall() if cursor.description else []

    def rows(self) -> State:
        """What was delivered, as histories.Versions.seen gives it."""
        names = ("values", "number", "unit", "source", "run_id", "model_version", "certificate_id", "asserted_at")
        found = self.query(
            'SELECT product_id, attribute, "values", number, unit, source, run_id, model_version, certificate_id, '
            "asserted_at FROM enriched.delivered_values"
        )
        return {(row[0], row[1]): dict(zip(names, row[2:], strict=True)) for row in found}

    def readers_see(self) -> dict[tuple[str, str], tuple[list[str], str]]:
        found = self.query('SELECT product_id, attribute, "values", source FROM enriched.catalog_values')
        assert len({row[:2] for row in found}) == len(found)
        return {(row[0], row[1]): (row[2], row[3]) for row in found}

    def deliver(self, versions: Versions, **options: Any) -> dict[str, Any]:
        return deliver.deliver_values(versions.catalog, self.config, say=lambda _: None, **options)


def new_database(server: PostgresServer, role: str = ROLE) -> Database:
    name = f"delivery_{next(_NUMBERS)}"
    server.new_database(name)
    config = DeliveryConfig(uri=server.uri(name, role), migration_uri=server.uri(name), role=role)
    found = Database(server, name, config)
    if not found.query("SELECT 1 FROM pg_roles WHERE rolname = %s", (role,)):
        found.query(f"CREATE ROLE {role} LOGIN")
    return found


@pytest.fixture(scope="session")
def shared_database(postgres: PostgresServer) -> Database:
    return new_database(postgres)


@pytest.fixture
def empty_database(shared_database: Database) -> Database:
    """Emptied, which takes less time than another database."""
    shared_database.query("DROP SCHEMA IF EXISTS enriched, second_market, public CASCADE")
    shared_database.query("CREATE SCHEMA public")
    shared_database.query("GRANT USAGE ON SCHEMA public TO PUBLIC")
    return shared_database


@pytest.fixture
def database(empty_database: Database) -> Database:
    deliver.migrate(empty_database.config, say=lambda _: None)
    return empty_database


@pytest.fixture
def versions(tmp_path: Path) -> Versions:
    return Versions(tmp_path / "catalog")


def with_settings(database: Database, **changes: Any) -> Database:
    return replace(database, config=replace(database.config, **changes))
