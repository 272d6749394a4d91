"""The products that a run has to look at: those that changed since the last run with the same request.

A run that left nothing open has settled its window: until a product, the ledger, the config or the model version
changes, another run would decide nothing. What imports changed since is marked in the products table, so the next run
reads the decisions and values of these products only, and its cost follows the change.

All products are looked at where the last run

    was another one     of another model version, config or window; a backfill or a rollback came after it
    left something open products beyond `enrich.max_products`, values that wait under the provisional cap, or decisions
                        that are tried again after a while
    is not the last     to have written to the ledger: a person did, or a run that was killed
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NamedTuple

from catalog_enrichment.catalog import runs
from catalog_enrichment.records import RunKind, RunStatus

if TYPE_CHECKING:
    from pyspark.sql import DataFrame

    from catalog_enrichment.catalog.base import Catalog

OPEN = "left_open"
"""Count of a run: products, values or decisions that a later run may have to look at although nothing has changed."""

BROADCAST_KEYS = 500_000
"""Most product ids that are sent to every executor: about 50 MB."""


class RequestIdentity(NamedTuple):
    """The columns of `runs` that are equal for two runs with the same request."""

    model_name: str | None
    model_version: str | None
    config_hash: str | None
    window: str | None


@dataclass(frozen=True, slots=True)
class Changed:
    """The products of a window that have changed since it was settled."""

    products: DataFrame
    number: int
    unchanged: int
    """The other products of the window."""
    imports: tuple[str, ...]
    """What changed them."""

    def among(self, products: DataFrame) -> DataFrame:
        """Those of ``products`` that have changed. An import writes them to files of their own: few files are read."""
        from pyspark.sql import functions as F

        return products.where(F.col("imported_by").isin(*self.imports))

    def of(self, rows: DataFrame) -> DataFrame:
        """The ``rows`` that are about one of these products."""
        from pyspark.sql import functions as F

        ids = self.products.select("product_id")
        return rows.join(F.broadcast(ids) if self.number <= BROADCAST_KEYS else ids, "product_id", "left_semi")


def changed(catalog: Catalog, request: RequestIdentity, products: DataFrame) -> Changed | None:
    """The changed ones of ``products``, those of the window asked for; None if all have to be looked at."""
    from pyspark.sql import functions as F

    seen = imports_before_last_run(_succeeded(catalog), request, catalog.version("attribute_values"))
    if seen is None:
        return None
    # also those of an import that was killed; null: from before imports left their mark, and so before the last run
    by_import = {row["imported_by"]: row["count"] for row in products.groupBy("imported_by").count().collect()}
    since = {run_id: count for run_id, count in by_import.items() if run_id is not None and run_id not in seen}
    number = sum(since.values())
    return Changed(
        products=products.where(F.col("imported_by").isin(*since)),
        number=number,
        unchanged=sum(by_import.values()) - number,
        imports=tuple(sorted(since)),
    )


def imports_before_last_run(
    succeeded: Iterable[Mapping[str, Any]], request: RequestIdentity, ledger_version: int
) -> list[str] | None:
    """Ids of the imports that the last run had seen, if it had the same request and left nothing open; else None.

    ``succeeded``: rows of the contract `runs`, in any order; ``ledger_version``: of the ledger now.
    """
    rows = sorted(succeeded, key=lambda row: row["finished_at"])
    last = next((row for row in reversed(rows) if row["kind"] != RunKind.IMPORT.value), None)
    if last is None or last["kind"] != RunKind.ENRICH.value:
        return None
    same_request = tuple(last[name] for name in RequestIdentity._fields) == request
    versions, counts = dict(last["table_versions"] or {}), dict(last["counts"] or {})
    if not same_request or counts.get(OPEN) != 0 or versions.get("attribute_values") != ledger_version:
        return None
    imports = [row for row in rows if row["kind"] == RunKind.IMPORT.value]
    return [row["run_id"] for row in imports if row["finished_at"] < last["finished_at"]]


def _succeeded(catalog: Catalog) -> list[dict[str, Any]]:
    columns = ("run_id", "kind", "status", "counts", "table_versions", "finished_at", *RequestIdentity._fields)
    rows = [row for batch in catalog.scan(runs.TABLE, columns) for row in batch.to_pylist()]
    return [row for row in rows if row["status"] == RunStatus.SUCCEEDED.value]
