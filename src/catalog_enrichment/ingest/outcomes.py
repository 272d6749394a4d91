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

WRITTEN = (NEW, CHANGED)
"""Outcomes of the rows that change the products table."""

ACCEPTED = (NEW, CHANGED, UNCHANGED)
"""Outcomes of the rows that are products."""


def with_keys(raw: DataFrame) -> DataFrame:
    """Adds ``row_key``, unique in the checkpoint it is written to, and ``state``."""
    from pyspark.sql import functions as F

    return with_content_state(raw).withColumn("row_key", F.monotonically_increasing_id())


def with_content_state(products: DataFrame) -> DataFrame:
    """Adds ``state``: a hash of every column a merchant can change except updated_at. Picture bytes are not read."""
    from pyspark.sql import functions as F

    pictures = F.transform("images", lambda i: F.struct(i["uri"].alias("uri"), i["version"].alias("version")))
    columns: list[Column] = [F.col(name) for name in ("content_hash", "shop_id", "category", "language", "opt_out")]
    columns += [F.array_sort(F.map_entries("merchant_attributes")).alias("values"), pictures.alias("pictures")]
    return products.withColumn("state", F.sha2(F.to_json(F.struct(*columns), {"ignoreNullFields": "false"}), 256))


def outcomes(flagged: DataFrame, stored: DataFrame, now: datetime) -> DataFrame:
    """One row per input row: row_key, product_id, outcome, reason, detail, and the product's updated_at.

    ``shop_id`` is that of the refused rows, for counting; null for the others, so that it takes no space.
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
        F.when(F.col("reason").isNotNull(), F.col("shop_id")).alias("shop_id"),
        outcome.alias("outcome"),
        F.coalesce("updated_at", default_time).alias("updated_at"),
    )


@dataclass(frozen=True, slots=True)
class ComparedSnapshot:
    """A snapshot's rows, and what becomes of them."""

    rows: DataFrame
    """With ``row_key``; checkpointed."""
    outcomes: DataFrame
    """Of :func:`outcomes`; checkpointed."""
    counts: dict[str, Any]
    """rows = new + changed + unchanged + quarantined (by reason); products: those that are not quarantined (I7)."""

    @classmethod
    def of(cls, rows: DataFrame, outcomes: DataFrame) -> ComparedSnapshot:
        """Raises RuntimeError if the rows and their outcomes do not add up."""
        numbers: Counter[tuple[str, str | None]] = Counter()
        for row in outcomes.groupBy("outcome", "reason").count().collect():
            numbers[row["outcome"], row["reason"]] += row["count"]
        counts: dict[str, Any] = {name: numbers[name, None] for name in ACCEPTED}
        counts["products"] = sum(counts.values())
        counts[QUARANTINED] = {reason: n for (_, reason), n in sorted(numbers.items(), key=str) if reason is not None}
        counts["rows"] = rows.count()
        if counts["rows"] != counts["products"] + sum(counts[QUARANTINED].values()):
            raise RuntimeError(f"input rows and their outcomes do not add up: {counts}")
        return cls(rows, outcomes, counts)

    @property
    def refused(self) -> int:
        """How many rows go to quarantine."""
        return int(self.counts["rows"] - self.counts["products"])

    @property
    def changes(self) -> int:
        """How many rows change the products table."""
        return int(self.counts[NEW] + self.counts[CHANGED])

    def accepted_rows(self) -> DataFrame:
        """The rows that are products."""
        return self._without(self.outcomes.outcome == QUARANTINED, self.refused)

    def written_rows(self) -> DataFrame:
        """The rows that change the products table."""
        written = self.outcomes.outcome.isin(*WRITTEN)
        if 2 * self.changes > self.counts["rows"]:
            return self._without(~written, self.counts["rows"] - self.changes)
        return self.rows.join(_few(self.outcomes.where(written).select("row_key"), self.changes), "row_key", "semi")

    def refused_rows(self) -> DataFrame:
        """The rows that go to quarantine, with ``reason`` and ``detail``."""
        reasons = self.outcomes.where(self.outcomes.outcome == QUARANTINED).select("row_key", "reason", "detail")
        return self.rows.drop("images").join(_few(reasons, self.refused), "row_key")

    def problems(self) -> DataFrame:
        """``shop_id`` and ``problem`` of the rows that go to quarantine, for by_shop."""
        refused = self.outcomes.where(self.outcomes.outcome == QUARANTINED)
        return refused.select("shop_id", self.outcomes.reason.alias("problem"))

    def written_products(self, run_id: str) -> DataFrame:
        """The rows that change the products table, as the import ``run_id`` writes them."""
        from pyspark.sql import functions as F

        written = self.outcomes.where(F.col("outcome").isin(*WRITTEN)).select("row_key", "updated_at")
        products = self.written_rows().drop("updated_at").join(_few(written, self.changes), "row_key")
        return products.withColumn("imported_by", F.lit(run_id)).select(contract.columns("products"))

    def changed_products(self) -> DataFrame:
        """The stored products that are replaced, by ``product_id``."""
        return self.outcomes.where(self.outcomes.outcome == CHANGED).select("product_id")

    def _without(self, condition: Column, number: int) -> DataFrame:
        """All rows but the ``number`` whose outcome fulfils ``condition``."""
        keys = self.outcomes.where(condition).select("row_key")
        return self.rows.join(_few(keys, number), "row_key", "left_anti")


def _few(keys: DataFrame, number: int) -> DataFrame:
    """The ``number`` ``keys``; broadcast, so that the joined rows are not shuffled, unless they are too many."""
    from pyspark.sql import functions as F

    return F.broadcast(keys) if number <= FEW_PRODUCTS else keys
