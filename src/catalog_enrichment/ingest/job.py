"""The import job: a snapshot of the merchants' products into the catalog's products table.

    read, normalise -> validate snapshot -> row rules -> merge by product_id -> try some pictures -> quarantine,
    self_derived, products, current values

The source is read once, into a checkpoint that all later steps read, and files that were imported before not at all.
Every input row has exactly one outcome: quarantined, new, changed or unchanged, so the counts add up (I7). A killed run
that is started again has the same run id, reuses its checkpoints and gives the same result (I5). A snapshot that
changes nothing writes nothing.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from catalog_enrichment import contract, resources
from catalog_enrichment.catalog import runs, self_derived
from catalog_enrichment.catalog.runs import RunRecord
from catalog_enrichment.errors import ConfigError, DataContractError, GateRefused
from catalog_enrichment.ingest import feeds, kept_pictures, merchant_values, outcomes, picture_sample, unchanged
from catalog_enrichment.ingest.outcomes import CHANGED, NEW, QUARANTINED, UNCHANGED, ComparedSnapshot
from catalog_enrichment.ingest.source_feed import RemoteFeed, remote_feed
from catalog_enrichment.inputs.stored_pictures import StoredPictures
from catalog_enrichment.monitoring.stages import Stages
from catalog_enrichment.records import NOTHING_TO_DO, QuarantineStage, RunKind, RunStatus, make_run_id
from catalog_enrichment.validation import by_shop
from catalog_enrichment.validation.quarantine import quarantine_rows
from catalog_enrichment.validation.rows import RowRule, flag_rows, load_rules
from catalog_enrichment.validation.snapshot import check_snapshot

if TYPE_CHECKING:
    from pyspark.sql import DataFrame, Row

    from catalog_enrichment.catalog.base import Catalog
    from catalog_enrichment.config.schema import Config
    from catalog_enrichment.config.source import SourceConfig
    from catalog_enrichment.context import Context

OUTCOMES = "outcomes"
"""The checkpoint of what becomes of every row."""

MERCHANT_VALUES = "merchant_values"
"""In `runs.attributes` and the summary: attribute -> values that are canonical, and those that are not."""

_PICTURES = ("pictures_tried", "unusable_pictures")
"""Counts of the pictures that an import tried."""


def import_products(context: Context) -> dict[str, Any]:
    """Bring the products table up to date with the config's source; returns the run's summary.

    A row replaces the stored product with its id; products that are not in the snapshot stay. Raises ConfigError for an
    unusable config, DataContractError for a source that fails its validation, and GateRefused where too many pictures
    cannot be used; in each case no product was changed.
    """
    config, catalog, source = context.config, context.catalog, _source(context.config)
    stages = Stages(context.say)
    record = RunRecord(kind=RunKind.IMPORT, stages=stages, config=config.without_secrets(), secrets=config.secrets())
    with runs.recorded(catalog, record), _dropping_checkpoints_if_refused(catalog, record):
        record.config_hash = unchanged.settings_hash(config, source, context.dictionary)
        rules = load_rules(resources.locate(source.row_rules, config.path(".")))
        merchant_values.check_attributes(source.mapping, context.dictionary)
        with remote_feed(context.spark, config, context.say) as remote:
            return _import(context, record, rules, remote)


def _import(context: Context, record: RunRecord, rules: list[RowRule], remote: RemoteFeed | None) -> dict[str, Any]:
    config, spark, catalog, stages = context.config, context.spark, context.catalog, record.stages
    root, source = config.path("."), _source(config)
    with stages("look"):
        # before the files are read: what is written into them from here on is seen by the next import
        last = runs.newest_of(catalog, RunKind.IMPORT)
        imported = None if last is None else last["input_fingerprint"]
        record.input_fingerprint = feeds.fingerprint(spark, source, root, remote, imported)
        nothing_new = last is not None and _is_unchanged(context, record, last)
    if last is not None and nothing_new:
        return _nothing_new(context, record, last)

    with stages("read"):
        _move_pictures_out_of_table(context)
        record.run_id = run_id = _run_id(catalog, record, last)
        rows = _read(context, run_id, remote)

    with stages("validate"):
        record.validation = _validate_snapshot(rows, config, 0 if last is None else last["counts"]["rows"])

    with stages("compare") as stage:
        snapshot = _compare(context, record, rows, rules)
        repeated = _count_merchant_values(context, record, snapshot)
        stage.count(snapshot.counts["rows"], snapshot.counts["products"], snapshot.refused)
    quarantined = quarantine_rows(snapshot.refused_rows(), QuarantineStage.IMPORT, run_id, at=record.started_at)
    marked = sum(record.by_reason("self_derived").values())
    if not (snapshot.changes or marked or catalog.current_values_stale() or _new_quarantine(quarantined, catalog)):
        catalog.drop_checkpoints(run_id)
        context.say(f"nothing to do: all {record.counts['rows']:,} rows are in the catalog or in quarantine already")
        return _summary(record, NOTHING_TO_DO) | {"run_id": None}

    if snapshot.changes:
        committed = catalog.committed("products", run_id)
        _try_pictures(context, record, snapshot.accepted_rows(), may_refuse=not committed)
    with stages("publish") as stage:
        stage.quarantined = catalog.append("quarantine", quarantined, run_id)
        catalog.append(self_derived.TABLE, repeated, run_id)  # before the products: see self_derived.scan_products
        if snapshot.changes:
            written, changed = snapshot.written_products(run_id), snapshot.changed_products()
            stage.rows_out = catalog.replace_products("products", written, changed, run_id)
        # without changes they are stale by what others did
        catalog.refresh_current_values(run_id, snapshot.written_rows() if snapshot.changes else None)
    runs.write(catalog, record)  # the last write of the run
    catalog.drop_checkpoints(run_id)
    return _summary(record, RunStatus.SUCCEEDED)


def _read(context: Context, run_id: str, remote: RemoteFeed | None) -> DataFrame:
    """The source's rows, normalised and stored: a database or an API is not needed any more then."""
    config, catalog, source = context.config, context.catalog, _source(context.config)
    raw = feeds.read_source(context.spark, source, config.path("."), config.pictures(), remote)
    normalised = merchant_values.normalise_attributes(raw, context.dictionary)
    rows = catalog.checkpoint(run_id, "rows", outcomes.with_keys(normalised))
    if remote is not None:
        remote.release()
    return rows


def _move_pictures_out_of_table(context: Context) -> None:
    """Put pictures that an earlier release kept in the table where they are kept now. A commit of its own: the products
    stay as they are."""
    catalog, products = context.catalog, context.catalog.read("products")
    if kept_pictures.any_in_table(products):
        moved = kept_pictures.moved(products, StoredPictures.of(context.config.pictures()))
        catalog.replace("products", moved, f"pictures-{catalog.version('products')}")


def _run_id(catalog: Catalog, record: RunRecord, last: Row | None) -> str:
    """The same inputs and the same products before the import: the same run.

    A run that was killed after it had committed the products is resumed if it can read again how it compared them with
    those before.
    """

    def run_id(products_before: int) -> str:
        inputs = (record.input_fingerprint, record.config_hash, None if last is None else last["run_id"])
        return make_run_id(RunKind.IMPORT, *inputs, products_before)

    now, before = (max(version, 0) for version in catalog.written_versions("products", 2))  # 0: the table was made
    killed = run_id(before)
    if catalog.committed("products", killed) and catalog.has_checkpoint(killed, OUTCOMES):
        return killed
    return run_id(now)


def _compare(context: Context, record: RunRecord, rows: DataFrame, rules: list[RowRule]) -> ComparedSnapshot:
    """The outcome of every row, counted."""
    catalog = context.catalog
    flagged = flag_rows(rows.drop("images"), rules)
    found = outcomes.outcomes(flagged, outcomes.with_content_state(catalog.read("products")), record.started_at)
    snapshot = ComparedSnapshot.of(rows, catalog.checkpoint(record.run_id, OUTCOMES, found))
    record.count(**snapshot.counts)
    return snapshot


def _count_merchant_values(context: Context, record: RunRecord, snapshot: ComparedSnapshot) -> DataFrame:
    """Count the merchants' values, and those of them that are self-derived; returns the rows for the table `self_derived`.

    Before the products are replaced: it compares with the values that the merchants gave until now.
    """
    counted = merchant_values.count_merchant_values(snapshot.accepted_rows(), context.dictionary, snapshot.problems())
    record.attributes = {
        MERCHANT_VALUES: counted.counts,
        by_shop.UNMAPPED: counted.unmapped,
        by_shop.KEY: counted.by_shop.row(),
    }
    repeated = self_derived.newly_adopted(context.catalog, snapshot.written_rows(), record.started_at)
    repeated = context.catalog.checkpoint(record.run_id, "self_derived", repeated)
    record.count(self_derived=_by_attribute(repeated))
    return repeated


@contextmanager
def _dropping_checkpoints_if_refused(catalog: Catalog, record: RunRecord) -> Iterator[None]:
    """The next attempt must look again at what this one refused: pictures may be there then, which changes versions."""
    try:
        yield
    except (DataContractError, GateRefused):
        if record.run_id:
            catalog.drop_checkpoints(record.run_id)
        raise


def _is_unchanged(context: Context, record: RunRecord, last: Row) -> bool:
    """Whether ``last``, the newest import, left the catalog as this one would. No row of the files is looked at."""
    catalog = context.catalog
    same_inputs = (last["input_fingerprint"], last["config_hash"]) == (record.input_fingerprint, record.config_hash)
    # another version: an import was killed after it had changed the products
    same_products = (last["table_versions"] or {}).get("products") == catalog.written_versions("products")[0]
    if not (same_inputs and same_products) or catalog.current_values_stale():
        return False
    return not unchanged.other_pictures(catalog.read("products"), context.config.pictures())


def _nothing_new(context: Context, record: RunRecord, last: Row) -> dict[str, Any]:
    """The summary where the files were imported before: its counts are those of ``last``, the run that did it."""
    context.say(f"nothing to do: run {last['run_id']} imported these files, and nothing has changed since")
    record.counts = last["counts"] | {NEW: 0, CHANGED: 0, UNCHANGED: last["counts"]["products"]}
    record.counts = {name: n for name, n in record.counts.items() if not name.startswith(("self_derived", *_PICTURES))}
    record.attributes = json.loads(last["attributes"])
    return _summary(record, NOTHING_TO_DO) | {"run_id": None}


def _try_pictures(context: Context, record: RunRecord, accepted: DataFrame, may_refuse: bool) -> None:
    """Count which pictures of a sample can be used, and warn. Raises GateRefused where too many cannot and the import
    ``may_refuse``: where it was killed after its products had become visible, it can only go on."""
    images, mapping = context.config.pictures(), _source(context.config).mapping
    if not (mapping.image_bytes or mapping.image_uris):
        return
    with record.stages("pictures") as stage:
        pictures = picture_sample.try_pictures(accepted, images)
        record.count(pictures_tried=pictures.tried, unusable_pictures=pictures.by_reason)
        stage.count(pictures.tried, pictures.tried - pictures.unusable)
    if may_refuse:
        picture_sample.refuse_too_many(pictures, images.max_unusable)
    if pictures.by_reason:
        context.say(f"warning: {pictures.sentence()}")


def _source(config: Config) -> SourceConfig:
    if config.source is None:
        raise ConfigError("the config has no [source] section; import_products needs one (format, path, mapping)")
    return config.source


def _validate_snapshot(raw: DataFrame, config: Config, last_rows: int) -> dict[str, Any]:
    """The great_expectations document of the snapshot. Raises DataContractError, which lists the failures."""
    source = _source(config)
    suite = resources.locate(source.snapshot_suite, config.path("."))
    min_rows = max(1, math.ceil(source.min_volume_ratio * last_rows))
    report = check_snapshot(raw, suite, {"min_rows": min_rows})
    if not report.success:
        failures = "\n  - ".join(report.failures)
        raise DataContractError(f"{source.path} fails {suite.name}; nothing was written:\n  - {failures}")
    return report.document


def _by_attribute(values: DataFrame) -> dict[str, int]:
    return {row["attribute"]: row["count"] for row in values.groupBy("attribute").count().collect()}


def _new_quarantine(quarantined: DataFrame, catalog: Catalog) -> bool:
    """Whether a row is not in the quarantine of a finished run yet; rows that killed runs left there do not count."""
    facts = [name for name in contract.columns("quarantine") if name not in ("run_id", "quarantined_at")]
    known = runs.of_succeeded(catalog, "quarantine")
    return not quarantined.select(*facts).exceptAll(known.select(*facts)).isEmpty()


def _summary(record: RunRecord, status: str) -> dict[str, Any]:
    """The job's JSON line: products (input rows) = new + changed + unchanged + the quarantined.

    ``pictures_tried``: the sampled products with pictures, ``unusable_pictures`` those of them without a usable one.
    ``self_derived``: attribute -> merchant values that are new and repeat what this system wrote or suggested.
    """
    return {
        "job": "import_products",
        "run_id": record.run_id,
        "status": status,
        "products": record.counts["rows"],
        **{name: record.counts[name] for name in (NEW, CHANGED, UNCHANGED)},
        QUARANTINED: record.by_reason(QUARANTINED),
        "self_derived": record.by_reason("self_derived"),
        "pictures_tried": record.counts.get("pictures_tried", 0),
        "unusable_pictures": record.by_reason("unusable_pictures"),
        MERCHANT_VALUES: (record.attributes or {}).get(MERCHANT_VALUES, {}),
        "seconds": record.stages.seconds,
    }
