"""Registers the catalog's Delta tables by path in a metastore: Unity Catalog, a Hive metastore, Glue.

A registered table is external: the metastore knows its name and its place, and the files stay where they are. The
statements are executed where the Spark session can reach a metastore and reads Delta tables, and printed otherwise.
"""

from __future__ import annotations

import os
import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from catalog_enrichment import contract
from catalog_enrichment.errors import ConfigError
from catalog_enrichment.monitoring.stages import Say, to_stderr
from catalog_enrichment.records import DRY_RUN, RunStatus

if TYPE_CHECKING:
    from pyspark.sql import SparkSession

    from catalog_enrichment.catalog.lake import Catalog
    from catalog_enrichment.config.schema import Config

_NAMESPACE = re.compile(r"[\w-]+(\.[\w-]+)?", re.ASCII)
_URI = re.compile(r"[a-z][a-z0-9+.-]*:/")


@dataclass(frozen=True, kw_only=True, slots=True)
class Registration:
    """Where the tables get their names, and how the metastore's engines reach their files."""

    namespace: str
    """SCHEMA of a Hive metastore, or CATALOG.SCHEMA of Unity Catalog."""
    location: str = ""
    """URI of the catalog's place for other engines, such as s3a://BUCKET/PATH; empty: that of `catalog.path`."""

    def __post_init__(self) -> None:
        if not _NAMESPACE.fullmatch(self.namespace):
            raise ConfigError(
                f"--register {self.namespace}: give SCHEMA for a Hive metastore, or CATALOG.SCHEMA for Unity Catalog"
            )
        if self.location and not _URI.match(self.location):
            raise ConfigError(f"--location {self.location} must be a URI, such as s3a://BUCKET/PATH")


def register_tables(
    config: Config,
    catalog: Catalog,
    registration: Registration,
    session: Callable[[], SparkSession] | None,
    say: Say = to_stderr,
) -> dict[str, Any]:
    """Register the tables that the catalog has; returns the job's summary.

    ``session`` starts Spark; None (--dry-run): the statements are only printed. A table that is registered already
    stays as it is. Raises ConfigError for a catalog without tables, for a container of Azure without its account, and
    for a name that another table has.
    """
    tables = [table for table in contract.TABLES if catalog.tables.identity(table) is not None]
    if not tables:
        raise ConfigError(f"there are no tables in {config.catalog.path}: run import_products first")
    place = (registration.location or _uri(config)).rstrip("/")
    statements = statements_of(tables, registration.namespace, place)
    why_not = "--dry-run"
    if session:
        spark = session()
        why_not = _execute(spark, registration.namespace, f"{place}/{tables[0]}", statements)
        if not why_not:
            _check_places(spark, tables, registration.namespace, place)
    say("\n".join(f"{statement};" for statement in statements))
    if why_not and session:
        say(f"warning: not executed: {why_not}. Run the statements above where the metastore is")
    return {
        "status": RunStatus.SUCCEEDED if session else DRY_RUN,
        "namespace": registration.namespace,
        "tables": tables,
        "statements": statements,
        "executed": not why_not,
        "why_not_executed": why_not or None,
    }


def statements_of(tables: list[str], namespace: str, place: str) -> list[str]:
    """Return the statements that register ``tables`` below ``place`` in ``namespace``."""
    create = "CREATE TABLE IF NOT EXISTS"
    return [
        f"CREATE SCHEMA IF NOT EXISTS {_name(namespace)}",
        *(
            f"{create} {_name(namespace, table)} USING DELTA LOCATION {_literal(f'{place}/{table}')}"
            for table in tables
        ),
    ]


def _name(namespace: str, *table: str) -> str:
    return ".".join(f"`{part}`" for part in (*namespace.split("."), *table))


def _execute(spark: SparkSession, namespace: str, table: str, statements: list[str]) -> str:
    """Execute the statements; return why the session cannot, empty if it has.

    Raises ConfigError if the metastore refuses one of them.
    """
    catalog = namespace.rpartition(".")[0]
    in_memory = spark.conf.get("spark.sql.catalogImplementation", "in-memory") == "in-memory"
    if in_memory and not (catalog and spark.conf.get(f"spark.sql.catalog.{catalog}", "")):
        return "this Spark session has no metastore, its tables would be forgotten when it ends"
    try:
        spark.sql(f"SELECT * FROM delta.`{table.replace('`', '``')}` LIMIT 0")
    except Exception as problem:  # Spark has a class of its own for each way in which it cannot read
        return f"this Spark session cannot read {table} as a Delta table ({_first_line(problem)})"
    for statement in statements:
        try:
            spark.sql(statement)
        except Exception as problem:
            raise ConfigError(
                f"the metastore refuses {statement} ({_first_line(problem)}). Statements before it were executed; ask "
                "its administrator for the right, or give it an external location that contains the catalog"
            ) from problem
    return ""


def _check_places(spark: SparkSession, tables: list[str], namespace: str, place: str) -> None:
    """Raise ConfigError for a table of the namespace that is elsewhere: it had the name before, and was left alone."""
    for table in tables:
        name = _name(namespace, table)
        try:
            row = spark.sql(f"DESCRIBE DETAIL {name}").first()
            found = str(row["location"]) if row else "an unknown place"
        except Exception as problem:  # not a Delta table, for example
            found = f"an unknown place ({_first_line(problem)})"
        if _comparable(found) != _comparable(f"{place}/{table}"):
            raise ConfigError(
                f"{name} is another table, at {found} and not at {place}/{table}: it had the "
                "name before. Drop it if it is an earlier registration, or give --register another schema"
            )


def _comparable(place: str) -> str:
    """Return a URI as it is compared: clients spell the scheme in several ways."""
    scheme, _, path = place.partition(":")
    return f"{scheme.replace('s3a', 's3').replace('s3n', 's3')}:/{path.strip('/')}"


def _first_line(problem: Exception) -> str:
    return (str(problem).strip().splitlines() or [type(problem).__name__])[0][:200]


def _uri(config: Config) -> str:
    """Return the URI by which other engines reach the catalog's place."""
    path = config.catalog.path
    if "://" not in path:
        return config.path(path).as_uri()
    parts = urlsplit(path)
    if parts.scheme != "az":
        return path
    named = {name.lower(): value for name, value in config.catalog.storage.items()}
    account = named.get("azure_storage_account_name") or os.environ.get("AZURE_STORAGE_ACCOUNT_NAME", "")
    if not account:
        raise ConfigError(
            "the account of the Azure container is not known: set azure_storage_account_name in [catalog.storage], or "
            f"give --location abfss://{parts.netloc}@ACCOUNT.dfs.core.windows.net{parts.path}"
        )
    return f"abfss://{parts.netloc}@{account}.dfs.core.windows.net{parts.path}"


def _literal(text: str) -> str:
    """Return ``text`` as a string literal of Spark SQL."""
    escaped = text.replace("\\", "\\\\").replace("'", "\\'")
    return f"'{escaped}'"
