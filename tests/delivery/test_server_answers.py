"""Wrong passwords, missing roles, servers that are away: exit code 2 or 4, a plain message, no password."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psycopg
import pytest
from psycopg import errors

from catalog_enrichment import cli
from catalog_enrichment.config.operations import DeliveryConfig
from catalog_enrichment.delivery.postgres import connected, translated
from catalog_enrichment.errors import ConfigError, DataContractError, TemporaryFailure

from ..config_texts import WITH_DEMO_DICTIONARY
from ..postgres_server import free_port
from .conftest import ROLE, Database, with_settings
from .histories import Versions, value

PASSWORD = "s3cret-of-the-role"
CONFIG = f"{WITH_DEMO_DICTIONARY}[delivery]\n"


def config_file(folder: Path, database: Database, **settings: Any) -> Path:
    """The config of a catalog in ``folder``/catalog that is delivered to ``database``."""
    delivery = {"uri": database.config.uri, "migration_uri": database.config.migration_uri} | settings
    file = folder / "config.toml"
    file.write_text(CONFIG + "\n".join(f"{name} = {json.dumps(setting)}" for name, setting in delivery.items()))
    return file


def job(name: str, capsys: pytest.CaptureFixture[str], *arguments: str) -> tuple[int, dict[str, Any], str]:
    """Exit code, summary and all output of a job."""
    capsys.readouterr()
    code = getattr(cli, name)(list(arguments))
    output = capsys.readouterr()
    return code, json.loads(output.out.splitlines()[-1]), output.out + output.err


@pytest.fixture
def with_password(database: Database) -> Iterator[Database]:
    """The server asks the role for a password on this database."""
    database.query(f"ALTER ROLE {ROLE} PASSWORD '{PASSWORD}'")
    rules = database.server.folder / "pg_hba.conf"
    before = rules.read_text()
    rules.write_text(f"host {database.name} {ROLE} 127.0.0.1/32 scram-sha-256\n{before}")
    database.query("SELECT pg_reload_conf()")
    yield database
    rules.write_text(before)
    database.query("SELECT pg_reload_conf()")


def test_the_password_comes_from_the_environment_and_is_never_printed(
    with_password: Database,
    versions: Versions,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    versions.show({("a", "color"): value("Red")}, "run-1")
    file = str(config_file(tmp_path, with_password, login_variable="MARKET_DB"))
    monkeypatch.setenv("PGPASSWORD", "not-the-password")
    code, summary, output = job("deliver_values", capsys, "--config", file)
    assert (code, summary["error"]) == (2, "ConfigError")
    assert "MARKET_DB, which is empty or not set" in summary["message"]

    monkeypatch.setenv("MARKET_DB", "wrong-password")
    code, summary, output = job("deliver_values", capsys, "--config", file)
    assert (code, summary["error"]) == (2, "ConfigError")
    assert "password authentication failed" in summary["message"]
    assert "wrong-password" not in output
    assert "not-the-password" not in output

    monkeypatch.setenv("MARKET_DB", PASSWORD)
    code, summary, output = job("deliver_values", capsys, "--config", file)
    assert (code, summary["upserted"]) == (0, 1)
    assert PASSWORD not in output

    monkeypatch.delenv("PGPASSWORD")
    monkeypatch.setenv("PGPASSFILE", str(tmp_path / "none"))
    code, summary, _ = job("deliver_values", capsys, "--config", str(config_file(tmp_path, with_password)))
    assert (code, summary["error"]) == (2, "ConfigError")
    monkeypatch.setenv("PGPASSWORD", PASSWORD)
    code, summary, output = job("deliver_values", capsys, "--config", str(config_file(tmp_path, with_password)))
    assert (code, summary["status"]) == (0, "nothing_to_do")
    assert PASSWORD not in output


def test_what_an_administrator_has_to_mend_is_exit_2(database: Database) -> None:
    uri = database.config.uri
    wrong = {
        uri.replace(ROLE, "nobody"): 'role "nobody" does not exist',
        uri.replace(database.name, "nosuch"): 'database "nosuch" does not exist',
        f"{uri}?sslmode=perhaps": "invalid sslmode value",
        f"{uri}?nonsense=1": "invalid",
    }
    for given, says in wrong.items():
        with pytest.raises(ConfigError, match=says), connected(with_settings(database, uri=given).config):
            pass


def test_a_server_that_is_away_is_exit_4(database: Database, tmp_path: Path, capsys: Any) -> None:
    Versions(tmp_path / "catalog").show({("a", "color"): value("Red")}, "run-1")
    uri = f"postgresql://{ROLE}@127.0.0.1:{free_port()}/market"
    code, summary, _ = job("deliver_values", capsys, "--config", str(config_file(tmp_path, database, uri=uri)))
    assert (code, summary["error"]) == (4, "TemporaryFailure")
    assert f"PostgreSQL at {uri.partition('@')[2]}" in summary["message"]
    assert "Run again" in summary["message"]


ANSWERS: dict[type[Exception], list[type[psycopg.Error]]] = {
    TemporaryFailure: [
        errors.DiskFull, errors.OutOfMemory, errors.TooManyConnections, errors.AdminShutdown, errors.CrashShutdown,
        errors.CannotConnectNow, errors.DeadlockDetected, errors.ReadOnlySqlTransaction, errors.LockNotAvailable,
        errors.IdleInTransactionSessionTimeout, psycopg.OperationalError,
    ],
    ConfigError: [errors.InvalidPassword, errors.InvalidCatalogName, errors.InsufficientPrivilege],
    DataContractError: [errors.UndefinedTable, errors.UndefinedColumn, errors.CheckViolation],
}  # fmt: skip


@pytest.mark.parametrize(("kind", "expected"), [(kind, error) for error, kinds in ANSWERS.items() for kind in kinds])
def test_every_answer_has_its_exit_code(kind: type[psycopg.Error], expected: type[Exception]) -> None:
    problem = translated(kind(f"it happened with {PASSWORD}\nDETAIL: a row"), "postgresql://r@h:1/d", (PASSWORD, ""))
    assert type(problem) is expected
    assert str(problem).startswith("PostgreSQL at h:1/d: it happened with ***")
    assert "a row" not in str(problem)


def test_a_disk_that_is_full_is_exit_4_and_nothing_is_applied(database: Database, versions: Versions) -> None:
    """A trigger raises the server's own error at the last row."""
    versions.show({("a", "color"): value("Red")}, "run-1")
    database.deliver(versions)
    before = database.rows()
    versions.show({(f"p{n}", "color"): value("Red") for n in range(10)}, "run-2")
    database.query(
        "CREATE FUNCTION no_room() RETURNS trigger LANGUAGE plpgsql AS "
        "$$ BEGIN RAISE 'could not extend file: No space left on device' USING ERRCODE = 'disk_full'; END $$"
    )
    database.query(
        "CREATE TRIGGER full_disk BEFORE INSERT ON enriched.delivered_values FOR EACH ROW "
        "WHEN (new.product_id = 'p9') EXECUTE FUNCTION no_room()"
    )
    with pytest.raises(TemporaryFailure, match=r"No space left on device. The database server has no room"):
        database.deliver(versions)
    assert database.rows() == before
    database.query("DROP TRIGGER full_disk ON enriched.delivered_values")
    assert database.deliver(versions)["upserted"] == 10


def test_without_a_database_or_psycopg_it_says_what_to_set_or_install(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(ConfigError, match=r"delivery.uri is empty"), connected(DeliveryConfig()):
        pass
    monkeypatch.setitem(sys.modules, "psycopg", None)
    config = DeliveryConfig(uri="postgresql://r@h/d")
    with pytest.raises(ConfigError, match=r"catalog-enrichment\[postgres\]"), connected(config):
        pass
