"""The outcome of every row of a snapshot (I7), and of the stored products that it does not have. Pure Spark functions.

A row is quarantined, a product that is new, changed or unchanged, or the deletion of a product. A stored product that
no row of a complete snapshot has is missed, and gone where enough snapshots in a row did not have it. A quarantined row
counts as present.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from datetime import datetime
from functools import cached_property
from typing import TYPE_CHECKING, Any

from catalog_enrichment import contract
from catalog_enrichment.records import PRODUCTS_REMOVED
from catalog_enrichment.spark.frames import FEW_PRODUCTS

if TYPE_CHECKING:
    import pyarrow as pa
    from pyspark.sql import Column, DataFrame

NEW, CHANGED, UNCHANGED, QUARANTINED = "new", "changed", "unchanged", "quarantined"
DELETED, GONE = PRODUCTS_REMOVED
UNKNOWN_DELETED = "unknown_deleted"
"""Beside DELETED the outcome of rows that delete a product: it is not stored."""
MISSED = "missed"
"""Beside GONE the outcome of stored products without a row."""
RETURNED = "returned"
"""Products that earlier snapshots did not have, and this one has."""
DELETIONS = "deletions"
"""Rows that delete a product, stored or not."""

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


@dataclass(frozen=True, slots=True)
class Absence:
    """The rule for stored products that a snapshot does not have."""

    counted: bool
    """False if the snapshot says nothing about them: it is not complete, or was imported before."""
    most: int
    """The number of snapshots in a row without a product after which it is gone."""


def outcomes(flagged: DataFrame, stored: DataFrame, now: datetime, absence: Absence) -> DataFrame:
    """Return a row per input row: row_key, product_id, outcome, reason, detail, shop_id, updated_at,
    first_imported_at, missed_imports.

    Only refused rows have a ``shop_id``, for counting. ``updated_at`` is the row's own time; without a time, that of
    the stored product if it is unchanged, else ``now``. ``first_imported_at`` is ``now`` for a new product; a product
    that was removed and comes back is new. ``missed_imports`` is the new number of the stored product,
    null if it stays. Stored products without a row have a row here without a ``row_key``, if ``absence`` counts them.
    ``flagged``: with the columns that row rules add.
    """
    from pyspark.sql import functions as F

    missed = F.coalesce("missed_imports", F.lit(0)).alias("stored_missed")
    stored_facts = (F.col("state").alias("stored_state"), F.col("updated_at").alias("stored_at"), missed)
    known = stored.select("product_id", *stored_facts, "first_imported_at")
    of_rows = _of_rows(flagged.drop("first_imported_at", "missed_imports").join(known, "product_id", "left"), now)
    if not absence.counted:
        return of_rows
    absent = known.join(flagged.select("product_id"), "product_id", "left_anti")
    number = F.col("stored_missed") + 1
    lacking = absent.select(
        "product_id",
        F.when(number >= absence.most, GONE).otherwise(MISSED).alias("outcome"),
        number.alias("missed_imports"),
    )
    return of_rows.unionByName(lacking, allowMissingColumns=True)


def _of_rows(rows: DataFrame, now: datetime) -> DataFrame:
    """Return the outcomes of ``rows``, which have the facts of the stored product."""
    from pyspark.sql import functions as F

    same = (F.col("state") == F.col("stored_state")) & (
        F.col("updated_at").isNull() | F.col("updated_at").eqNullSafe(F.col("stored_at"))
    )
    outcome = (
        F.when(F.col("reason").isNotNull(), QUARANTINED)
        .when(F.col("deleted"), F.when(F.col("stored_state").isNull(), UNKNOWN_DELETED).otherwise(DELETED))
        .when(F.col("stored_state").isNull(), NEW)
        .when(same, UNCHANGED)
        .otherwise(CHANGED)
    )
    default_time = F.when(outcome == UNCHANGED, F.col("stored_at")).otherwise(F.lit(now))
    return rows.select(
        "row_key",
        "product_id",
        "reason",
        "detail",
        F.when(F.col("reason").isNotNull(), F.col("shop_id")).alias("shop_id"),
        outcome.alias("outcome"),
        F.coalesce("updated_at", default_time).alias("updated_at"),
        F.when(outcome == NEW, F.lit(now)).otherwise(F.col("first_imported_at")).alias("first_imported_at"),
        F.when((F.col("stored_missed") > 0) & (outcome != DELETED), F.lit(0)).alias("missed_imports"),
    )


@dataclass(frozen=True, slots=True)
class Products:
    """Some of the products that a snapshot is about."""

    rows: DataFrame
    """With their ``product_id``."""
    ids: pa.Array | None
    """Their ids; None: too many, or not looked up."""


@dataclass(frozen=True)
class ComparedSnapshot:
    """A snapshot's rows and their outcomes."""

    rows: DataFrame
    """The rows with ``row_key``, checkpointed."""
    outcomes: DataFrame
    """The result of :func:`outcomes`, checkpointed."""
    counts: dict[str, Any]
    """rows = products + quarantined (by reason) + deletions; products = new + changed + unchanged (I7). Where rows were
    merged, the source had rows + merged_rows. deletions = deleted + rows about products that are not stored. Also
    missed, gone and returned products; a count of what there is not may be left out."""

    @classmethod
    def of(cls, rows: DataFrame, outcomes: DataFrame) -> ComparedSnapshot:
        """Count the outcomes. Raises RuntimeError if they and the rows do not add up."""
        from pyspark.sql import functions as F

        numbers: Counter[tuple[str, str | None]] = Counter()
        seen_again = 0
        is_back = F.count_if(F.col("missed_imports") == 0).alias("back")
        for row in outcomes.groupBy("outcome", "reason").agg(F.count("*").alias("count"), is_back).collect():
            numbers[row["outcome"], row["reason"]] += row["count"]
            seen_again += row["back"]
        counts: dict[str, Any] = {name: numbers[name, None] for name in ACCEPTED}
        counts["products"] = sum(counts.values())
        counts[QUARANTINED] = {reason: n for (_, reason), n in sorted(numbers.items(), key=str) if reason is not None}
        counts |= {name: numbers[name, None] for name in (DELETED, MISSED, GONE)}
        counts[DELETIONS] = numbers[DELETED, None] + numbers[UNKNOWN_DELETED, None]
        counts[RETURNED] = _seen_again(outcomes).count() if seen_again else 0
        [(counts["rows"], made_of)] = rows.agg(F.count("*"), F.sum("source_rows")).collect()
        if merged := (made_of or 0) - counts["rows"]:
            counts[MERGED] = merged
        if counts["rows"] != counts["products"] + sum(counts[QUARANTINED].values()) + counts[DELETIONS]:
            raise RuntimeError(f"input rows and their outcomes do not add up: {counts}")
        return cls(rows, outcomes, counts)

    @property
    def refused(self) -> int:
        """Return how many rows go to quarantine."""
        return int(sum(self.counts[QUARANTINED].values()))

    @property
    def changes(self) -> int:
        """Return how many rows change the products table."""
        return int(self.counts[NEW] + self.counts[CHANGED])

    @property
    def removed(self) -> int:
        """Return how many stored products are removed."""
        return int(self.counts[GONE] + self.counts[DELETED])

    @property
    def marked(self) -> int:
        """Return at most how many stored products only get another number of missed imports."""
        return int(self.counts[MISSED] + self.counts[RETURNED])

    @property
    def alters(self) -> bool:
        """Return whether the products table is another one after the import."""
        return bool(self.changes or self.removed or self.marked)

    def accepted_rows(self) -> DataFrame:
        """Return the rows that are products."""
        return self._without(~self.outcomes.outcome.isin(*ACCEPTED), self.counts["rows"] - self.counts["products"])

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

    def products_to_write(self, stored: DataFrame, run_id: str) -> DataFrame:
        """Return the products that the import ``run_id`` writes: new and changed ones, and ``stored`` products that
        only get another number of missed imports."""
        written = self._written_products(run_id)
        if not self.marked:
            return written
        marks = _few(self._marks(), self.marked)
        return written.unionByName(stored.drop("missed_imports").join(marks, "product_id"))

    def _written_products(self, run_id: str) -> DataFrame:
        from pyspark.sql import functions as F

        times = ("updated_at", "first_imported_at")
        written = self.outcomes.where(F.col("outcome").isin(*WRITTEN)).select("row_key", *times)
        products = self.written_rows().drop(*times).join(_few(written, self.changes), "row_key")
        return products.withColumn("imported_by", F.lit(run_id)).select(contract.columns("products"))

    def written(self) -> Products:
        """Return the products that are new or changed."""
        return self._products(*WRITTEN)

    def replaced(self) -> Products:
        """Return the stored products whose rows are replaced or removed."""
        products = self._products(CHANGED, DELETED, GONE)
        if self.marked:
            return Products(products.rows.union(self._marks().select("product_id")), None)
        return products

    def others(self) -> Products:
        """Return the products that are new or removed: they have no value of the past."""
        return self._products(NEW, DELETED, GONE)

    def of_readers(self) -> Products:
        """Return the products of which readers may see something else."""
        return self._products(*WRITTEN, DELETED, GONE)

    def gone_ids(self, most: int) -> list[str]:
        """Return ids of gone products, in order, at most ``most``."""
        return [row[0] for row in self._ids(GONE).orderBy("product_id").limit(most).collect()]

    def _marks(self) -> DataFrame:
        """Return product_id and missed_imports of the stored products that only get another number."""
        marks = _seen_again(self.outcomes).unionByName(
            self.outcomes.where(self.outcomes.outcome == MISSED).select("product_id", "missed_imports")
        )
        # a product that is written or removed may have a quarantined row as well
        return marks.join(self._ids(CHANGED, DELETED), "product_id", "left_anti")

    def _products(self, *outcomes: str) -> Products:
        import pyarrow as pa
        import pyarrow.compute as pc

        ids = None
        if set(outcomes) <= set(self._few):
            of_these = pc.is_in(self._looked_up["outcome"], value_set=pa.array(outcomes))
            ids = pc.unique(self._looked_up.filter(of_these)["product_id"])
        return Products(self._ids(*outcomes), ids)

    @property
    def _few(self) -> list[str]:
        """Return the outcomes that alter the catalog and have few products."""
        return [name for name in (*WRITTEN, DELETED, GONE) if self.counts.get(name, 0) <= FEW_PRODUCTS]

    @cached_property
    def _looked_up(self) -> pa.Table:
        """Return outcome and product_id of :attr:`_few`."""
        outcomes = self.outcomes
        return outcomes.where(outcomes.outcome.isin(*self._few)).select("outcome", "product_id").toArrow()

    def _ids(self, *outcomes: str) -> DataFrame:
        return self.outcomes.where(self.outcomes.outcome.isin(*outcomes)).select("product_id")

    def _without(self, condition: Column, number: int) -> DataFrame:
        """Return all rows but the ``number`` rows whose outcome fulfils ``condition``."""
        keys = self.outcomes.where(condition & self.outcomes.row_key.isNotNull()).select("row_key")
        return self.rows.join(_few(keys, number), "row_key", "left_anti")


def _seen_again(outcomes: DataFrame) -> DataFrame:
    """Return product_id and missed_imports (0) of the products that earlier snapshots did not have."""
    return outcomes.where(outcomes.missed_imports == 0).select("product_id", "missed_imports").distinct()


def _few(keys: DataFrame, number: int) -> DataFrame:
    """Return the ``number`` ``keys``, broadcast unless they are too many, so that the joined rows are not shuffled."""
    from pyspark.sql import functions as F

    return F.broadcast(keys) if number <= FEW_PRODUCTS else keys
