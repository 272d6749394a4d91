"""The Iceberg table that values are delivered to: its catalog, its columns, its position, and pyiceberg's errors.

The position is in the summary of the snapshot that a step made, so that it is committed with the rows, and goes back
with them where somebody rolls the table back to an older snapshot.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

import pyarrow as pa

from catalog_enrichment import contract, extras
from catalog_enrichment.config.operations import IcebergConfig
from catalog_enrichment.delivery.differences import TABLE
from catalog_enrichment.delivery.feed import Position
from catalog_enrichment.errors import CatalogEnrichmentError, ConfigError, DataContractError, TemporaryFailure
from catalog_enrichment.masking import masked

if TYPE_CHECKING:
    from pyiceberg.catalog import Catalog
    from pyiceberg.table import Table
    from pyiceberg.table.snapshots import Snapshot

NAME = "catalog_enrichment"
"""Name of the catalog to pyiceberg, which also reads variables `PYICEBERG_CATALOG__CATALOG_ENRICHMENT__...`."""

REVISION = "1"
"""Revision of the table; it grows when the columns change."""

_REVISION, POSITION = "catalog-enrichment.revision", "catalog-enrichment.position"
_RETRIES = "commit.retry.num-retries"

_PROPERTIES = {
    _REVISION: REVISION,
    # with none pyiceberg does not look whether a commit that was refused is there all the same, and deletes its files
    _RETRIES: "1",
    # files are found by their first and last product id: by default only 16 characters of it are kept
    "write.metadata.metrics.column.product_id": "full",
    "write.metadata.delete-after-commit.enabled": "true",
    "write.metadata.previous-versions-max": "100",
}

_REFUSED_BY_STORE = re.compile(
    "ACCESS_DENIED|UNAUTHENTICATED|PERMISSION_DENIED|UNRECOGNIZED_CLIENT|INVALID_(?:CLIENT|ACCESS_KEY|SIGNATURE)|"
    r"SIGNATURE_DOES_NOT_MATCH|NO_SUCH_BUCKET|MISSING_AUTHENTICATION|AuthenticationFailed|AuthorizationFailure|\b40[13]\b"
)

_TYPES = {
    pa.string(): "string", pa.int64(): "long", pa.float64(): "double", pa.timestamp("us", "UTC"): "timestamptz",
}  # fmt: skip


def schema() -> pa.Schema:
    """Return the columns of the table: those of `current_values`, and the version that changed the row last."""
    return contract.arrow_schema(TABLE).append(pa.field("version", pa.int64(), nullable=False))


@contextmanager
def connected(settings: IcebergConfig) -> Iterator[Catalog]:
    """Open the catalog; inside the block errors of pyiceberg and of its clients are raised as this program's.

    Raises ConfigError without a URI, without pyiceberg or without the token's variable.
    """
    if not settings.uri:
        raise ConfigError("delivery.iceberg.uri is empty: set it to a REST catalog, https://HOST/PATH")
    secret = _secret(settings.login_variable)
    try:
        from pyiceberg.catalog import load_catalog
    except ImportError:
        raise ConfigError(extras.missing("pyiceberg")) from None
    properties = {**settings.properties, "uri": settings.uri}
    if not settings.uri.startswith("sqlite:"):
        properties.pop("type", None)  # rest, or wrong
        properties["py-catalog-impl"] = "catalog_enrichment.delivery.iceberg_rest.LimitedRestCatalog"
    if settings.warehouse:
        properties["warehouse"] = settings.warehouse
    if secret:
        properties["credential" if ":" in secret else "token"] = secret
    try:
        yield load_catalog(NAME, **properties)
    except CatalogEnrichmentError:
        raise
    except Exception as problem:
        known = translated(problem, settings, secret)
        if known is None:
            raise
        raise known from None  # not chained: the original may repeat the token


def _secret(variable: str) -> str:
    if not variable:
        return ""
    if not (secret := os.environ.get(variable, "")):
        raise ConfigError(
            f"delivery.iceberg.login_variable names the environment variable {variable}, which is empty or not set"
        )
    return secret


def place(settings: IcebergConfig) -> str:
    """Return the table and its catalog, without user and password."""
    parts = urlsplit(settings.uri)
    path = parts.path.replace("//", "/", 1) if parts.scheme == "sqlite" else parts.path
    return f"{settings.table} at {parts.netloc.rpartition('@')[2]}{path}"


def migrate(catalog: Catalog, name: str) -> tuple[str | None, str]:
    """Make the table ``name`` and its namespace, or set its properties again; return the revisions before and after.

    Raises DataContractError for a table of another program, and for one that a newer version of this program made.
    """
    from pyiceberg.exceptions import NoSuchTableError

    try:
        table = catalog.load_table(name)
    except NoSuchTableError:
        catalog.create_namespace_if_not_exists(name.rpartition(".")[0])
        catalog.create_table_if_not_exists(name, schema=schema(), properties=_PROPERTIES)
        return None, REVISION
    before = table.properties.get(_REVISION)
    _require_columns(table)
    changed = {key: value for key, value in _PROPERTIES.items() if table.properties.get(key) != value}
    if changed:
        with table.transaction() as transaction:
            transaction.set_properties(changed)
    return before, REVISION


def require_newest(table: Table) -> None:
    """Raise DataContractError unless the table has the columns of this program, and the property it relies on."""
    _require_columns(table)
    if table.properties.get(_RETRIES) == "0":  # a catalog may have others of its own
        raise DataContractError(
            f"the table {_named(table)} has the property {_RETRIES} = 0, and a delivery needs one try more: run "
            "deliver_values --migrate"
        )


def _require_columns(table: Table) -> None:
    if (revision := table.properties.get(_REVISION)) is None:
        raise DataContractError(
            f"the table {_named(table)} was not made by this program: it lacks the property {_REVISION}. Set "
            "delivery.iceberg.table to a name that is free, and run deliver_values --migrate"
        )
    if revision != REVISION:
        raise DataContractError(
            f"the table {_named(table)} has the revision {revision}, which this program does not know: it needs "
            f"{REVISION}. Install the program that made it"
        )
    wanted = {(field.name, _TYPES.get(field.type, "list<string>")) for field in schema()}
    found = {(field.name, str(field.field_type)) for field in table.schema().fields}
    if found != wanted:
        missing, more = (", ".join(" ".join(column) for column in sorted(columns)) or "none"
                         for columns in (wanted - found, found - wanted))  # fmt: skip
        raise DataContractError(
            f"somebody changed the columns of the table {_named(table)}: missing {missing}; unknown {more}. Change "
            "them back, or set delivery.iceberg.table to another name and run deliver_values --migrate"
        )


def delivered_snapshot(table: Table) -> Snapshot | None:
    """Return the newest snapshot that a delivery made, if the table's present rows are those of this snapshot.

    None if nothing was delivered, if snapshots up to it have expired, or if another program has changed rows since:
    the next delivery compares everything. A compaction leaves the rows as they are.
    """
    from pyiceberg.table.snapshots import Operation

    snapshot = table.current_snapshot()
    while snapshot is not None and snapshot.summary is not None:
        if POSITION in snapshot.summary.additional_properties:
            return snapshot
        if snapshot.summary.operation is not Operation.REPLACE:
            return None
        parent = snapshot.parent_snapshot_id
        snapshot = None if parent is None else table.metadata.snapshot_by_id(parent)
    return None


def position(table: Table) -> Position | None:
    """Return the position of what the table holds."""
    snapshot = delivered_snapshot(table)
    if snapshot is None or snapshot.summary is None:
        return None
    return Position.parse(str(snapshot.summary[POSITION]))


def _named(table: Table) -> str:
    return ".".join(table.name())


def translated(problem: Exception, settings: IcebergConfig, secret: str) -> CatalogEnrichmentError | None:
    """Return the error to raise instead of ``problem``; None if it is not of the catalog.

    Exit code 2 for what an administrator mends, 4 for what passes by itself.
    """
    import requests
    from pydantic import ValidationError as UnreadableAnswer
    from pyiceberg import exceptions as of_iceberg
    from sqlalchemy.exc import OperationalError

    lines = [line for line in str(problem).splitlines() if line.strip()]
    answer = masked(lines[0] if lines else type(problem).__name__, [secret] if secret else [])[:300]
    what = f"Iceberg, {place(settings)}: {answer}"
    if isinstance(problem, OperationalError) and "locked" not in str(problem):
        return ConfigError(f"{what}. Is delivery.iceberg.uri a file that can be written, of an Iceberg catalog?")
    if "CERTIFICATE_VERIFY_FAILED" in str(problem):
        return ConfigError(f"{what}. Name the authority of the server's certificate in REQUESTS_CA_BUNDLE")
    if isinstance(problem, of_iceberg.NoSuchTableError | of_iceberg.NoSuchNamespaceError):
        return DataContractError(f"{what}. Run deliver_values --migrate")
    if isinstance(
        problem,
        of_iceberg.UnauthorizedError
        | of_iceberg.ForbiddenError
        | of_iceberg.AuthorizationExpiredError
        | of_iceberg.OAuthError,
    ):
        return ConfigError(f"{what}. Check the token in delivery.iceberg.login_variable, and the rights of its account")
    if isinstance(
        problem,
        of_iceberg.ServiceUnavailableError
        | of_iceberg.ServerError
        | of_iceberg.TooManyRequestsError
        | of_iceberg.CommitStateUnknownException
        | of_iceberg.CommitFailedException
        | requests.ConnectionError
        | requests.Timeout
        | OperationalError,
    ):
        return TemporaryFailure(f"{what}. Nothing of this step was applied, or all of it; run again")
    if isinstance(problem, FileNotFoundError):
        return DataContractError(
            f"{what}. Check delivery.iceberg.warehouse. If a file of the table was deleted, roll the table back to a "
            "snapshot whose files are there, or drop it, and run deliver_values --migrate"
        )
    if isinstance(problem, OSError) and problem.errno is None:  # the client of an object store gives no number
        if _REFUSED_BY_STORE.search(str(problem)):
            return ConfigError(f"{what}. Check the credentials of the store with the files, and their rights")
        return TemporaryFailure(f"{what}. Nothing of this step was applied; run again when the store answers")
    if isinstance(problem, of_iceberg.RESTError | requests.RequestException | UnreadableAnswer):
        return ConfigError(f"{what}. Is delivery.iceberg.uri the address of an Iceberg REST catalog?")
    return None
