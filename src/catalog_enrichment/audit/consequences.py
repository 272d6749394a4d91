"""The ledger events that follow from verdicts: values that are retracted, given by people, or brought back.

    no, other      the value is retracted; nothing that it had replaced is seen again, and it is not written again
    other          the right values become the human set of the product and attribute
    none           a person's word that the product has no value (ledger.NO_VALUE) becomes the human set; all values of
                   models are retracted
    yes            nothing
    changed mind   where no item says any more that a value is wrong, it is reinstated, and the human set that followed
                   from the first word is retracted

A human set is written when the verdicts come to another one than before, and only if no person has given a set since.
Verdicts on samples for labels give none.

Where the merchant gives a value people's values are not written (I1).
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any

from catalog_enrichment import contract
from catalog_enrichment.audit.items import Answer, Purpose
from catalog_enrichment.catalog import ledger, runs, verdicts
from catalog_enrichment.catalog.replaced_sets import with_replaced
from catalog_enrichment.records import Cardinality, Op, Reason, RunKind, Source

if TYPE_CHECKING:
    from pyspark.sql import DataFrame

    from catalog_enrichment.catalog.base import Catalog
    from catalog_enrichment.catalog.runs import RunRecord
    from catalog_enrichment.dictionary import Dictionary

Row = Mapping[str, Any]

Pair = tuple[str, str]
"""Product id, attribute."""


NOTHING = (ledger.NO_VALUE,)
"""The human set that says that there is no value."""

_GIVING = frozenset({Purpose.AUDIT.value, Purpose.GOLD.value, Purpose.PROPOSALS.value})
"""Purposes of samples whose verdicts give human sets. Answers to a sample for labels become labels only; what managers
say of suggestions comes as requests."""


@dataclass(frozen=True, slots=True)
class LedgerPlan:
    """What should be so after the verdicts."""

    refused: frozenset[verdicts.Key]
    """Values to retract."""
    allowed: frozenset[verdicts.Key]
    """Values that were refused before and are not any more."""
    human: dict[Pair, tuple[str, ...]]
    """The human sets that follow, :data:`NOTHING` that there is no value; empty where an earlier one does not follow
    any more."""
    unknown: int
    """Right values that the dictionary does not have; they are left out."""
    said_at: Mapping[Pair, datetime] = field(default_factory=dict)
    """Of ``human``: when the newest of the verdicts was said that the set follows from."""
    freed: Mapping[Pair, frozenset[str]] = field(default_factory=dict)
    """The pairs whose earlier set was :data:`NOTHING` and is not any more, each with the values that stay refused."""


def wanted(new: Sequence[Row], before: Mapping[str, Row], dictionary: Dictionary) -> LedgerPlan:
    """``new``: verdicts that count from now on; ``before``: item id -> the verdict that counted until now."""
    now = dict(before) | {row["item_id"]: row for row in new}
    unknown = 0
    human: dict[Pair, tuple[str, ...]] = {}
    said_at: dict[Pair, datetime] = {}
    freed: dict[Pair, frozenset[str]] = {}
    for pair in sorted({_pair(row) for row in new}):
        about = _about(pair, now)
        values, dropped = _human_set(about, dictionary, pair[1])
        unknown += dropped
        was, _ = _human_set(_about(pair, before), dictionary, pair[1])
        # the same set again would stand before what a person has said meanwhile
        if values != was:
            human[pair] = values
            said_at[pair] = max(row["settled_at"] for row in new if _pair(row) == pair)
            if was == NOTHING:
                freed[pair] = frozenset(value for _, _, value in verdicts.refused_values(about))
    refused, allowed = changed(new, before)
    return LedgerPlan(refused, allowed, human, unknown, said_at, freed)


def _about(pair: Pair, said: Mapping[str, Row]) -> list[Row]:
    """The verdicts about one product and attribute, oldest first."""
    return sorted((row for row in said.values() if _pair(row) == pair), key=lambda row: row["settled_at"])


def changed(new: Sequence[Row], before: Mapping[str, Row]) -> tuple[frozenset[verdicts.Key], frozenset[verdicts.Key]]:
    """The values of ``new`` verdicts that are refused now, and those that are not any more; arguments as of
    :func:`wanted`."""
    now = dict(before) | {row["item_id"]: row for row in new}
    refused, was_refused = verdicts.refused_values(now.values()), verdicts.refused_values(before.values())
    return frozenset(refused & {_key(row) for row in new}), frozenset(was_refused - refused)


def _human_set(rows: Iterable[Row], dictionary: Dictionary, attribute: str) -> tuple[tuple[str, ...], int]:
    """The set that people gave in ``rows``, about one product and attribute, oldest first, and how many right values
    the dictionary lacks. The set is :data:`NOTHING` where their newest word is that there is no value."""
    if attribute not in dictionary:
        return (), 0
    known, many = set(dictionary[attribute].values), dictionary[attribute].cardinality is Cardinality.MANY
    rows = list(rows)
    values: list[str] = []
    unknown = 0
    for row in rows:
        if not _gives(row):
            continue
        if row["answer"] == Answer.NONE.value:
            values = [*NOTHING]
            continue
        right = [value for value in row["right_values"] if value in known]
        unknown += len(row["right_values"]) - len(right)
        values = [value for value in values if value not in NOTHING]
        values = [*values, *right] if many else right[:1] or values
    if many and values and values != [*NOTHING]:
        # the set is a whole one: what people said is right stays in it, what they refused does not
        confirmed = [row["value"] for row in rows if row["answer"] == Answer.YES.value and row["value"] in known]
        refused = {value for _, _, value in verdicts.refused_values(rows)}
        values = [value for value in [*values, *confirmed] if value not in refused]
    return tuple(sorted(set(values))), unknown


def _gives(row: Row) -> bool:
    """Whether the verdict gives a human set."""
    gives = row["answer"] == Answer.NONE.value or (row["answer"] == Answer.OTHER.value and bool(row["right_values"]))
    return gives and row["purpose"] in _GIVING


def publish(catalog: Catalog, record: RunRecord, plan_: LedgerPlan) -> int:
    """Commit the events once, then derive what readers see. Returns how many events the run wrote."""
    events = catalog.read("attribute_values")
    if catalog.committed("attribute_values", record.run_id):
        planned = events.where(events["run_id"] == record.run_id)
    else:
        catalog.drop_checkpoints(record.run_id)  # a plan that was never carried out may be out of date
        stamp = ledger.RunStamp(record.run_id, None, None, ledger.next_asserted_at(events, record.started_at))
        own = {
            row["run_id"]
            for row in runs.rows(catalog, ["run_id", "kind", "finished_at"])
            if row["kind"] == RunKind.AUDIT
        }
        planned = catalog.checkpoint(record.run_id, "events", plan(catalog, plan_, stamp, own))
    written = catalog.append("attribute_values", planned, record.run_id)
    catalog.refresh_current_values(record.run_id, planned)
    catalog.drop_checkpoints(record.run_id)
    return written


def plan(catalog: Catalog, plan_: LedgerPlan, stamp: ledger.RunStamp, own_runs: Collection[str]) -> DataFrame:
    """The events (contract `attribute_values`). ``own_runs``: earlier runs of audit_ingest, whose human sets may be
    taken back."""
    from pyspark.sql import functions as F

    ids = sorted({key[0] for key in (*plan_.refused, *plan_.allowed, *plan_.human)})
    spark = catalog.read("products").sparkSession
    of = F.broadcast(spark.createDataFrame([(one,) for one in ids], "product_id string"))
    events = catalog.read("attribute_values").join(of, "product_id", "left_semi")
    products = catalog.read("products").join(of, "product_id", "left_semi")
    active = ledger.active(events)
    human, dropped = _human_events(products, active, plan_, stamp, own_runs)
    by_models = active.where(F.col("source") == Source.MODEL.value)
    emptied = [_pair(row) for row in human if row["value"] == ledger.NO_VALUE]
    gone = _of_keys(by_models, plan_.refused).unionByName(_of_pairs(by_models, emptied)).dropDuplicates(["event_id"])
    gone = gone.withColumn("contradiction", F.lit(Reason.REFUSED_BY_PERSON.value))
    retracted = ledger.retract(with_replaced(active, gone), stamp)
    planned = retracted.unionByName(ledger.retract(dropped, stamp)).unionByName(_brought_back(events, plan_, stamp))
    rows = [tuple(row.get(name) for name in contract.columns("attribute_values")) for row in human]
    return planned.unionByName(spark.createDataFrame(rows, contract.spark_schema("attribute_values")))


def _brought_back(events: DataFrame, plan_: LedgerPlan, stamp: ledger.RunStamp) -> DataFrame:
    """Reinstate events for what an earlier verdict retracted and nobody says is wrong any more."""
    from pyspark.sql import functions as F

    by_verdict = (F.col("op") == Op.RETRACT.value) & (F.col("reason") == Reason.REFUSED_BY_PERSON.value)
    retracts = events.where(by_verdict & F.col("undoes").isNull())
    still_refused = [(*pair, value) for pair, values in plan_.freed.items() for value in values]
    of_freed = _of_keys(_of_pairs(retracts, plan_.freed), still_refused, "left_anti")
    again = _of_keys(retracts, plan_.allowed).unionByName(of_freed)
    ids = again.select(F.col("refers_to").alias("event_id")).distinct()
    asserts = events.where(F.col("op") == Op.ASSERT.value).join(ids, "event_id", "left_semi")
    fallen = asserts.join(ledger.active(events).select("event_id"), "event_id", "left_anti")
    return ledger.reinstate(fallen.withColumn("contradiction", F.lit(Reason.REFUSED_BY_PERSON.value)), stamp)


def _human_events(
    products: DataFrame, active: DataFrame, plan_: LedgerPlan, stamp: ledger.RunStamp, own_runs: Collection[str]
) -> tuple[list[dict[str, Any]], DataFrame]:
    """Asserts of the human sets that do not stand yet, as rows, and the active events of sets to take back."""
    from pyspark.sql import functions as F

    pairs = sorted(pair for pair, values in plan_.human.items() if not values)
    spark = products.sparkSession
    of = spark.createDataFrame(pairs, "product_id string, attribute string")
    people = active.where(F.col("source") == Source.HUMAN.value)
    own = people.where(F.col("run_id").isin(sorted(own_runs))).join(F.broadcast(of), ["product_id", "attribute"])
    dropped = own.withColumn("contradiction", F.lit(Reason.SUPERSEDED.value))
    if not any(plan_.human.values()):
        return [], dropped
    seen = ledger.newest_sets(people).select("product_id", "attribute", "values").collect()
    said = {(row["product_id"], row["attribute"]): tuple(row["values"]) for row in seen}
    others = _newest_of_others(people.where(~F.col("run_id").isin(sorted(own_runs))))
    rows = products.select("product_id", "content_hash", "merchant_attributes").collect()
    found = {row["product_id"]: row for row in rows}
    new = []
    for (product_id, attribute), values in sorted(plan_.human.items()):
        product = found.get(product_id)
        pair = (product_id, attribute)
        if not values or product is None or said.get(pair) == values:
            continue
        if pair in others and pair in plan_.said_at and others[pair] > plan_.said_at[pair]:
            continue
        if (product["merchant_attributes"] or {}).get(attribute):
            continue
        given = [value for value in values if value != ledger.NO_VALUE]
        new += ledger.human_assertions(product.asDict(), attribute, given, stamp)
    return new, dropped


def _newest_of_others(people: DataFrame) -> dict[Pair, datetime]:
    """When people gave the newest set that stands, of the events ``people``: not by a verdict."""
    from pyspark.sql import functions as F

    times = people.groupBy("product_id", "attribute").agg(F.unix_micros(F.max("asserted_at")).alias("micros"))
    start = datetime(1970, 1, 1, tzinfo=UTC)
    return {
        (row["product_id"], row["attribute"]): start + timedelta(microseconds=row["micros"]) for row in times.collect()
    }


def _of_keys(rows: DataFrame, keys: Collection[tuple[str, ...]], how: str = "left_semi") -> DataFrame:
    """The ``rows`` about these products, attributes and values; with the join "left_anti" all others."""
    return _joined(rows, keys, ("product_id", "attribute", "value"), how)


def _of_pairs(rows: DataFrame, pairs: Collection[tuple[str, ...]]) -> DataFrame:
    """The ``rows`` about these products and attributes."""
    return _joined(rows, pairs, ("product_id", "attribute"), "left_semi")


def _joined(rows: DataFrame, keys: Collection[tuple[str, ...]], names: Sequence[str], how: str) -> DataFrame:
    from pyspark.sql import functions as F

    frame = rows.sparkSession.createDataFrame(sorted(keys), ", ".join(f"{name} string" for name in names))
    return rows.join(F.broadcast(frame), list(names), how)


def _pair(row: Row) -> Pair:
    return (row["product_id"], row["attribute"])


def _key(row: Row) -> verdicts.Key:
    return (row["product_id"], row["attribute"], row["value"])
