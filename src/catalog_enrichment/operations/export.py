"""Exports what the catalog's readers see: every value with its product, who gave it, its score and its run."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from itertools import islice
from math import ceil
from pathlib import Path
from typing import TYPE_CHECKING, Any

from catalog_enrichment.catalog import category_filters, runs
from catalog_enrichment.errors import ConfigError
from catalog_enrichment.monitoring.stages import Say, Stages, to_stderr
from catalog_enrichment.operations import value_files
from catalog_enrichment.operations.value_files import Format
from catalog_enrichment.records import Op, RunStatus
from catalog_enrichment.spark.frames import streamed

if TYPE_CHECKING:
    from pyspark.sql import DataFrame

    from catalog_enrichment.catalog.base import Catalog
    from catalog_enrichment.dictionary import Dictionary

PARTITION_ROWS = 100_000
"""About 30 MB, of which the driver holds two at a time."""
_NAMED_RUNS = 5
"""How many runs a message names."""


@dataclass(frozen=True, kw_only=True, slots=True)
class ExportRequest:
    """What to export and where to. An empty restriction means all; several must hold together."""

    target: Path
    kind: Format
    overwrite: bool = False
    attributes: tuple[str, ...] = ()
    categories: tuple[str, ...] = ()
    """Category paths, each with all below it."""
    shops: tuple[str, ...] = ()
    sources: tuple[str, ...] = ()
    run_ids: tuple[str, ...] = ()
    """Values that these runs wrote and readers still see; a backfill stands for its chunks."""


def check(catalog: Catalog, dictionary: Dictionary, request: ExportRequest) -> None:
    """What can be wrong with ``request``, found without Spark; makes the folder of its target.

    Raises ConfigError for an empty catalog, an unknown attribute, a run that wrote no values, or a target that cannot
    be used.
    """
    if catalog.version("current_values") < 0:
        raise ConfigError(f"there are no values in {catalog.location('current_values')}: run import_products first")
    if unknown := [name for name in request.attributes if name not in dictionary]:
        raise ConfigError(f"no attribute {unknown} in the dictionary; it has {sorted(dictionary.attributes)}")
    _writers(catalog, request.run_ids)
    folder = Path(catalog.location("current_values")).parent
    if request.target.is_relative_to(folder):
        raise ConfigError(f"--output {request.target} lies in the catalog's own folder {folder}; choose another one")
    value_files.require_free(request.target, request.overwrite)


def export_values(catalog: Catalog, request: ExportRequest, say: Say = to_stderr) -> dict[str, Any]:
    """Write the values that readers see to ``request.target``; returns the job's summary. The catalog stays as it is.

    Rows are sorted by product, attribute and value. In a CSV file, texts that a spreadsheet would take for a formula
    begin with an apostrophe. Raises ConfigError for a category or shop that no product has.
    """
    stages = Stages(say)
    with stages("export") as stage:
        _check_products(catalog.read("products", columns=["category", "shop_id"]), request)
        rows = values_seen(catalog, request)
        sources = value_files.write_values(streamed(rows), request.target, request.kind)
        stage.rows_out = sum(sources.values())
    by_source = ", ".join(f"{source} {count:,}" for source, count in sources.items())
    say(f"wrote {stage.rows_out:,} values{f' ({by_source})' if by_source else ''} to {request.target}")
    return {
        "status": RunStatus.SUCCEEDED,
        "file": str(request.target),
        "format": request.kind,
        "values": stage.rows_out,
        "sources": sources,
        "seconds": stages.seconds,
    }


def values_seen(catalog: Catalog, request: ExportRequest) -> DataFrame:
    """One row per value that readers see and ``request`` asks for, with the columns of value_files.SCHEMA, sorted.

    In partitions of about PARTITION_ROWS: Spark would choose them by their compressed size, and on the way to the
    driver they are not compressed.
    """
    from pyspark.sql import functions as F

    seen = catalog.read("current_values")
    run_ids = _writers(catalog, request.run_ids)
    for name, wanted in {"attribute": request.attributes, "source": request.sources, "run_id": run_ids}.items():
        if wanted:
            seen = seen.where(F.col(name).isin(list(wanted)))
    values = seen.withColumn("value", F.explode("values")).withColumnRenamed("asserted_at", "since")
    key = ["run_id", "product_id", "attribute", "value"]  # with the operation it identifies an event
    scores = catalog.read("attribute_values").where(F.col("op") == Op.ASSERT.value).select(*key, "score")
    products = catalog.read("products", columns=["product_id", "shop_id", "category"])
    rows = values.join(scores, key, "left").join(products, "product_id", "left")
    if request.categories:
        rows = rows.where(category_filters.below(request.categories))
    if request.shops:
        rows = rows.where(F.col("shop_id").isin(list(request.shops)))
    [(most,)] = seen.agg(F.sum(F.size("values"))).collect()
    order = ("product_id", "attribute", "value")
    partitions = max(1, ceil((most or 0) / PARTITION_ROWS))
    parts = rows.select(*value_files.SCHEMA.names).repartitionByRange(partitions, *order)
    return parts.sortWithinPartitions(*order)


def _check_products(products: DataFrame, request: ExportRequest) -> None:
    from pyspark.sql import functions as F

    category_filters.require_known(products, request.categories, "--category")
    if request.shops:
        found = products.where(F.col("shop_id").isin(list(request.shops))).select("shop_id").distinct().collect()
        if unknown := sorted(set(request.shops) - {row["shop_id"] for row in found}):
            raise ConfigError(f"--shop: no product is of {unknown}. Shop ids are compared as they are in the feed")


def _writers(catalog: Catalog, run_ids: Iterable[str]) -> list[str]:
    """``run_ids`` that have written to the ledger, with the chunks of backfills; no Spark.

    Raises ConfigError for one that has not.
    """
    rows = runs.rows(catalog, ["run_id", "parent_run_id", "finished_at"]) if run_ids else []
    writers: list[str] = []
    for run_id in run_ids:
        chunks = {row["run_id"] for row in rows if row["parent_run_id"] == run_id}  # rollbacks wrote no value
        wrote = [one for one in sorted({run_id, *chunks}) if catalog.committed("attribute_values", one)]
        if not wrote:
            raise ConfigError(f"run {run_id!r} wrote no values. The newest that did: {_newest_writers(catalog, rows)}")
        writers += wrote
    return writers


def _newest_writers(catalog: Catalog, rows: list[dict[str, Any]]) -> list[str]:
    newest_first = dict.fromkeys(row["run_id"] for row in reversed(rows))
    writers = (one for one in newest_first if catalog.committed("attribute_values", one))
    return list(islice(writers, _NAMED_RUNS))
