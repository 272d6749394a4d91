"""The import job: a snapshot of the merchants' products into the catalog's products table.

    read -> validate snapshot -> normalise -> row rules -> merge by product_id -> quarantine, products, current values

Every input row has exactly one outcome: quarantined, new, changed or unchanged, so the counts add up (I7). A killed run
that is started again has the same run id, reuses its checkpoints and gives the same result (I5). A snapshot that
changes nothing writes nothing.
"""

from __future__ import annotations

import json
import math
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from catalog_enrichment import contract, resources
from catalog_enrichment.errors import ConfigError, DataContractError
from catalog_enrichment.ingest import feeds, merchant_values
from catalog_enrichment.records import SUCCEEDED, QuarantineStage, RunKind, make_run_id
from catalog_enrichment.validation.quarantine import quarantine_rows
from catalog_enrichment.validation.rows import flag_rows, load_rules
from catalog_enrichment.validation.snapshot import check_snapshot

if TYPE_CHECKING:
    from pyspark.sql import Column, DataFrame

    from catalog_enrichment.catalog.lake import LakeCatalog
    from catalog_enrichment.config.schema import Config
    from catalog_enrichment.config.source import SourceConfig
    from catalog_enrichment.context import Context
    from catalog_enrichment.stages import Stages

NEW, CHANGED, UNCHANGED, QUARANTINED = "new", "changed", "unchanged", "quarantined"


def import_products(context: Context) -> dict[str, Any]:
    """Bring the products table up to date with the config's source; returns the run's summary.

    A row replaces the stored product with its id; products that are not in the snapshot stay. Raises ConfigError for an
    unusable config and DataContractError for a source that fails its validation; in both cases nothing was written.
    """
    config, spark, catalog, dictionary = context.config, context.spark, context.catalog, context.dictionary
    stage, started, root = context.stages, datetime.now(UTC), config.path(".")
    source = _source(config)
    rules = load_rules(resources.locate(source.row_rules, root))
    merchant_values.check_attributes(source.mapping, dictionary)

    with stage("validate") as done:
        raw = feeds.read_source(spark, source, root)
        previous = _last_import(catalog)
        validation = _validate_snapshot(raw, config, previous["rows"])
        done.rows_in = _observed_row_count(validation)
    fingerprint = feeds.fingerprint(spark, source, root)
    config_hash = config.hash("source", "catalog")
    run_id = make_run_id(RunKind.IMPORT, fingerprint, config_hash, dictionary.hash(), previous["run_id"])

    with stage("read") as done:
        rows = catalog.stage(run_id, "rows", _with_keys(merchant_values.normalise_attributes(raw, dictionary)))
        without_images = rows.drop("images")
        stored = catalog.read("products")
        outcomes = _outcomes(flag_rows(without_images, rules), _with_content_state(stored), started)
        outcomes = catalog.stage(run_id, "outcomes", outcomes)
        counts = _counts(rows, outcomes)
        done.rows_in, done.rows_out = counts["rows"], counts["products"]
        done.quarantined = sum(counts["quarantined"].values())
        counts["merchant_values"] = merchant_values.count_merchant_values(
            _accepted(without_images, outcomes), dictionary
        )

    quarantined = quarantine_rows(_refused(without_images, outcomes), QuarantineStage.IMPORT, run_id, at=started)
    changes = counts[NEW] + counts[CHANGED]
    if not (changes or catalog.current_values_stale() or _new_quarantine(quarantined, catalog)):
        catalog.unstage(run_id)
        stage.say(f"nothing to do: all {counts['rows']:,} rows are in the catalog or in quarantine already")
        return _summary(counts, None, "nothing_to_do", stage)

    with stage("publish") as done:
        done.quarantined = catalog.append("quarantine", quarantined, run_id)
        if changes:
            done.rows_out = catalog.replace("products", _merged(rows, outcomes, stored), run_id)
        catalog.refresh_current_values(run_id)
    run = {
        "run_id": run_id,
        "config_hash": config_hash,
        "input_fingerprint": fingerprint,
        "config": json.dumps(config.without_secrets(), sort_keys=True),
        "validation": json.dumps(validation, default=str),
        "started_at": started,
    }
    catalog.append_rows("runs", [run | _run_facts(counts, stage)], run_id)
    catalog.unstage(run_id)
    return _summary(counts, run_id, SUCCEEDED, stage)


def _source(config: Config) -> SourceConfig:
    if config.source is None:
        raise ConfigError("the config has no [source] section; import_products needs one (format, path, mapping)")
    return config.source


def _last_import(catalog: LakeCatalog) -> dict[str, Any]:
    """Run id and rows of the last import that changed something; None and 0 before the first."""
    from pyspark.sql import functions as F

    imports = catalog.read("runs").where((F.col("kind") == RunKind.IMPORT.value) & (F.col("status") == SUCCEEDED))
    row = imports.orderBy(F.desc("finished_at")).select("run_id", F.col("counts")["rows"].alias("rows")).first()
    return {"run_id": None, "rows": 0} if row is None else row.asDict()


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


def _refused(rows: DataFrame, outcomes: DataFrame) -> DataFrame:
    """The rows that go to quarantine, with ``reason`` and ``detail``."""
    refused = outcomes.where(outcomes.outcome == QUARANTINED).select("row_key", "reason", "detail")
    return rows.join(refused, "row_key")


def _new_quarantine(quarantined: DataFrame, catalog: LakeCatalog) -> bool:
    """Whether a row is not in the quarantine of a finished run yet; rows that killed runs left there do not count."""
    facts = [name for name in contract.columns("quarantine") if name not in ("run_id", "quarantined_at")]
    finished = catalog.read("runs").select("run_id")
    known = catalog.read("quarantine").join(finished, "run_id", "left_semi")
    return not quarantined.select(*facts).exceptAll(known.select(*facts)).isEmpty()


def _merged(rows: DataFrame, outcomes: DataFrame, stored: DataFrame) -> DataFrame:
    """The products table after the import. Of ``rows``, only the pictures of new and changed products are shuffled."""
    from pyspark.sql import functions as F

    written = outcomes.where(F.col("outcome").isin(NEW, CHANGED)).select("row_key", "product_id", "updated_at")
    columns = contract.columns("products")
    replacing = rows.drop("product_id", "updated_at").join(written, "row_key")
    return stored.join(written, "product_id", "left_anti").select(columns).unionByName(replacing.select(columns))


def _run_facts(counts: dict[str, Any], stage: Stages) -> dict[str, Any]:
    numbers = {name: counts[name] for name in ("rows", "products", NEW, CHANGED, UNCHANGED)}
    numbers |= {f"{QUARANTINED}.{reason}": number for reason, number in counts[QUARANTINED].items()}
    return {
        "kind": RunKind.IMPORT.value,
        "status": SUCCEEDED,
        "counts": numbers,
        "attributes": json.dumps({"merchant_values": counts["merchant_values"]}),
        "seconds": stage.seconds,
        "finished_at": datetime.now(UTC),
    }


def _summary(counts: dict[str, Any], run_id: str | None, status: str, stage: Stages) -> dict[str, Any]:
    """The job's JSON line: products (input rows) = new + changed + unchanged + the quarantined."""
    return {
        "job": "import_products",
        "run_id": run_id,
        "status": status,
        "products": counts["rows"],
        **{name: counts[name] for name in (NEW, CHANGED, UNCHANGED, QUARANTINED, "merchant_values")},
        "seconds": stage.seconds,
    }
