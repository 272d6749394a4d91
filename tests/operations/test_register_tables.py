"""The catalog's tables in a metastore: statements that Spark's parser takes, executed where a session can."""

from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import pytest

from catalog_enrichment.config.load import load_config
from catalog_enrichment.config.schema import Config
from catalog_enrichment.errors import ConfigError
from catalog_enrichment.operations.register_tables import Registration, register_tables, statements_of

from ..config_texts import WITH_DEMO_DICTIONARY
from ..delivery.histories import Versions, value
from ..sample_catalog import run_job

if TYPE_CHECKING:
    from pyspark.sql import SparkSession


@pytest.fixture
def versions(tmp_path: Path) -> Versions:
    found = Versions(tmp_path / "catalog")
    found.show({("a", "color"): value("Red")}, "run-1")
    return found


@pytest.fixture
def config(tmp_path: Path) -> Config:
    (tmp_path / "config.toml").write_text(WITH_DEMO_DICTIONARY)
    return load_config(str(tmp_path / "config.toml"), [])


class Session:
    """A Spark session with a metastore, as far as it is asked; ``refuses`` is in what it does not execute."""

    def __init__(self, refuses: str = "nothing", place: str = "", **settings: str) -> None:
        self.settings = {"spark.sql.catalogImplementation": "hive"} | settings
        self.conf = SimpleNamespace(get=lambda name, default: self.settings.get(name, default))
        self.refuses, self.place, self.executed = refuses, place, list[str]()

    def sql(self, statement: str) -> Any:
        if self.refuses in statement:
            raise RuntimeError("[NO] not here\nmore")
        if statement.startswith("DESCRIBE DETAIL"):
            (created,) = re.findall(r"LOCATION '([^']*)'", self.executed[-1])
            return SimpleNamespace(first=lambda: {"location": self.place or created})
        self.executed.append(statement)
        return None


def registered(config: Config, versions: Versions, session: Any, **settings: Any) -> tuple[dict[str, Any], list[str]]:
    said: list[str] = []
    registration = Registration(**{"namespace": "main.shop"} | settings)
    start = session and (lambda: session)
    return register_tables(config, versions.catalog, registration, start, said.append), said


def test_a_session_with_a_metastore_executes_the_statements(config: Config, versions: Versions, tmp_path: Path) -> None:
    session = Session()
    summary, said = registered(config, versions, session)
    place = f"file://{tmp_path}/catalog/current_values"
    assert session.executed == [
        f"SELECT * FROM delta.`{place}` LIMIT 0",
        "CREATE SCHEMA IF NOT EXISTS `main`.`shop`",
        f"CREATE TABLE IF NOT EXISTS `main`.`shop`.`current_values` USING DELTA LOCATION '{place}'",
    ]
    assert (summary["executed"], summary["why_not_executed"], summary["tables"]) == (True, None, ["current_values"])
    assert said == [";\n".join([*summary["statements"], ""]).rstrip("\n")]


def test_a_dry_run_prints_and_starts_no_spark(
    config: Config, versions: Versions, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("JAVA_HOME", "/nonexistent")
    options = ("--config", str(tmp_path / "config.toml"), "--register", "shop", "--location", "s3a://b/c/", "--dry-run")
    code, summary, output = run_job("maintain_catalog", *options)
    assert (code, summary["status"], summary["executed"]) == (0, "dry_run", False)
    assert (
        "CREATE TABLE IF NOT EXISTS `shop`.`current_values` USING DELTA LOCATION 's3a://b/c/current_values';" in output
    )
    assert run_job("maintain_catalog", *options[:2], "--location", "s3://b")[0] == 2


@pytest.mark.parametrize(
    ("session", "why"),
    [
        (Session(**{"spark.sql.catalogImplementation": "in-memory"}), "has no metastore"),
        (Session(refuses="delta.`"), r"cannot read .*current_values as a Delta table \(\[NO\] not here\)"),
    ],
)
def test_a_session_that_cannot_says_why_and_prints(
    session: Session, why: str, config: Config, versions: Versions
) -> None:
    summary, said = registered(config, versions, session)
    assert (summary["status"], summary["executed"], session.executed) == ("succeeded", False, [])
    assert said[0].count(";") == 2
    assert re.search(why, said[1])


def test_a_catalog_of_the_session_is_a_metastore_too(config: Config, versions: Versions) -> None:
    settings = {"spark.sql.catalogImplementation": "in-memory", "spark.sql.catalog.main": "a.Class"}
    assert registered(config, versions, Session(**settings))[0]["executed"]
    assert not registered(config, versions, Session(**settings), namespace="other.shop")[0]["executed"]


def test_a_table_of_that_name_elsewhere_is_an_error(config: Config, versions: Versions, tmp_path: Path) -> None:
    says = r"`main`\.`shop`\.`current_values` is another table, at s3://other/current_values and not at file:///"
    with pytest.raises(ConfigError, match=says):
        registered(config, versions, Session(place="s3://other/current_values"))
    with pytest.raises(ConfigError, match=r"is another table, at an unknown place \(\[NO\] not here\)"):
        registered(config, versions, Session(refuses="DESCRIBE"))
    for place, spelled in ((f"file://{tmp_path}", f"file:{tmp_path}"), ("s3a://b/c", "s3://b/c")):
        session = Session(place=f"{spelled}/current_values")
        assert registered(config, versions, session, location=place)[0]["executed"]


def test_a_metastore_that_refuses_is_an_error(config: Config, versions: Versions) -> None:
    with pytest.raises(ConfigError, match=r"the metastore refuses CREATE TABLE .*not here\)"):
        registered(config, versions, Session(refuses="CREATE TABLE"))


def test_spark_without_delta_prints_and_its_parser_takes_the_statements(
    spark: SparkSession, config: Config, versions: Versions
) -> None:
    summary, _ = registered(config, versions, spark)
    assert (summary["executed"], summary["status"]) == (False, "succeeded")
    parser = spark._jsparkSession.sessionState().sqlParser()  # type: ignore[attr-defined]
    for namespace in ("shop", "main.shop", "my-catalog.a_b"):
        for statement in statements_of(["products"], namespace, "s3://it's/a\\b"):
            plan = parser.parsePlan(statement).toString()
            assert "CREATE TABLE" not in statement or "s3://it's/a\\b/products" in plan


def test_places_of_object_stores(config: Config, versions: Versions, monkeypatch: pytest.MonkeyPatch) -> None:
    def place(path: str, **storage: str) -> str:
        moved = replace(config, catalog=replace(config.catalog, path=path, storage=storage))
        return str(registered(moved, versions, None)[0]["statements"][1].split("'")[1])

    monkeypatch.delenv("AZURE_STORAGE_ACCOUNT_NAME", raising=False)
    assert place("s3://bucket/shop/") == "s3://bucket/shop/current_values"
    wanted = "abfss://files@acme.dfs.core.windows.net/shop/current_values"
    assert place("az://files/shop", azure_storage_account_name="acme") == wanted
    with pytest.raises(ConfigError, match=r"--location abfss://files@ACCOUNT\.dfs"):
        place("az://files/shop")
    monkeypatch.setenv("AZURE_STORAGE_ACCOUNT_NAME", "acme")
    assert place("az://files/shop") == wanted


@pytest.mark.parametrize("settings", [{"namespace": "a.b.c"}, {"namespace": "a`; DROP"}, {"location": "/data/shop"}])
def test_names_and_places_that_cannot_be_used(settings: dict[str, str]) -> None:
    with pytest.raises(ConfigError, match=r"--register|--location"):
        Registration(**{"namespace": "shop"} | settings)


def test_a_catalog_without_tables(config: Config, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="run import_products first"):
        registered(config, Versions(tmp_path / "catalog"), None)
