"""The tables in the database: made and changed by Alembic, refused where they are not those of this program."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
from alembic import command
from alembic.script import ScriptDirectory

from catalog_enrichment.delivery import deliver, postgres
from catalog_enrichment.errors import ConfigError, DataContractError

from .conftest import ROLE, Database, with_settings
from .histories import Versions, value

S = "enriched"


def migrate(database: Database) -> dict[str, Any]:
    return deliver.migrate(database.config, say=lambda _: None)


def test_the_known_revisions_are_those_of_the_migrations() -> None:
    script = ScriptDirectory.from_config(postgres.alembic_config(None, S, ROLE))  # type: ignore[arg-type]
    assert tuple(found.revision for found in script.walk_revisions())[::-1] == postgres.KNOWN
    assert script.get_heads() == [postgres.KNOWN[-1]]


def test_migrating_twice_changes_nothing_and_keeps_the_rows(database: Database, versions: Versions) -> None:
    versions.show({("a", "color"): value("Red")}, "run-1")
    database.deliver(versions)
    database.query(f"INSERT INTO {S}.merchant_values VALUES ('a', 'color', '{{Green}}')")
    assert migrate(database)["revision_before"] == "0001"
    assert database.rows() == versions.seen()
    assert database.readers_see() == {("a", "color"): (["Green"], "merchant")}


def test_a_database_without_tables_is_refused_with_the_command_that_makes_them(
    empty_database: Database, versions: Versions
) -> None:
    versions.show({("a", "color"): value("Red")}, "run-1")
    with pytest.raises(DataContractError, match=r"no tables in schema enriched: run deliver_values --migrate"):
        empty_database.deliver(versions)
    assert migrate(empty_database)["revision_before"] is None
    assert empty_database.deliver(versions)["upserted"] == 1


def test_tables_of_a_newer_program_are_refused(database: Database, versions: Versions) -> None:
    versions.show({("a", "color"): value("Red")}, "run-1")
    database.query(f"UPDATE {S}.alembic_version SET version_num = '9999'")
    for act in (lambda: database.deliver(versions), lambda: migrate(database)):
        with pytest.raises(DataContractError, match="revision 9999, which this program does not know"):
            act()
    assert database.query(f"SELECT version_num FROM {S}.alembic_version") == [("9999",)]


def test_tables_of_an_older_program_are_refused_until_they_are_migrated(
    database: Database, monkeypatch: pytest.MonkeyPatch, versions: Versions
) -> None:
    versions.show({("a", "color"): value("Red")}, "run-1")
    monkeypatch.setattr(postgres, "KNOWN", ("0001", "0002"))
    with pytest.raises(DataContractError, match="revision 0001, this program needs 0002: run deliver_values --migrate"):
        database.deliver(versions)


def test_a_migration_that_fails_leaves_nothing(empty_database: Database) -> None:
    """The version table and the tables come in one transaction."""
    empty_database.query(f"CREATE SCHEMA {S}")
    empty_database.query(f"CREATE TABLE {S}.deliveries (mine int)")
    with pytest.raises(DataContractError, match=r"already exists .SQLSTATE 42P07."):
        migrate(empty_database)
    tables = empty_database.query("SELECT tablename FROM pg_tables WHERE schemaname = %s", (S,))
    assert tables == [("deliveries",)]


def test_two_migrations_at_once_make_the_tables_once(empty_database: Database) -> None:
    with ThreadPoolExecutor(2) as threads:
        done = threads.map(lambda _: migrate(empty_database)["revision_before"], range(2))
        assert set(done) == {"0001", None}


def test_a_role_that_does_not_exist_is_said_with_the_statement_that_makes_it(empty_database: Database) -> None:
    with pytest.raises(ConfigError, match='CREATE ROLE "nobody_yet" LOGIN PASSWORD'):
        migrate(with_settings(empty_database, role="nobody_yet"))


def test_migrating_with_another_role_gives_it_the_rights(database: Database, versions: Versions) -> None:
    versions.show({("a", "color"): value("Red")}, "run-1")
    if not database.query("SELECT 1 FROM pg_roles WHERE rolname = 'second_role'"):
        database.query("CREATE ROLE second_role LOGIN")
    second = with_settings(database, role="second_role", uri=database.server.uri(database.name, "second_role"))
    with pytest.raises(ConfigError, match="deliver_values --migrate"):
        second.deliver(versions)
    migrate(second)
    assert second.deliver(versions)["upserted"] == 1


def test_rights_on_other_tables_of_the_schema_stay_as_they_are(database: Database) -> None:
    database.query(f"CREATE TABLE {S}.of_the_shop (id int)")
    database.query(f"GRANT SELECT ON {S}.of_the_shop TO {ROLE}")
    database.query(f"GRANT ALL ON {S}.merchant_values TO {ROLE}")
    migrate(database)
    may = "SELECT has_table_privilege(%s, %s, 'SELECT'), has_table_privilege(%s, %s, 'UPDATE')"
    assert database.query(may, (ROLE, f"{S}.of_the_shop") * 2) == [(True, False)]
    assert database.query(may, (ROLE, f"{S}.merchant_values") * 2) == [(False, False)]


def test_another_schema_has_tables_of_its_own(database: Database, versions: Versions) -> None:
    versions.show({("a", "color"): value("Red")}, "run-1")
    other = with_settings(database, schema="second_market")
    migrate(other)
    assert other.deliver(versions)["upserted"] == 1
    assert database.rows() == {}
    assert database.deliver(versions)["upserted"] == 1


@pytest.mark.parametrize(("schema", "role"), [("order", "user"), ("table", "select"), ("user", "current_user")])
def test_reserved_words_are_names_of_schemas_and_roles(
    schema: str, role: str, empty_database: Database, versions: Versions
) -> None:
    versions.show({("a", "color"): value("Red")}, "run-1")
    uri = empty_database.server.uri(empty_database.name, role)
    named = with_settings(empty_database, schema=schema, role=role, uri=uri)
    with pytest.raises(ConfigError, match=f'CREATE ROLE "{role}" LOGIN'):
        migrate(named)
    named.query(f'CREATE ROLE "{role}" LOGIN')
    try:
        assert [migrate(named)["revision_before"] for _ in range(2)] == [None, "0001"]
        assert [named.deliver(versions)["status"] for _ in range(2)] == ["succeeded", "nothing_to_do"]
        with deliver.open_sink(named.config) as sink:
            assert sink.status()["moved_at"]
        assert named.query(f'SELECT product_id FROM "{schema}".catalog_values') == [("a",)]
        with postgres.connected(named.config, for_migration=True) as opened:
            command.downgrade(postgres.alembic_config(opened, schema, role), "base")
    finally:
        named.query(f'DROP SCHEMA IF EXISTS "{schema}" CASCADE')
        named.query(f'DROP OWNED BY "{role}"; DROP ROLE "{role}"')


def test_the_migration_can_be_taken_back(database: Database) -> None:
    with postgres.connected(database.config, for_migration=True) as opened:
        command.downgrade(postgres.alembic_config(opened, S, ROLE), "base")
    tables = database.query("SELECT tablename FROM pg_tables WHERE schemaname = %s", (S,))
    assert tables == [("alembic_version",)]
