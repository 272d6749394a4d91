"""The import job: a snapshot of the merchants' products into the catalog's products table.

    read -> validate snapshot -> normalise -> row rules -> merge by product_id -> try some pictures -> quarantine,
    adopted, products, current values

Every input row has exactly one outcome: quarantined, new, changed or unchanged, so the counts add up (I7). A killed run
that is started again has the same run id, reuses its checkpoints and gives the same result (I5). A snapshot that
changes nothing writes nothing.
"""

from __future__ import annotations

import math
from datetime import datetime
from typing import TYPE_CHECKING, Any

from catalog_enrichment import contract, resources
from catalog_enrichment.catalog import adopted, runs
from catalog_enrichment.catalog.runs import RunRecord
from catalog_enrichment.errors import ConfigError, DataContractError, GateRefused
from catalog_enrichment.ingest import feeds, merchant_values, picture_sample
from catalog_enrichment.records import NOTHING_TO_DO, QuarantineStage, RunKind, RunStatus, make_run_id
from catalog_enrichment.stages import Stages
from catalog_enrichment.validation.quarantine import quarantine_rows
from catalog_enrichment.validation.rows import flag_rows, load_rules
from catalog_enrichment.validation.snapshot import check_snapshot

if TYPE_CHECKING:
    from pyspark.sql import Column, DataFrame

    from catalog_enrichment.catalog.base import Catalog
    from catalog_enrichment.config.schema import Config
    from catalog_enrichment.config.source import SourceConfig
    from catalog_enrichment.context import Context

NEW, CHANGED, UNCHANGED, QUARANTINED = "new", "changed", "unchanged", "quarantined"


def import_products(context: Context) -> dict[str, Any]:
    """Bring the products table up to date with the config's source; returns the run's summary.

    A row replaces the stored product with its id; products that are not in the snapshot stay. Raises ConfigError for an
    unusable config, DataContractError for a source that fails its validation, and GateRefused where too many pictures
    cannot be used; in each case nothing was written.
    """
    config, spark, catalog, dictionary = context.config, context.spark, context.catalog, context.dictionary
    stages, root, source = Stages(context.say), config.path("."), _source(config)
    record = RunRecord(kind=RunKind.IMPORT, stages=stages, config=config.without_secrets(), secrets=config.secrets())
    record.config_hash = config.hash("source", "catalog")
    rules = load_rules(resources.locate(source.row_rules, root))
    merchant_values.check_attributes(source.mapping, dictionary)

    with runs.recorded(catalog, record):
        with stages("validate") as stage:
            raw = feeds.read_source(spark, source, root, config.pictures())
            record.input_fingerprint = feeds.fingerprint(spark, source, root)
            previous = _last_import(catalog)
            inputs = (record.input_fingerprint, record.config_hash, dictionary.hash(), previous["run_id"])
            record.run_id = run_id = make_run_id(RunKind.IMPORT, *inputs)
            record.validation = _validate_snapshot(raw, config, previous["rows"])
            stage.rows_in = _observed_row_count(record.validation)

        with stages("read") as stage:
            normalised = merchant_values.normalise_attributes(raw, dictionary)
            rows = catalog.checkpoint(run_id, "rows", _with_keys(normalised))
            without_images, stored = rows.drop("images"), catalog.read("products")
            outcomes = _outcomes(flag_rows(without_images, rules), _with_content_state(stored), record.started_at)
            outcomes = catalog.checkpoint(run_id, "outcomes", outcomes)
            record.count(**_counts(rows, outcomes))
            values = merchant_values.count_merchant_values(_accepted(without_images, outcomes), dictionary)
            record.attributes = {"merchant_values": values}
            # before the products are replaced: it compares with the values that the merchants gave until now
            repeated = adopted.newly_adopted(catalog, _written(without_images, outcomes), record.started_at)
            repeated = catalog.checkpoint(run_id, "adopted", repeated)
            record.count(adopted=_by_attribute(repeated))
            stage.rows_in, stage.rows_out = record.counts["rows"], record.counts["products"]
            stage.quarantined = stage.rows_in - stage.rows_out

        refused = _refused(without_images, outcomes)
        quarantined = quarantine_rows(refused, QuarantineStage.IMPORT, run_id, at=record.started_at)
        changes, marked = record.counts[NEW] + record.counts[CHANGED], sum(record.by_reason("adopted").values())
        if not (changes or marked or catalog.current_values_stale() or _new_quarantine(quarantined, catalog)):
            catalog.drop_checkpoints(run_id)
            context.say(f"nothing to do: all {stage.rows_in:,} rows are in the catalog or in quarantine already")
            return _summary(record, NOTHING_TO_DO) | {"run_id": None}

        if changes:
            _try_pictures(context, record, _accepted(rows, outcomes))
        with stages("publish") as stage:
            stage.quarantined = catalog.append("quarantine", quarantined, run_id)
            catalog.append(adopted.TABLE, repeated, run_id)  # before the products: see adopted.scan_products
            if changes:
                stage.rows_out = catalog.replace("products", _merged(rows, outcomes, stored), run_id)
            catalog.refresh_current_values(run_id)
        runs.write(catalog, record)  # the last write of the run
        catalog.drop_checkpoints(run_id)
    return _summary(record, RunStatus.SUCCEEDED)


def _try_pictures(context: Context, record: RunRecord, accepted: DataFrame) -> None:
    """Count which pictures of a sample can be used, and warn. Raises GateRefused where too many cannot."""
    images, mapping = context.config.pictures(), _source(context.config).mapping
    if not (mapping.image_bytes or mapping.image_uris):
        return
    with record.stages("pictures") as stage:
        pictures = picture_sample.try_pictures(accepted, images)
        record.count(pictures_tried=pictures.tried, unusable_pictures=pictures.by_reason)
        stage.count(pictures.tried, pictures.tried - pictures.unusable)
    try:
        picture_sample.refuse_too_many(pictures, images.max_unusable)
    except GateRefused:  # the next attempt must look at the pictures again, which may have other versions then
        context.catalog.drop_checkpoints(record.run_id)
        raise
    if pictures.by_reason:
        context.say(f"warning: {pictures.sentence()}")


def _source(config: Config) -> SourceConfig:
    if config.source is None:
        raise ConfigError("the config has no [source] section; import_products needs one (format, path, mapping)")
    return config.source


def _last_import(catalog: Catalog) -> dict[str, Any]:
    """Run id and rows of the last import that changed something; None and 0 before the first."""
    from pyspark.sql import functions as F

    row = runs.newest(catalog, F.col("kind") == RunKind.IMPORT.value)
    return {"run_id": None, "rows": 0} if row is None else {"run_id": row["run_id"], "rows": row["counts"]["rows"]}


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


def _observed_row_count(document: dict[str, Any]) -> int | None:
    """Rows as great_expectations counted them; None if the suite has no row count expectation."""
    row_count = "expect_table_row_count_to_be_between"
    results = [r["result"] for r in document["results"] if r["expectation_config"]["type"] == row_count]
    return int(results[0]["observed_value"]) if results else None


def _with_keys(raw: DataFrame) -> DataFrame:
    """Adds ``row_key``, unique in the checkpoint it is written to, and ``state``."""
    from pyspark.sql import functions as F

    return _with_content_state(raw).withColumn("row_key", F.monotonically_increasing_id())


def _with_content_state(products: DataFrame) -> DataFrame:
    """Adds ``state``: a hash of every column a merchant can change except updated_at. Picture bytes are not read."""
    from pyspark.sql import functions as F

    pictures = F.transform("images", lambda i: F.struct(i["uri"].alias("uri"), i["version"].alias("version")))
    columns: list[Column] = [F.col(name) for name in ("content_hash", "shop_id", "category", "language", "opt_out")]
    columns += [F.array_sort(F.map_entries("merchant_attributes")).alias("values"), pictures.alias("pictures")]
    return products.withColumn("state", F.sha2(F.to_json(F.struct(*columns), {"ignoreNullFields": "false"}), 256))


def _outcomes(flagged: DataFrame, stored: DataFrame, now: datetime) -> DataFrame:
    """One row per input row: row_key, product_id, outcome, reason, detail, and the product's updated_at.

    ``updated_at`` is the row's own time; without one, the stored time if the product is unchanged, else ``now``.
    """
    from pyspark.sql import functions as F

    known = stored.select("product_id", F.col("state").alias("stored_state"), F.col("updated_at").alias("stored_at"))
    same = (F.col("state") == F.col("stored_state")) & (
        F.col("updated_at").isNull() | F.col("updated_at").eqNullSafe(F.col("stored_at"))
    )
    outcome = (
        F.when(F.col("reason").isNotNull(), QUARANTINED)
        .when(F.col("stored_state").isNull(), NEW)
        .when(same, UNCHANGED)
        .otherwise(CHANGED)
    )
    default_time = F.when(outcome == UNCHANGED, F.col("stored_at")).otherwise(F.lit(now))
    return flagged.join(known, "product_id", "left").select(
        "row_key",
        "product_id",
        "reason",
        "detail",
        outcome.alias("outcome"),
        F.coalesce("updated_at", default_time).alias("updated_at"),
    )


def _counts(rows: DataFrame, outcomes: DataFrame) -> dict[str, Any]:
    """rows = new + changed + unchanged + quarantined (I7), checked against the checkpoint of the rows."""
    grouped = outcomes.groupBy("outcome", "reason").count().collect()
    numbers = {(row["outcome"], row["reason"]): row["count"] for row in grouped}
    counts: dict[str, Any] = {name: numbers.get((name, None), 0) for name in (NEW, CHANGED, UNCHANGED)}
    counts["products"] = sum(counts.values())
    counts[QUARANTINED] = {reason: n for (_, reason), n in sorted(numbers.items(), key=str) if reason is not None}
    counts["rows"] = rows.count()
    if counts["rows"] != counts["products"] + sum(counts[QUARANTINED].values()):
        raise RuntimeError(f"input rows and their outcomes do not add up: {counts}")
    return counts


def _accepted(rows: DataFrame, outcomes: DataFrame) -> DataFrame:
    accepted = outcomes.where(outcomes.outcome != QUARANTINED).select("row_key")
    return rows.join(accepted, "row_key", "left_semi")


def _written(rows: DataFrame, outcomes: DataFrame) -> DataFrame:
    """The rows that change the products table."""
    return rows.join(outcomes.where(outcomes.outcome.isin(NEW, CHANGED)).select("row_key"), "row_key", "left_semi")


def _by_attribute(values: DataFrame) -> dict[str, int]:
    return {row["attribute"]: row["count"] for row in values.groupBy("attribute").count().collect()}


def _refused(rows: DataFrame, outcomes: DataFrame) -> DataFrame:
    """The rows that go to quarantine, with ``reason`` and ``detail``."""
    refused = outcomes.where(outcomes.outcome == QUARANTINED).select("row_key", "reason", "detail")
    return rows.join(refused, "row_key")


def _new_quarantine(quarantined: DataFrame, catalog: Catalog) -> bool:
    """Whether a row is not in the quarantine of a finished run yet; rows that killed runs left there do not count."""
    facts = [name for name in contract.columns("quarantine") if name not in ("run_id", "quarantined_at")]
    known = runs.of_succeeded(catalog, "quarantine")
    return not quarantined.select(*facts).exceptAll(known.select(*facts)).isEmpty()


def _merged(rows: DataFrame, outcomes: DataFrame, stored: DataFrame) -> DataFrame:
    """The products table after the import. Of ``rows``, only the pictures of new and changed products are shuffled."""
    from pyspark.sql import functions as F

    written = outcomes.where(F.col("outcome").isin(NEW, CHANGED)).select("row_key", "product_id", "updated_at")
    columns = contract.columns("products")
    replacing = rows.drop("product_id", "updated_at").join(written, "row_key")
    return stored.join(written, "product_id", "left_anti").select(columns).unionByName(replacing.select(columns))


def _summary(record: RunRecord, status: str) -> dict[str, Any]:
    """The job's JSON line: products (input rows) = new + changed + unchanged + the quarantined.

    ``pictures_tried``: the sampled products with pictures, ``unusable_pictures`` those of them without a usable one.
    ``adopted``: attribute -> merchant values that are new and repeat what this system wrote or suggested.
    """
    return {
        "job": "import_products",
        "run_id": record.run_id,
        "status": status,
        "products": record.counts["rows"],
        **{name: record.counts[name] for name in (NEW, CHANGED, UNCHANGED)},
        QUARANTINED: record.by_reason(QUARANTINED),
        "adopted": record.by_reason("adopted"),
        "pictures_tried": record.counts.get("pictures_tried", 0),
        "unusable_pictures": record.by_reason("unusable_pictures"),
        **(record.attributes or {}),
        "seconds": record.stages.seconds,
    }
