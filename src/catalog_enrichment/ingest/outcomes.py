"""The outcome of every row of a snapshot: quarantined, new, changed or unchanged (I7). Pure Spark functions."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from datetime import datetime
from typing import TYPE_CHECKING, Any

from catalog_enrichment import contract
from catalog_enrichment.spark.frames import FEW_PRODUCTS

if TYPE_CHECKING:
    from pyspark.sql import Column, DataFrame

NEW, CHANGED, UNCHANGED, QUARANTINED = "new", "changed", "unchanged", "quarantined"

MERGED = "merged_rows"
"""Rows of the source that were merged into the row of a product."""
WRITTEN = (NEW, CHANGED)
"""The outcomes of rows that change the products table."""

ACCEPTED = (NEW, CHANGED, UNCHANGED)
"""The outcomes of rows that are products."""


def with_keys(raw: DataFrame) -> DataFrame:
    """Add ``row_key``, unique in the checkpoint that it is written to, and ``state``."""
    from pyspark.sql import functions as F

    return with_content_state(raw).withColumn("row_key", F.monotonically_increasing_id())


def with_content_state(products: DataFrame) -> DataFrame:
    """Add ``state``: a hash of every column that a merchant can change except updated_at."""
    from pyspark.sql import functions as F

    pictures = F.transform("images", lambda i: F.struct(i["uri"].alias("uri"), i["version"].alias("version")))
    columns: list[Column] = [F.col(name) for name in ("content_hash", "shop_id", "category", "language", "opt_out")]
    columns += [F.array_sort(F.map_entries("merchant_attributes")).alias("values"), pictures.alias("pictures")]
    return products.withColumn("state", F.sha2(F.to_json(F.struct(*columns), {"ignoreNullFields": "false"}), 256))


def outcomes(flagged: DataFrame, stored: DataFrame, now: datetime) -> DataFrame:
    """Return a row per input row: row_key, product_id, outcome, reason, detail, shop_id, updated_at.

    Only refused rows have a ``shop_id``, for counting. ``updated_at`` is the row's own time; without a time, that of
    the stored product if it is unchanged, else ``now``. ``flagged``: with the columns that row rules add.
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
        F.when(F.col("reason").isNotNull(), F.col("shop_id")).alias("shop_id"),
        outcome.alias("outcome"),
        F.coalesce("updated_at", default_time).alias("updated_at"),
    )


@dataclass(frozen=True, slots=True)
class ComparedSnapshot:
    """A snapshot's rows and their outcomes."""

    rows: DataFrame
    """The rows with ``row_key``, checkpointed."""
    outcomes: DataFrame
    """The result of :func:`outcomes`, checkpointed."""
    counts: dict[str, Any]
    """rows = products + quarantined (by reason); products = new + changed + unchanged (I7). Where rows were merged, the
    source had rows + merged_rows."""

    @classmethod
    def of(cls, rows: DataFrame, outcomes: DataFrame) -> ComparedSnapshot:
        """Count the outcomes. Raises RuntimeError if they and the rows do not add up."""
        numbers: Counter[tuple[str, str | None]] = Counter()
        for row in outcomes.groupBy("outcome", "reason").count().collect():
            numbers[row["outcome"], row["reason"]] += row["count"]
        counts: dict[str, Any] = {name: numbers[name, None] for name in ACCEPTED}
        counts["products"] = sum(counts.values())
        counts[QUARANTINED] = {reason: n for (_, reason), n in sorted(numbers.items(), key=str) if reason is not None}
        made_of = rows.groupBy().sum("source_rows").first()
        counts["rows"] = rows.count()
        if merged := (made_of[0] or 0) - counts["rows"] if made_of else 0:
            counts[MERGED] = merged
        if counts["rows"] != counts["products"] + sum(counts[QUARANTINED].values()):
            raise RuntimeError(f"input rows and their outcomes do not add up: {counts}")
        return cls(rows, outcomes, counts)

    @property
    def refused(self) -> int:
        """Return how many rows go to quarantine."""
        return int(self.counts["rows"] - self.counts["products"])

    @property
    def changes(self) -> int:
        """Return how many rows change the products table."""
        return int(self.counts[NEW] + self.counts[CHANGED])

    def accepted_rows(self) -> DataFrame:
        """Return the rows that are products."""
        return self._without(self.outcomes.outcome == QUARANTINED, self.refused)

    def written_rows(self) -> DataFrame:
        """Return the rows that change the products table."""
        written = self.outcomes.outcome.isin(*WRITTEN)
        if 2 * self.changes > self.counts["rows"]:
            return self._without(~written, self.counts["rows"] - self.changes)
        return self.rows.join(_few(self.outcomes.where(written).select("row_key"), self.changes), "row_key", "semi")

    def refused_rows(self) -> DataFrame:
        """Return the rows that go to quarantine, with ``reason`` and ``detail``."""
        reasons = self.outcomes.where(self.outcomes.outcome == QUARANTINED).select("row_key", "reason", "detail")
        return self.rows.drop("images").join(_few(reasons, self.refused), "row_key")

    def problems(self) -> DataFrame:
        """Return ``shop_id`` and ``problem`` of the rows that go to quarantine, for by_shop."""
        refused = self.outcomes.where(self.outcomes.outcome == QUARANTINED)
        return refused.select("shop_id", self.outcomes.reason.alias("problem"))

    def written_products(self, run_id: str) -> DataFrame:
        """Return the rows that change the products table, as the import ``run_id`` writes them."""
        from pyspark.sql import functions as F

        written = self.outcomes.where(F.col("outcome").isin(*WRITTEN)).select("row_key", "updated_at")
        products = self.written_rows().drop("updated_at").join(_few(written, self.changes), "row_key")
        return products.withColumn("imported_by", F.lit(run_id)).select(contract.columns("products"))

    def changed_products(self) -> DataFrame:
        """Return the ``product_id`` of the stored products that are replaced."""
        return self.outcomes.where(self.outcomes.outcome == CHANGED).select("product_id")

    def _without(self, condition: Column, number: int) -> DataFrame:
        """Return all rows but the ``number`` rows whose outcome fulfils ``condition``."""
        keys = self.outcomes.where(condition).select("row_key")
        return self.rows.join(_few(keys, number), "row_key", "left_anti")


def _few(keys: DataFrame, number: int) -> DataFrame:
    """Return the ``number`` ``keys``, broadcast unless they are too many, so that the joined rows are not shuffled."""
    from pyspark.sql import functions as F

    return F.broadcast(keys) if number <= FEW_PRODUCTS else keys
