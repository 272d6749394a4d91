"""The products that a run has to look at: what changed since the last run with the same request, and what it left open.

A run settles its window but for what it leaves open: decisions that are tried again after a while, and values that wait
under the provisional cap. Until a product, the ledger, the config or the model version changes, another run would
decide nothing else. What imports changed since is marked in the products table, so the next run reads the decisions
and values of few products, and its cost follows the change.

All products are looked at where the last run

    was another one     of another model version, config or window; a backfill or a rollback came after it
    left products over  beyond `enrich.max_products`
    is not the last     to have written to the ledger: a person did, or a run that was killed
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NamedTuple

from catalog_enrichment.catalog import runs
from catalog_enrichment.enrichment.pending import SEEN_BY_TRYING
from catalog_enrichment.records import Reason, RunKind, RunStatus
from catalog_enrichment.spark.frames import few_ids, with_ids

if TYPE_CHECKING:
    from pyspark.sql import Column, DataFrame

    from catalog_enrichment.catalog.base import Catalog

OPEN = "left_open"
"""Count of a run: products, values or decisions that a later run may have to look at although nothing has changed."""

_OVER_LIMIT = f"skipped.{Reason.OVER_LIMIT.value}"

_OPEN_REASONS = (*SEEN_BY_TRYING, Reason.PROVISIONAL_CAP)

_BESIDES = (RunKind.IMPORT.value, RunKind.MAINTAIN.value, RunKind.SAMPLE.value)
"""Runs that decide nothing."""


class RequestIdentity(NamedTuple):
    """The columns of `runs` that are equal for two runs with the same request."""

    model_name: str | None
    model_version: str | None
    config_hash: str | None
    window: str | None


class LastRun(NamedTuple):
    """What the last run with the same request had seen."""

    imports: list[str]
    """Ids of the imports before it."""
    left_open: bool
    """Whether it left something to look at again although nothing has changed."""
    row: Mapping[str, Any]
    """Its row in `runs`, with ``attributes`` parsed."""


@dataclass(frozen=True, slots=True)
class IncrementalScope:
    """The products of a window that have changed since the last run, or were left open."""

    ids: DataFrame
    """Their ``product_id``; joins send it to every task."""
    number: int
    others: int
    """The other products of the window."""
    imports: tuple[str, ...]
    """What changed products."""
    last: LastRun
    window: str | None
    """Of the request, as in `runs`."""

    @property
    def whole_catalog_since(self) -> Mapping[str, Any] | None:
        """The row of the last run, where no other products have changed in the whole catalog; None: in a window."""
        return self.last.row if self.window == runs.as_json({}) else None

    def among(self, products: DataFrame) -> DataFrame:
        """Those of ``products`` to look at. An import writes products to files of their own: few files are read."""
        return self.of(products) if self.last.left_open else products.where(_imported_by(self.imports))

    def of(self, rows: DataFrame) -> DataFrame:
        """The ``rows`` that are about one of these products."""
        return rows.join(self.ids, "product_id", "left_semi")


def changed(catalog: Catalog, request: RequestIdentity, products: DataFrame) -> IncrementalScope | None:
    """What to look at of ``products``, those of the window asked for; None: all of them."""
    last = last_run(_succeeded(catalog), request, catalog.written_versions("attribute_values")[0])
    if last is None:
        return None
    # also those of an import that was killed; null: from before imports left their mark, and so before the last run
    by_import = {row["imported_by"]: row["count"] for row in products.groupBy("imported_by").count().collect()}
    since = tuple(sorted(run_id for run_id in by_import if run_id is not None and run_id not in last.imports))
    chosen = products.where(_imported_by(since)).select("product_id")
    if last.left_open:
        chosen = chosen.union(products.select("product_id").join(_left_open(catalog), "product_id", "left_semi"))
    ids = few_ids(chosen)
    if ids is None:
        return None
    others = sum(by_import.values()) - len(ids)
    return IncrementalScope(with_ids(products.sparkSession, ids), len(ids), others, since, last, request.window)


def last_run(succeeded: Iterable[Mapping[str, Any]], request: RequestIdentity, ledger_version: int) -> LastRun | None:
    """The last run, if it had the same request and nobody has written to the ledger since; else None.

    ``succeeded``: rows of the contract `runs`, in any order; ``ledger_version``: of the ledger now.
    """
    rows = sorted(succeeded, key=lambda row: row["finished_at"])
    last = next((row for row in reversed(rows) if row["kind"] not in _BESIDES), None)
    if last is None or last["kind"] != RunKind.ENRICH.value:
        return None
    same_request = tuple(last[name] for name in RequestIdentity._fields) == request
    versions, counts = dict(last["table_versions"] or {}), dict(last["counts"] or {})
    if not same_request or versions.get("attribute_values") != ledger_version:
        return None
    if OPEN not in counts or counts.get(_OVER_LIMIT):
        return None
    imports = [row for row in rows if row["kind"] == RunKind.IMPORT.value]
    before = [row["run_id"] for row in imports if row["finished_at"] < last["finished_at"]]
    attributes = json.loads(last.get("attributes") or "{}")
    return LastRun(before, counts[OPEN] > 0, {"attributes": attributes, "table_versions": versions})


def _imported_by(imports: Iterable[str]) -> Column:
    from pyspark.sql import functions as F

    return F.col("imported_by").isin(*imports)


def _left_open(catalog: Catalog) -> DataFrame:
    """``product_id`` of every product with a decision that can be open still; also of some that are settled since."""
    from pyspark.sql import functions as F

    open_reasons = F.col("reason").isin([reason.value for reason in _OPEN_REASONS])
    return catalog.read("predictions").where(open_reasons).select("product_id").distinct()


def _succeeded(catalog: Catalog) -> list[dict[str, Any]]:
    columns = ("run_id", "kind", "status", "counts", "attributes", "table_versions", "finished_at")
    batches = catalog.scan(runs.TABLE, (*columns, *RequestIdentity._fields))
    rows = [row for batch in batches for row in batch.to_pylist()]
    return [row for row in rows if row["status"] == RunStatus.SUCCEEDED.value]
