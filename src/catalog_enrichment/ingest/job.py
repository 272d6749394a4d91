"""The import job: brings the catalog's products table up to date with the merchants' rows of a source.

    look -> read, normalise -> validate snapshot -> row rules, compare with the stored products -> try some pictures ->
    quarantine, self_derived, products, values of products that are gone, current values

The source is read once, into a checkpoint that all later steps read; a source that has not changed since the last
import is not read at all, and of a source that tells its changes only these are read (changes.py). Every input row has
exactly one outcome: quarantined, new, changed, unchanged or a deletion, so the counts add up (I7). Products that the
source deletes, or no longer has where it is complete, are removed. A killed run that is started again has the same run
id, reuses its checkpoints and gives the same result (I5). An import that changes nothing writes nothing, but for the
new position of a source that tells its changes.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from catalog_enrichment import __version__, contract, resources
from catalog_enrichment.catalog import gone_products, runs, self_derived
from catalog_enrichment.catalog.runs import RunRecord
from catalog_enrichment.catalog.table_checks import check_products_unique
from catalog_enrichment.ingest import changes, checks, merchant_values, outcomes
from catalog_enrichment.ingest.absent_products import CHANGES, RETRACTED, refuse_many_gone, who_went
from catalog_enrichment.ingest.changes import LastImport, Reading
from catalog_enrichment.ingest.merchant_values import MERCHANT_VALUES
from catalog_enrichment.ingest.outcomes import (
    CHANGED,
    DELETIONS,
    GONE,
    MERGED,
    NEW,
    QUARANTINED,
    UNCHANGED,
    Absence,
    ComparedSnapshot,
)
from catalog_enrichment.ingest.product_columns import names_to_read, read_products
from catalog_enrichment.ingest.product_pictures import other_pictures
from catalog_enrichment.ingest.source_frame import ProductSource, SourceRows
from catalog_enrichment.ingest.sources import opened_source, source_config
from catalog_enrichment.monitoring.stages import Stages
from catalog_enrichment.records import NOTHING_TO_DO, QuarantineStage, RunKind, RunStatus, make_run_id, stable_hash
from catalog_enrichment.validation.quarantine import quarantine_rows
from catalog_enrichment.validation.rows import RowRule, flag_rows, load_rules
from catalog_enrichment.validation.snapshot import refuse_unusable_pictures, try_pictures

if TYPE_CHECKING:
    import pyarrow as pa
    from pyspark.sql import DataFrame

    from catalog_enrichment.catalog.lake import Catalog
    from catalog_enrichment.context import Context

OUTCOMES = "outcomes"
"""The checkpoint of :func:`outcomes.outcomes`."""

_PICTURES = ("pictures_tried", "unusable_pictures")
"""Counts of the pictures that an import tried."""


def import_products(context: Context, full: bool = False) -> dict[str, Any]:
    """Bring the products table up to date with the config's source; return the run's summary.

    ``full``: read all rows, also of a source that tells its changes. A row replaces the stored product with its id, or
    deletes it; products that are not in the source stay unless it is complete. Raises ConfigError for an unusable
    config, DataContractError for a source that fails its validation, and GateRefused where too many pictures cannot be
    used or products are gone; in each case no product was changed.
    """
    config, catalog, given = context.config, context.catalog, source_config(context.config)
    record = RunRecord(
        kind=RunKind.IMPORT, stages=Stages(context.say), config=config.without_secrets(), secrets=config.secrets()
    )
    with runs.recorded(catalog, record), runs.dropping_checkpoints_if_refused(catalog, record):
        record.config_hash = _settings_hash(context)
        rules = load_rules(resources.locate(given.row_rules, config.path(".")))
        _check_attributes(context)
        with opened_source(context.spark, config, context.say) as source:
            return _import(context, record, rules, source, full)


def _import(
    context: Context, record: RunRecord, rules: list[RowRule], source: ProductSource, full: bool
) -> dict[str, Any]:
    catalog, stages, given = context.catalog, record.stages, source_config(context.config)
    with stages("look"):
        # before the rows are read: the next import sees what is changed in the source from here on
        before = _last_import(context)
        last = before.newest or before.row
        record.input_fingerprint = source.fingerprint("" if before.row is None else before.row["input_fingerprint"])
        same = last is not None and _is_same_import(context, record, before, full)
        unchanged = same and not other_pictures(catalog.read("products"), context.config.pictures())
        reading = Reading() if unchanged else _reading(context, record, source, before, full, same)
    if last is not None and unchanged:
        return _nothing_new(context, record, last)

    record.run_id = run_id = _run_id(catalog, record, last, reading)
    if reading.is_empty and not catalog.current_values_stale():
        return _no_changes(context, record, before, reading)

    with stages("read"):
        rows = _read(context, run_id, reading.rows_of(source))
        source.close()
        ids = reading.ids(rows)
    with stages("validate"):
        record.validation = checks.check_rows(rows, context.config, before, reading)
    with stages("compare") as stage:
        snapshot = _compare(context, record, rows, rules, _absence(context, record, before, reading), ids)
        record.attributes = merchant_values.count_merchant_values(
            snapshot.accepted_rows(), context.dictionary, snapshot.problems()
        )
        now = changes.compared(snapshot.counts["rows"], snapshot.counts["products"], record.attributes)
        checks.check_filled(given, now, before, reading, context.say)
        if reading.part is None:
            checks.name_unused_categories(given, context.dictionary, snapshot.accepted_rows(), context.say)
        self_derived_values = None
        if snapshot.changes and self_derived.may_be_found(catalog):
            self_derived_values = _find_self_derived(context, record, snapshot)
        stage.count(snapshot.counts["rows"], snapshot.counts["products"], snapshot.refused)
    quarantined = quarantine_rows(snapshot.refused_rows(), QuarantineStage.IMPORT, run_id, at=record.started_at)
    published = snapshot.alters or catalog.current_values_stale()
    if not published and not (snapshot.refused and _new_quarantine(quarantined, catalog)):
        context.say(f"nothing to do: all {record.counts['rows']:,} rows are in the catalog or in quarantine already")
        return _nothing_written(context, record, before, reading)

    may_refuse = not catalog.committed("products", run_id)  # else it was killed after that: it can only go on
    if may_refuse and snapshot.counts[GONE]:
        refuse_many_gone(snapshot, given, catalog.read("products").count())
    if snapshot.changes:
        _try_pictures(
            context, record, snapshot.accepted_rows(), may_refuse and not reading.is_small(record.counts["rows"])
        )
    with stages("publish") as stage:
        stage.quarantined = catalog.append("quarantine", quarantined, run_id, snapshot.refused)
        if self_derived_values is not None:
            marked = sum(record.by_reason("self_derived").values())
            # before the products: see self_derived.scan_products
            catalog.append(self_derived.TABLE, self_derived_values, run_id, marked)
        if snapshot.alters:
            written = snapshot.products_to_write(catalog.stored("products", ids=ids), run_id)
            replaced = snapshot.replaced()
            stage.rows_out = catalog.replace_products("products", written, replaced.rows, run_id, replaced.ids)
            _retract_past_values(context, record, snapshot)
        # where nothing is altered they are stale because of another job
        of_readers = snapshot.of_readers()
        catalog.refresh_current_values(run_id, of_readers.rows if snapshot.alters else None, of_readers.ids)
    record.window = _window(record, before, reading)
    runs.write(catalog, record)  # the last write of the run
    catalog.checkpoints.drop(run_id)
    if went := who_went(record.counts, given):
        context.say(went)
    return _summary(record, RunStatus.SUCCEEDED) | reading.summary()


# --- the last import --------------------------------------------------------------------------------------------------


def _settings_hash(context: Context) -> str:
    """Return a hash of everything but the source that an import's result depends on."""
    config, source = context.config, source_config(context.config)
    root, images = config.path("."), config.pictures()
    files = [resources.locate(name, root).read_text() for name in (source.row_rules, source.snapshot_suite)]
    pictures = (images.max_bytes, images.store, images.fetch.schemes, images.fetch.allowed_folders)
    return stable_hash(__version__, config.hash("source", "catalog"), context.dictionary.hash(), files, pictures)


def _last_import(context: Context) -> LastImport:
    """Return the last import of the config's source; for a source that was never imported, the newest import."""
    catalog, config = context.catalog, context.config.without_secrets()
    newest = runs.newest_of(catalog, RunKind.IMPORT)
    if newest is None or changes.names_source(newest, config):
        return LastImport(row=newest)
    for row in reversed(runs.rows(catalog, ["run_id", "kind", "status", "config", "finished_at"])):
        if row["kind"] == RunKind.IMPORT and runs.has_succeeded(row) and changes.names_source(row, config):
            return LastImport(row=runs.find(catalog, row["run_id"]), newest=newest)
    return LastImport(row=newest)


def _is_same_import(context: Context, record: RunRecord, before: LastImport, full: bool) -> bool:
    """Return whether the last import left the products as this import would, if no picture has changed. No row is
    looked at."""
    catalog, last = context.catalog, before.newest or before.row
    if last is None or (last["input_fingerprint"], last["config_hash"]) != (
        record.input_fingerprint,
        record.config_hash,
    ):
        return False
    if not before.read_all and (full or changes.is_due(source_config(context.config), before, record.started_at)):
        return False
    # the versions differ if an import was killed after it had changed the products
    same_products = before.products_version == catalog.tables.written_versions("products")[0]
    return same_products and not catalog.current_values_stale()


def _reading(
    context: Context, record: RunRecord, source: ProductSource, before: LastImport, full: bool, same: bool
) -> Reading:
    """Return what to read of the source, and say it. ``same``: it has not changed, but a picture has."""
    given, because = source_config(context.config), "--full" if full else ""
    if before.row is not None and not because:
        if before.row["config_hash"] != record.config_hash:
            because = "the config, the dictionary or the rules are others than at the last import"
        elif context.catalog.tables.written_versions("products")[0] < before.products_version:
            because = "the table products is older than the last import"
        elif same:
            because = "a picture of a stored product has changed"
    reading = changes.reading_of(source, given, before, names_to_read(given), record.started_at, because)
    if reading.why:
        context.say(f"{given.path}: {'all rows' if reading.part is None else 'changes'} are read: {reading.why}")
    return reading


def _absence(context: Context, record: RunRecord, before: LastImport, reading: Reading) -> Absence:
    """Return the rule for absent products: they count if this is another snapshot of a complete source, read as a
    whole."""
    given, last = source_config(context.config), before.row
    seen = last is not None and last["input_fingerprint"] == record.input_fingerprint and before.read_all
    return Absence(given.complete and reading.part is None and not seen, given.absent_imports)


def _nothing_new(context: Context, record: RunRecord, last: Mapping[str, Any]) -> dict[str, Any]:
    """Return the summary where ``last`` imported the same rows: its counts."""
    context.say(f"nothing to do: run {last['run_id']} imported these files, and nothing has changed since")
    record.counts = last["counts"] | {NEW: 0, CHANGED: 0, UNCHANGED: last["counts"]["products"]}
    record.counts |= dict.fromkeys(CHANGES, 0)
    record.counts = {name: n for name, n in record.counts.items() if not name.startswith(("self_derived", *_PICTURES))}
    record.attributes = runs.attributes(last)
    return _summary(record, NOTHING_TO_DO) | {"run_id": None}


def _no_changes(context: Context, record: RunRecord, before: LastImport, reading: Reading) -> dict[str, Any]:
    """Return the summary where it is known that no row has changed."""
    context.say("nothing to do: no row has changed")
    record.count(**dict.fromkeys(("rows", "products", NEW, CHANGED, UNCHANGED), 0))
    return _nothing_written(context, record, before, reading)


def _nothing_written(context: Context, record: RunRecord, before: LastImport, reading: Reading) -> dict[str, Any]:
    """Return the summary of an import that changes nothing. Only a source's new position is noted, in a row of `runs`:
    the next import need not read the same changes again."""
    context.catalog.checkpoints.drop(record.run_id)
    record.window = _window(record, before, reading)
    noted = reading.has_moved(before)
    if noted:
        runs.write(context.catalog, record)
    run_id = record.run_id if noted else None
    return _summary(record, NOTHING_TO_DO) | reading.summary() | {"run_id": run_id}


def _window(record: RunRecord, before: LastImport, reading: Reading) -> dict[str, Any] | None:
    return reading.window(before, record.counts, record.attributes, record.started_at)


def _check_attributes(context: Context) -> None:
    """Raise ConfigError for an attribute of the mapping that never was in the dictionary; warn of those that left."""
    mapping, known = source_config(context.config).mapping, context.dictionary
    imported: dict[str, Any] = {}
    if set(mapping.attributes) - set(known.attributes):
        last = runs.newest_of(context.catalog, RunKind.IMPORT)
        imported = {} if last is None else json.loads(last["config"])["source"]["mapping"]["attributes"]
    for name in merchant_values.check_attributes(mapping, known, imported):
        context.say(
            f"warning: {name} is not in the dictionary any more: the merchants' values are kept as they are given; "
            "take it out of source.mapping.attributes too"
        )


def _run_id(catalog: Catalog, record: RunRecord, last: Mapping[str, Any] | None, reading: Reading) -> str:
    """Return the same id for the same inputs and the same products before the import.

    A run that was killed after it had committed the products is resumed, if its comparison with the products before is
    still there.
    """

    def run_id(products_before: int) -> str:
        inputs = (record.input_fingerprint, record.config_hash, None if last is None else last["run_id"])
        return make_run_id(RunKind.IMPORT, *inputs, *reading.key, products_before)

    return runs.resumable_id(catalog, "products", OUTCOMES, run_id)


# --- the stages -------------------------------------------------------------------------------------------------------


def _read(context: Context, run_id: str, source: SourceRows) -> DataFrame:
    """Return the source's rows, normalised and stored."""
    config = context.config
    raw = read_products(source, source_config(config), config.path("."), config.pictures())
    normalised = merchant_values.normalise_attributes(raw, context.dictionary)
    return context.catalog.checkpoints.get_or_compute(run_id, "rows", outcomes.with_keys(normalised))


def _compare(
    context: Context, record: RunRecord, rows: DataFrame, rules: list[RowRule], absence: Absence, ids: pa.Array | None
) -> ComparedSnapshot:
    """Return the outcome of every row, counted. ``ids``: of the products to compare with, if few.

    Raises DataContractError if the catalog has a product twice.
    """
    catalog = context.catalog
    stored = outcomes.with_content_state(catalog.read("products", ids=ids))
    found = outcomes.outcomes(flag_rows(rows, rules), stored, record.started_at, absence)
    try:
        snapshot = ComparedSnapshot.of(rows, catalog.checkpoints.get_or_compute(record.run_id, OUTCOMES, found))
    except RuntimeError:  # a product that is twice in the catalog has two outcomes
        catalog.checkpoints.drop(record.run_id)
        check_products_unique(catalog.read("products"), catalog.location("products"))
        raise
    record.count(**snapshot.counts)
    return snapshot


def _retract_past_values(context: Context, record: RunRecord, snapshot: ComparedSnapshot) -> None:
    """Retract what was asserted about products that are removed, and about earlier products with the ids of new ones.

    To be called after the products are replaced: see :mod:`gone_products`.
    """
    if not (snapshot.removed or snapshot.counts[NEW]):
        return
    others = snapshot.others()
    events = gone_products.retract_values(context.catalog, record.run_id, others.rows, record.started_at, others.ids)
    record.count(**{RETRACTED: events})


def _find_self_derived(context: Context, record: RunRecord, snapshot: ComparedSnapshot) -> DataFrame:
    """Return the rows for the table `self_derived`, counted.

    To be called before the products are replaced: it compares with the values that the merchants gave until now.
    """
    written, ids = snapshot.written_rows(), snapshot.written().ids
    found = self_derived.newly_found(context.catalog, written, record.started_at, ids)
    stored = context.catalog.checkpoints.get_or_compute(record.run_id, "self_derived", found)
    by_attribute = {row["attribute"]: row["count"] for row in stored.groupBy("attribute").count().collect()}
    record.count(self_derived=by_attribute)
    return stored


def _try_pictures(context: Context, record: RunRecord, accepted: DataFrame, may_refuse: bool) -> None:
    """Count which pictures of a sample can be used, and warn. Raises GateRefused if too many cannot.

    ``may_refuse`` is False if the import was killed after its products had become visible: it can only go on.
    """
    images, mapping = context.config.pictures(), source_config(context.config).mapping
    if not (mapping.image_bytes or mapping.image_uris):
        return
    with record.stages("pictures") as stage:
        pictures = try_pictures(accepted, images)
        record.count(pictures_tried=pictures.tried, unusable_pictures=pictures.by_reason)
        stage.count(pictures.tried, pictures.tried - pictures.unusable)
    if may_refuse:
        refuse_unusable_pictures(pictures, images.max_unusable)
    if pictures.by_reason:
        context.say(f"warning: {pictures.sentence()}")


def _new_quarantine(quarantined: DataFrame, catalog: Catalog) -> bool:
    """Return whether a row is not in the quarantine of a finished run yet. Rows of killed runs do not count."""
    facts = [name for name in contract.columns("quarantine") if name not in ("run_id", "quarantined_at")]
    known = runs.of_succeeded(catalog, "quarantine")
    return not quarantined.select(*facts).exceptAll(known.select(*facts)).isEmpty()


def _summary(record: RunRecord, status: str) -> dict[str, Any]:
    """Return the job's JSON line: products (input rows) = new + changed + unchanged + quarantined + deletions.

    ``deletions``, where the source has some: rows that delete a product; ``deleted``: those whose product was stored.
    ``missed``, ``gone``, ``returned``, where the source is complete: stored products that this snapshot does not have,
    those that are removed for it, and those that earlier snapshots did not have. ``retracted``: ledger events.
    ``merged_rows``, where rows were merged: the source had so many more rows.
    ``pictures_tried``: the sampled products with pictures; ``unusable_pictures``: those without a usable picture.
    ``self_derived``: attribute -> merchant values that are new and repeat what this system wrote or suggested.
    """
    return {
        "job": "import_products",
        "run_id": record.run_id,
        "status": status,
        "products": record.counts["rows"],
        **{name: record.counts[name] for name in (NEW, CHANGED, UNCHANGED)},
        QUARANTINED: record.by_reason(QUARANTINED),
        **{name: record.counts[name] for name in (MERGED, DELETIONS, *CHANGES) if record.counts.get(name)},
        "self_derived": record.by_reason("self_derived"),
        "pictures_tried": record.counts.get("pictures_tried", 0),
        "unusable_pictures": record.by_reason("unusable_pictures"),
        MERCHANT_VALUES: (record.attributes or {}).get(MERCHANT_VALUES, {}),
        "seconds": record.stages.seconds,
    }
