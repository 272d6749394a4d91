"""The ledger events that follow from verdicts: values that are retracted, reinstated, or given by people.

    no, other      the value is retracted; nothing that it had replaced is seen again, and it is not written again
    other          the right values become the human set of the product and attribute
    none           the human set says that there is no value (ledger.NO_VALUE); all values of models are retracted
    yes            nothing
    changed mind   where no item says any more that a value is wrong, it is reinstated, and the human set that followed
                   from the earlier verdict is retracted

A human set is written when the verdicts give another set than before, and only if no person has given a set since.
Where the merchant gives a value people's values are not written (I1).
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any, NamedTuple

from catalog_enrichment import contract
from catalog_enrichment.audit.review_records import Answer, Purpose
from catalog_enrichment.catalog import ledger, review_tables, runs
from catalog_enrichment.catalog.review_tables import PAIR, Pair, pair_of
from catalog_enrichment.operations.rollback import planned_once
from catalog_enrichment.reasons import Reason
from catalog_enrichment.records import Cardinality, Op, RunKind, Source
from catalog_enrichment.spark import value_columns

if TYPE_CHECKING:
    from pyspark.sql import DataFrame

    from catalog_enrichment.catalog.lake import Catalog
    from catalog_enrichment.catalog.runs import RunRecord
    from catalog_enrichment.dictionary import Dictionary

Row = Mapping[str, Any]

NOTHING = (ledger.NO_VALUE,)
"""The human set that says that there is no value."""


class Effect(NamedTuple):
    """A kind of ledger event."""

    attribute: str
    certificate_id: str | None
    op: str
    source: str


_GIVING = frozenset({Purpose.AUDIT.value, Purpose.GOLD.value, Purpose.PROPOSALS.value})
"""Purposes of samples whose verdicts give human sets. Answers to a sample for labels become labels only; the answers of
managers to suggestions come as requests."""


@dataclass(frozen=True, slots=True)
class LedgerPlan:
    """The changes that verdicts ask for."""

    refused: frozenset[review_tables.Key]
    """Values to retract."""
    allowed: frozenset[review_tables.Key]
    """Values that were refused before and are not any more."""
    human: dict[Pair, tuple[str, ...]] = field(default_factory=dict)
    """The human sets that follow; :data:`NOTHING` if there is no value, empty if an earlier set follows no more."""
    unknown: int = 0
    """Right values that the dictionary does not have; they are left out."""
    given_at: Mapping[Pair, datetime] = field(default_factory=dict)
    """When the newest verdict was given that a set of ``human`` follows from."""
    freed: Mapping[Pair, frozenset[str]] = field(default_factory=dict)
    """The pairs whose earlier set was :data:`NOTHING` and is not any more, each with the values that stay refused."""


def ledger_plan(new: Sequence[Row], before: Mapping[str, Row], dictionary: Dictionary) -> LedgerPlan:
    """Return what follows from ``new`` verdicts. ``before``: item id -> the verdict that counted until now."""
    now = dict(before) | {row["item_id"]: row for row in new}
    unknown = 0
    human: dict[Pair, tuple[str, ...]] = {}
    given_at: dict[Pair, datetime] = {}
    freed: dict[Pair, frozenset[str]] = {}
    for pair in sorted({pair_of(row) for row in new}):
        about = _about(pair, now)
        values, dropped = _human_set(about, dictionary, pair[1])
        unknown += dropped
        was, _ = _human_set(_about(pair, before), dictionary, pair[1])
        # the same set again would replace what a person has said meanwhile
        if not dictionary.is_same_set(pair[1], values, was):
            human[pair] = values
            given_at[pair] = max(row["settled_at"] for row in new if pair_of(row) == pair)
            if was == NOTHING:
                freed[pair] = frozenset(value for _, _, value in review_tables.refused_values(about, dictionary))
    refused, allowed = refused_and_allowed(new, before, dictionary)
    return LedgerPlan(refused, allowed, human, unknown, given_at, freed)


def refused_and_allowed(
    new: Sequence[Row], before: Mapping[str, Row], dictionary: Dictionary
) -> tuple[frozenset[review_tables.Key], frozenset[review_tables.Key]]:
    """Return the values of ``new`` verdicts that are refused now, and the values that are not refused any more.

    ``before``: item id -> the verdict that counted until now.
    """
    now = dict(before) | {row["item_id"]: row for row in new}
    refused, was_refused = (review_tables.refused_values(rows.values(), dictionary) for rows in (now, before))
    asked = {(*pair_of(row), row["value"]) for row in new}
    lifted = {key for key in was_refused - refused if not review_tables.is_refused(key, refused, dictionary)}
    return frozenset(refused & asked), frozenset(lifted)


def _about(pair: Pair, verdict_of: Mapping[str, Row]) -> list[Row]:
    """Return the verdicts about a product and attribute, oldest first."""
    return sorted((row for row in verdict_of.values() if pair_of(row) == pair), key=lambda row: row["settled_at"])


def _human_set(rows: Sequence[Row], dictionary: Dictionary, attribute: str) -> tuple[tuple[str, ...], int]:
    """Return the set that people gave, and how many right values the dictionary lacks.

    ``rows``: the verdicts about a product and attribute, oldest first. The set is :data:`NOTHING` where the newest of
    them says that there is no value.
    """
    if attribute not in dictionary:
        return (), 0
    renewed, many = dictionary[attribute].renewed, dictionary[attribute].cardinality is Cardinality.MANY
    values: list[str] = []
    unknown = 0
    for row in rows:
        if row["purpose"] not in _GIVING:
            continue
        if row["answer"] == Answer.NONE.value:
            values = [*NOTHING]
        elif row["answer"] == Answer.OTHER.value:
            right = [value for given in row["right_values"] if (value := renewed(given)) is not None]
            unknown += len(row["right_values"]) - len(right)
            values = [value for value in values if value not in NOTHING]
            values = [*values, *right] if many else right[:1] or values
    if many and values and values != [*NOTHING]:
        # the human set replaces the model's as a whole: confirmed values stay in it, refused values do not
        confirmed = [row["value"] for row in rows if row["answer"] == Answer.YES.value and renewed(row["value"])]
        refused = {value for _, _, value in review_tables.refused_values(rows, dictionary)}
        values = [value for value in [*values, *confirmed] if value not in refused]
    return tuple(sorted(set(values))), unknown


def planned(catalog: Catalog, record: RunRecord, plan: LedgerPlan) -> DataFrame:
    """Return the events of ``plan``, computed once for the run (:func:`planned_once`)."""

    def events_of_plan(events: DataFrame, stamp: ledger.RunStamp) -> DataFrame:
        known = runs.rows(catalog, ["run_id", "kind", "finished_at"])
        own_runs = {row["run_id"] for row in known if row["kind"] == RunKind.AUDIT}
        return planned_events(catalog.read("products"), events, plan, stamp, own_runs, catalog.dictionary)

    return planned_once(catalog, record, events_of_plan)


def count_events(planned: DataFrame) -> Counter[Effect]:
    """Return how many events there are of each kind."""
    names = ("attribute", "certificate_id", "op", "source")
    return Counter({Effect(*row[:4]): row[4] for row in planned.groupBy(*names).count().collect()})


def publish(catalog: Catalog, record: RunRecord, planned: DataFrame) -> int:
    """Commit the ``planned`` events once, then derive what readers see. Return how many events the run wrote."""
    written = catalog.append("attribute_values", planned, record.run_id)
    catalog.refresh_current_values(record.run_id, planned)
    catalog.checkpoints.drop(record.run_id)
    return written


def planned_events(
    products: DataFrame,
    events: DataFrame,
    plan: LedgerPlan,
    stamp: ledger.RunStamp,
    own_runs: Collection[str],
    dictionary: Dictionary,
) -> DataFrame:
    """Return the events (contract `attribute_values`) of ``plan``.

    ``products`` and ``events``: the whole tables; ``own_runs``: earlier runs of audit_ingest, whose human sets may be
    replaced or retracted; ``dictionary``: says which values are the same.
    """
    from pyspark.sql import functions as F

    spark = products.sparkSession
    ids = {(key[0],) for key in (*plan.refused, *plan.allowed, *plan.human)}
    products, events = (_only(rows, ids, ("product_id",)) for rows in (products, events))
    active = ledger.active(events)
    people = active.where(F.col("source") == Source.HUMAN.value)
    by_models = active.where(ledger.by_model())
    human = _human_assertions(products, people, plan, stamp, own_runs, dictionary)
    emptied = [pair_of(row) for row in human if row["value"] == ledger.NO_VALUE]
    gone = _same(by_models, plan.refused, dictionary).unionByName(_only(by_models, emptied))
    gone = gone.dropDuplicates(["event_id"])
    gone = gone.withColumn("contradiction", F.lit(Reason.REFUSED_BY_PERSON.value))
    no_longer = [pair for pair, values in plan.human.items() if not values]
    dropped = _only(people.where(F.col("run_id").isin(sorted(own_runs))), no_longer)
    dropped = dropped.withColumn("contradiction", F.lit(Reason.SUPERSEDED.value))
    rows = [tuple(row.get(name) for name in contract.columns("attribute_values")) for row in human]
    return (
        ledger.retract(ledger.with_replaced(active, gone), stamp)
        .unionByName(ledger.retract(dropped, stamp))
        .unionByName(_reinstated(events, plan, stamp, dictionary))
        .unionByName(spark.createDataFrame(rows, contract.spark_schema("attribute_values")))
    )


def _reinstated(events: DataFrame, plan: LedgerPlan, stamp: ledger.RunStamp, dictionary: Dictionary) -> DataFrame:
    """Return reinstate events for what an earlier verdict retracted and nobody says is wrong any more."""
    from pyspark.sql import functions as F

    by_verdict = (F.col("op") == Op.RETRACT.value) & (F.col("reason") == Reason.REFUSED_BY_PERSON.value)
    retracts = events.where(by_verdict & F.col("undoes").isNull())
    still_refused = [(*pair, value) for pair, values in plan.freed.items() for value in values]
    of_freed = _same(_only(retracts, plan.freed), still_refused, dictionary, without=True)
    again = _same(retracts, plan.allowed, dictionary).unionByName(of_freed)
    ids = again.select(F.col("refers_to").alias("event_id")).distinct()
    asserts = events.where(F.col("op") == Op.ASSERT.value).join(ids, "event_id", "left_semi")
    of_gone = events.where(F.col("reason") == Reason.PRODUCT_GONE.value).select(F.col("refers_to").alias("event_id"))
    asserts = asserts.join(of_gone, "event_id", "left_anti")  # if the product came back, it is a new product
    inactive = asserts.join(ledger.active(events).select("event_id"), "event_id", "left_anti")
    return ledger.reinstate(inactive.withColumn("contradiction", F.lit(Reason.REFUSED_BY_PERSON.value)), stamp)


def _human_assertions(
    products: DataFrame,
    people: DataFrame,
    plan: LedgerPlan,
    stamp: ledger.RunStamp,
    own_runs: Collection[str],
    dictionary: Dictionary,
) -> list[dict[str, Any]]:
    """Return the asserts, as rows, of human sets that differ from the newest set of a person.

    ``people``: the active events of people. Left out are products that are gone, sets where the merchant gives a value
    (I1), and sets where a person has given another since, in a run that is none of ``own_runs``.
    """
    from pyspark.sql import functions as F

    if not any(plan.human.values()):
        return []
    newest = ledger.newest_sets(people).select(*PAIR, "values").collect()
    present = {pair_of(row): tuple(row["values"]) for row in newest}
    by_others = _newest_times(people.where(~F.col("run_id").isin(sorted(own_runs))))
    found = products.select("product_id", "content_hash", "merchant_attributes").collect()
    product_of = {row["product_id"]: row.asDict() for row in found}
    rows: list[dict[str, Any]] = []
    for pair, values in sorted(plan.human.items()):
        product = product_of.get(pair[0])
        if not values or product is None or dictionary.is_same_set(pair[1], present.get(pair, ()), values):
            continue
        since_others = pair in by_others and pair in plan.given_at and by_others[pair] > plan.given_at[pair]
        if since_others or (product["merchant_attributes"] or {}).get(pair[1]):
            continue
        given = [value for value in values if value != ledger.NO_VALUE]
        rows += ledger.human_assertions(product, pair[1], given, stamp)
    return rows


def _newest_times(people: DataFrame) -> dict[Pair, datetime]:
    """Return when the newest of the events ``people`` about each product and attribute was asserted."""
    from pyspark.sql import functions as F

    times = people.groupBy(*PAIR).agg(F.unix_micros(F.max("asserted_at")).alias("micros")).collect()
    start = datetime(1970, 1, 1, tzinfo=UTC)
    return {pair_of(row): start + timedelta(microseconds=row["micros"]) for row in times}


def _only(rows: DataFrame, keys: Iterable[tuple[str, ...]], names: Sequence[str] = PAIR) -> DataFrame:
    """Return the ``rows`` about ``keys``, given as values of the columns ``names``."""
    from pyspark.sql import functions as F

    frame = rows.sparkSession.createDataFrame(sorted(keys), ", ".join(f"{name} string" for name in names))
    return rows.join(F.broadcast(frame), list(names), "left_semi")


def _same(
    rows: DataFrame, keys: Iterable[review_tables.Key], dictionary: Dictionary, without: bool = False
) -> DataFrame:
    """Return the ``rows`` with a value that is the same as one of ``keys``; ``without``: all others."""
    from pyspark.sql import functions as F

    marked = rows.join(F.broadcast(value_columns.sets_of(rows, keys, "among")), PAIR, "left")
    is_same = value_columns.is_among(dictionary, F.col("value"), F.col("among"))
    return marked.where(~is_same if without else is_same).select(*rows.columns)
