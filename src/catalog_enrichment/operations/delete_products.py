"""Deletes products and what is stored about them, for a merchant or a person who asks to be forgotten.

    count -> checkpoints -> products and other tables -> their values -> evidence -> review store -> pictures
          -> superseded files

Every step can be done again: killed anywhere and started again with the same ids, the job does what is left. No older
version of these tables can be read afterwards: a training or an export that reads at the same time may fail, and is run
again. The ledger, samples, verdicts and `label_uses` keep ids and values, which the numbers of runs, audits and
certificates rest on; none of them has a text of a product afterwards: evidence in the ledger, which quotes texts, is
emptied.
"""

from __future__ import annotations

import sys
from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from catalog_enrichment import contract
from catalog_enrichment.audit.review_store import ReviewStore
from catalog_enrichment.catalog import gone_products, runs
from catalog_enrichment.catalog.maintenance import Maintenance
from catalog_enrichment.catalog.runs import RunRecord
from catalog_enrichment.errors import ConfigError
from catalog_enrichment.inputs.scaled_copies import copies_of
from catalog_enrichment.inputs.stored_pictures import StoredPictures
from catalog_enrichment.monitoring.stages import Stages
from catalog_enrichment.records import DRY_RUN, NOTHING_TO_DO, RunKind, RunStatus, make_run_id, stable_hash
from catalog_enrichment.spark.frames import empty_frame, with_ids

if TYPE_CHECKING:
    import pyarrow as pa
    from pyspark.sql import DataFrame

    from catalog_enrichment.catalog.maintenance import FileSet
    from catalog_enrichment.context import Context

CLEANED = ("products", "predictions", "quarantine", "self_derived", "proposals")
"""The tables whose rows about a deleted product are removed, in every version."""

LEDGER = "attribute_values"

VALUES, EVIDENCE, SUPERSEDED, REVIEW = "values", "evidence", "superseded", "review"
"""Counts of ledger events that retract values, of ledger events with evidence, of rows in files of older versions, and
of texts in the review store."""

_COUNTED = {**{table: table for table in CLEANED}, LEDGER: VALUES}
"""Table that a run changes -> the count of what it does there."""

NOT_COVERED = (
    "the source: if it still has a product, the next import brings it back, as a new one; the files of answers",
    "older versions of current_values, which have ids and values and no texts",
    "rows of quarantine without a product id, and the table runs, which names merchants' values that are not mapped",
    "rows of set_value in the table runs, with the product's id, its values and --reason",
    "pages of reports, exported files, values that were delivered (the next delivery removes those), Label Studio",
    "MLflow (artifacts of trainings) and training.checkpoints, which may have ids of products, and pictures at their "
    "own address",
    "pictures that a running serve_audit holds in memory until it is restarted, and backups",
)
"""What the job does not delete."""


@dataclass(frozen=True, slots=True)
class _Job:
    """One attempt, and the ids that it is about."""

    context: Context
    record: RunRecord
    ids: pa.Array
    """The distinct ids, in order."""

    @property
    def products(self) -> DataFrame:
        return with_ids(self.context.spark, self.ids)

    @property
    def maintenance(self) -> Maintenance:
        return Maintenance(self.context.catalog, retention_hours=0)

    @property
    def review_file(self) -> Path:
        return self.context.config.path(self.context.config.audit.store)

    def names(self) -> list[str]:
        return list(self.ids.to_pylist())


def read_ids(given: Sequence[str], file: str | None) -> list[str]:
    """Return the distinct ids of the command line and of ``file`` (an id per line, `-`: stdin), in order.

    Raises ConfigError for a file that cannot be read, and where there is no id.
    """
    try:
        text = "" if file is None else sys.stdin.read() if file == "-" else Path(file).read_text(encoding="utf-8-sig")
    except (OSError, UnicodeDecodeError) as problem:
        raise ConfigError(f"--ids {file} cannot be read: {problem}") from None
    ids = sorted({line.strip() for line in (*given, *text.split("\n"))} - {""})
    if not ids:
        raise ConfigError("there is no product to delete: name PRODUCT_IDs, or --ids FILE with an id per line")
    return ids


def delete_products(context: Context, ids: Sequence[str], dry_run: bool = False) -> dict[str, Any]:
    """Delete the products with these ids. Return the summary, which has counts and no ids, as the run's row does.

    ``dry_run``: only count.
    """
    import pyarrow as pa

    catalog, stages = context.catalog, Stages(context.say)
    record = RunRecord(kind=RunKind.DELETE, stages=stages, secrets=context.config.secrets())
    record.window = {"ids": stable_hash(sorted(ids)), "products": len(ids)}
    job = _Job(context, record, pa.array(sorted(ids), pa.string()))
    with runs.recorded(catalog, record, unless=dry_run):
        with stages("count") as stage:
            found, known = _found(job)
            record.run_id = _run_id(job, found)
            resumed = any(catalog.committed(table, record.run_id) for table in _COUNTED)
            record.count(ids=len(ids), unknown=len(ids) - len(known), **found)
            stage.rows_out = sum(found.values())
        status: str = DRY_RUN if dry_run else RunStatus.SUCCEEDED if resumed or any(found.values()) else NOTHING_TO_DO
        context.say(_in_words(record.counts, status))
        if status == RunStatus.SUCCEEDED:
            _delete(job, found)
            runs.write(catalog, record)
    if status == RunStatus.SUCCEEDED:
        context.say("not deleted, see the runbook (a merchant asks to be forgotten):")
        for line in NOT_COVERED:
            context.say(f"  {line}")
    return {
        "status": status,
        "run_id": record.run_id if status == RunStatus.SUCCEEDED else None,
        **record.counts,
        "seconds": stages.seconds,
    }


def _run_id(job: _Job, found: Mapping[str, int]) -> str:
    """Return the id of the run: that of a killed run with the same ids, if there is one.

    A run changes a table once: where a product has come back since, it is another run.
    """
    catalog = job.context.catalog
    finished = runs.succeeded_ids(catalog)

    def is_over(run_id: str) -> bool:
        again = any(found[name] and catalog.committed(table, run_id) for table, name in _COUNTED.items())
        emptied = found[EVIDENCE] and catalog.committed(LEDGER, _second_commit(run_id))
        return run_id in finished or again or bool(emptied)

    run_id = make_run_id(RunKind.DELETE, job.names())
    while is_over(run_id):
        run_id = make_run_id(RunKind.DELETE, run_id, "again")
    return run_id


# --- count ------------------------------------------------------------------------------------------------------------


def _found(job: _Job) -> tuple[dict[str, int], Collection[str]]:
    """Return what there is to delete, by its name in the run's counts, and the ids of which anything is stored."""
    catalog, superseded = job.context.catalog, Counter[str]()
    by_product: dict[str, dict[str, int]] = {}
    for table in CLEANED:
        by_product[table] = _rows_by_product(catalog.read(table, columns=["product_id"]), job)
    for table in (*CLEANED, LEDGER):
        if catalog.version(table) >= 0:
            superseded.update(job.maintenance.superseded_rows(table, job.ids))
    by_product[SUPERSEDED] = dict(superseded)
    events = catalog.read(LEDGER)
    by_product[EVIDENCE] = _rows_by_product(events.where("evidence IS NOT NULL"), job)
    by_product[VALUES] = _rows_by_product(gone_products.to_retract(events, job.products), job)
    by_product[REVIEW] = {}
    if job.review_file.is_file():
        with ReviewStore(job.review_file) as store:
            by_product[REVIEW] = store.with_texts_of(job.names())
    known = set(_rows_by_product(events, job)).union(*by_product.values())
    return {name: sum(rows.values()) for name, rows in by_product.items()}, known


def _rows_by_product(rows: DataFrame, job: _Job) -> dict[str, int]:
    mine = rows.join(job.products, "product_id", "left_semi").groupBy("product_id").count()
    return {row["product_id"]: row["count"] for row in mine.collect()}


def _in_words(counts: Mapping[str, int], status: str) -> str:
    ids = f"{counts['ids']:,} product id{'s' * (counts['ids'] > 1)}"
    unknown = f"; nothing is stored about {counts['unknown']:,} of them" if counts["unknown"] else ""
    if status == NOTHING_TO_DO:
        return f"nothing to do: no more is stored about these {ids} than ids and values in the ledger{unknown}"
    would = status == DRY_RUN
    return (
        f"{ids}{unknown}: {counts['products']:,} products, {counts['predictions']:,} predictions, "
        f"{counts['quarantine']:,} rows in quarantine, {counts['proposals']:,} imported answers, "
        f"{counts[EVIDENCE]:,} texts of evidence in the ledger, {counts[REVIEW]:,} texts in the review store, "
        f"{counts[SUPERSEDED]:,} rows in files of older versions {'would be' if would else 'are'} deleted; "
        f"{counts[VALUES]:,} ledger events {'would ' * would}retract their values"
        f"{'; nothing is written: this is a dry run' * would}"
    )


# --- delete -----------------------------------------------------------------------------------------------------------


def _delete(job: _Job, found: Mapping[str, int]) -> None:
    """Delete everything, in an order in which a killed run leaves no value of a product that readers can see."""
    catalog, record, stages = job.context.catalog, job.record, job.record.stages
    with stages("checkpoints"):
        _discard(job, job.maintenance.all_checkpoints())  # of imports and enrichments that were killed
    with stages("publish") as stage:
        for table in filter(found.get, CLEANED):
            nothing = empty_frame(job.context.spark, contract.spark_schema(table))
            catalog.replace_products(table, nothing, job.products, record.run_id)
        stage.rows_out = _retract(job)
        if found[EVIDENCE]:
            _empty_evidence(job)
    with stages("review store"):
        if job.review_file.is_file():
            with ReviewStore(job.review_file) as store:
                store.forget(job.names())
    with stages("files"):
        if catalog.version("products") >= 0:  # the files of older versions name the pictures: they go after these
            images = job.context.config.pictures()
            stored, copied = job.maintenance.pictures_only_of(job.ids, StoredPictures.of(images), copies_of(images))
            record.count(pictures=len(stored.paths), copies=len(copied.paths))
            _discard(job, copied)
            _discard(job, stored)
        for table in (*CLEANED, LEDGER):
            if catalog.version(table) >= 0:
                _discard(job, job.maintenance.unreferenced_files(table))


def _retract(job: _Job) -> int:
    """Retract the products' values, and derive what readers see. Return the number of events."""
    catalog, record = job.context.catalog, job.record
    events = gone_products.retract_values(catalog, record.run_id, job.products, record.started_at)
    record.count(**{VALUES: events})
    catalog.refresh_current_values(record.run_id, job.products)
    catalog.checkpoints.drop(record.run_id)
    return events


def _empty_evidence(job: _Job) -> None:
    """Empty the evidence of the products' ledger events: all else of these events stays."""
    from pyspark.sql import functions as F

    catalog, run_id = job.context.catalog, job.record.run_id
    # with the names that the values were stored with, or a rollback of a rename would not find them
    events = catalog.stored(LEDGER, ids=job.ids).withColumn("evidence", F.lit(None).cast("string"))
    catalog.replace_products(LEDGER, events, job.products, _second_commit(run_id))
    catalog.confirm_current_values(run_id)


def _second_commit(run_id: str) -> str:
    """Return the name of the run's second commit to the ledger; a run commits to a table once under its own name."""
    return f"{run_id}-evidence"


def _discard(job: _Job, files: FileSet) -> None:
    if files.paths:
        job.context.catalog.tables.lock.assert_held()  # another job may need these files by now
        files.delete()
