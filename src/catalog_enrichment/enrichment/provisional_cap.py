"""The cap on values under provisional certificates (PRECISION, certificate 11; `precision.provisional_cap`).

Merchant labels make a certificate provisional, and a uniform audit of the catalog confirms it. Until then at most
``limit`` values per attribute stand under such certificates. What a run would publish beyond that becomes an abstention
with the reason PROVISIONAL_CAP, and waits:

    room      the limit, less the values that stand. Counted is the newest model set of each product, also where a
              merchant's value, a human's value or an opt-out hides it from readers, because it may be seen again.
    claim     how many values a product needs that are not there yet. A set that replaces one of the same size claims
              nothing; what the run retracts makes room.
    order     the highest score first (of a set its lowest score), then the product id. The first product that does not
              fit ends the list, so that the same products fit when the same claims are compared again.

A rollback restores what readers saw, and so may exceed the cap; nothing is added until there is room again. The chunks
of a backfill are runs of their own: the highest scores come first within a chunk, not over all chunks.

Pure functions over Spark DataFrames.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING

from catalog_enrichment.catalog import ledger
from catalog_enrichment.precision.certificate import Certificate, CertificateStatus
from catalog_enrichment.records import Decision, Reason, Source

if TYPE_CHECKING:
    from pyspark.sql import Column, DataFrame

_KEY = ["product_id", "attribute"]


@dataclass(frozen=True, slots=True)
class ProvisionalCap:
    limit: int
    """Values per attribute that may stand under provisional certificates."""
    confirmed: frozenset[str]
    """Ids of the confirmed certificates: those of the run's model that were issued so, and those that an audit has
    confirmed since. Every other certificate counts as provisional."""

    @classmethod
    def of(
        cls, limit: int, certificates: Iterable[Certificate], audited: frozenset[str] = frozenset()
    ) -> ProvisionalCap:
        confirmed = [one for one in certificates if one.status is CertificateStatus.CONFIRMED]
        return cls(limit, audited | {one.certificate_id for one in confirmed})

    def provisional(self) -> Column:
        """Whether the row's certificate is provisional."""
        from pyspark.sql import functions as F

        return ~F.coalesce(F.col("certificate_id").isin(sorted(self.confirmed)), F.lit(False))


def may_exceed(decided: DataFrame, active: DataFrame, cap: ProvisionalCap) -> list[str]:
    """Attributes with values to publish that may be more than the room: those to :func:`withhold` from.

    ``decided``: rows of the contract `predictions`; ``active``: the assert events whose values stand. One
    aggregation, which counts replaced values twice.
    """
    from pyspark.sql import functions as F

    published = decided.where((F.col("decision") == Decision.PUBLISH.value) & cap.provisional())
    there = active.where((F.col("source") == Source.MODEL.value) & cap.provisional())
    rows = published.select("attribute", F.lit(1).alias("new")).unionByName(
        there.select("attribute", F.lit(0).alias("new"))
    )
    totals = rows.groupBy("attribute").agg(F.count("*").alias("values"), F.sum("new").alias("new"))
    over = totals.where((F.col("new") > 0) & (F.col("values") > cap.limit))
    return sorted(row["attribute"] for row in over.collect())


def withhold(decided: DataFrame, active: DataFrame, cap: ProvisionalCap, attributes: Collection[str]) -> DataFrame:
    """``decided`` with an abstention, reason PROVISIONAL_CAP, in place of each value of ``attributes`` without room.

    A product's whole set is published or waits. Certificate id, threshold and score stay.
    """
    from pyspark.sql import functions as F

    is_published = F.col("decision") == Decision.PUBLISH.value
    mine, there = (rows.where(F.col("attribute").isin(sorted(attributes))) for rows in (decided, active))
    retracted = ledger.contradicted(there, mine).select("event_id")
    held = _standing_sets(there.join(retracted, "event_id", "left_anti"), cap)
    sets = mine.where(is_published).groupBy(*_KEY)
    wanted = sets.agg(F.count_if(cap.provisional()).alias("wanted"), F.min("score").alias("score"))
    both = held.join(wanted, _KEY, "full").select(
        *_KEY, F.coalesce("held", F.lit(0)).alias("held"), F.coalesce("wanted", "held").alias("wanted"), "score"
    )
    room = _room(both.select("attribute", F.least("held", "wanted").alias("values")), cap)
    claims = _claims(both).where("claim > 0")
    waits = claims.join(fitting(claims, room, cap), _KEY, "left_anti").select(*_KEY, F.lit(True).alias("waits"))
    withheld = is_published & F.coalesce("waits", F.lit(False))
    instead = {"decision": Decision.ABSTAIN.value, "reason": Reason.PROVISIONAL_CAP.value}
    changed = {name: F.when(withheld, value).otherwise(F.col(name)) for name, value in instead.items()}
    return decided.join(waits, _KEY, "left").withColumns(changed).select(*decided.columns)


def waiting_claims(waiting: DataFrame, active: DataFrame, cap: ProvisionalCap) -> tuple[DataFrame, DataFrame]:
    """``waiting`` with the column ``claim``, and the room that there is now per attribute, for :func:`fitting`.

    ``waiting``: product_id, attribute, values (how many wait) and score, of decisions with the reason PROVISIONAL_CAP.
    """
    from pyspark.sql import functions as F

    held = _standing_sets(active, cap)
    room = _room(held.select("attribute", F.col("held").alias("values")), cap)
    both = waiting.join(held, _KEY, "left").withColumn("held", F.coalesce("held", F.lit(0)))
    return _claims(both.withColumn("wanted", F.col("values"))).drop("held", "wanted"), room


def fitting(claims: DataFrame, room: DataFrame, cap: ProvisionalCap) -> DataFrame:
    """product_id and attribute of the claims that the room takes: highest scores first, up to the first without room.

    ``claims``: product_id, attribute, claim, score; ``room``: attribute, room; attributes without a row have all of it.
    """
    from pyspark.sql import Window
    from pyspark.sql import functions as F

    left = F.coalesce("room", F.lit(cap.limit))
    best_first = Window.partitionBy("attribute").orderBy(F.desc("score"), "product_id")
    up_to_here = best_first.rowsBetween(Window.unboundedPreceding, Window.currentRow)
    some_room = claims.join(F.broadcast(room), "attribute", "left").where(left > 0)
    return some_room.withColumn("taken", F.sum("claim").over(up_to_here)).where(F.col("taken") <= left).select(*_KEY)


def _standing_sets(active: DataFrame, cap: ProvisionalCap) -> DataFrame:
    """Per product and attribute ``held``: the values of its newest model set, where the certificate is provisional."""
    from pyspark.sql import functions as F

    newest = ledger.newest_sets(active.where(F.col("source") == Source.MODEL.value))
    return newest.where(cap.provisional()).select(*_KEY, F.size("values").alias("held"))


def _room(active: DataFrame, cap: ProvisionalCap) -> DataFrame:
    """Attribute and ``room``, negative above the cap. ``active``: attribute, values."""
    from pyspark.sql import functions as F

    return active.groupBy("attribute").agg((F.lit(cap.limit) - F.sum("values")).alias("room"))


def _claims(sets: DataFrame) -> DataFrame:
    """``sets`` with ``claim``: how many values ``wanted`` has more than ``held``."""
    from pyspark.sql import functions as F

    return sets.withColumn("claim", F.greatest(F.col("wanted") - F.col("held"), F.lit(0)))
