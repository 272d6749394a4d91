"""The ledger of values (contract `attribute_values`): its events, the active values, what readers see, undoing.

Events are only appended; of a product that is deleted their column ``evidence``, a text of the product, is emptied. A
run asserts values; a later run may retract them; a rollback undoes events. A rollback's event names the event that it
``undoes``, so a rollback of a rollback restores what that rollback undid, and two runs can be undone in any order. A
person asserts the whole set of a product and attribute, or with :data:`NO_VALUE` that there is no value. Which values
are active follows from a replay of the events in force::

    event in force    no event in force undoes it
    value active      its assert is in force, and the last retract or reinstate in force that a run made by itself
                      (``undoes`` is null) does not leave it retracted

:func:`active` is the replay in Spark SQL, without UDFs; :func:`active_rows` is the same for few events, without Spark.
The order of events is that of ``asserted_at``: one time per run, later than that of every run before it.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from functools import cached_property
from typing import TYPE_CHECKING, Any

from catalog_enrichment import contract
from catalog_enrichment.dictionary import Dictionary
from catalog_enrichment.reasons import ADMINISTRATIVE, JUDGED, Reason
from catalog_enrichment.records import Decision, Op, Source, event_id
from catalog_enrichment.spark import value_columns

if TYPE_CHECKING:
    from pyspark.sql import Column, DataFrame

    from catalog_enrichment.spark.frames import Persist

BROADCAST_CORRECTIONS = 500_000
"""Most ids of inactive values that are sent to every executor: about 70 MB."""

NO_VALUE = ""
"""Value of the event by which a person says that a product has no value of an attribute. It is an assert, so that it
goes before what models assert, is undone and is replaced as a value is; readers see no value."""

CURRENT_VALUES_FROM = {
    "products": ("product_id", "opt_out", "merchant_attributes"),
    "attribute_values": (
        *("event_id", "product_id", "attribute", "value", "op", "source", "run_id", "asserted_at", "model_version"),
        *("certificate_id", "refers_to", "undoes"),
    ),
}
"""Table -> the columns that :func:`active` and :func:`current_values` need."""

_KEY = ["product_id", "attribute"]
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


@dataclass(frozen=True, slots=True)
class RunStamp:
    """The columns that every event of a run has alike."""

    run_id: str
    model_name: str | None
    """None for a person and a rollback, as is the version: a rollback's events repeat those of the values they are
    about."""
    model_version: str | None
    asserted_at: datetime
    """With a time zone, later than every event in the ledger."""

    def __post_init__(self) -> None:
        if self.asserted_at.tzinfo is None:
            raise ValueError(f"asserted_at needs a time zone, {self.asserted_at!r} has none")


@dataclass(frozen=True, slots=True)
class ActiveValues:
    """The active values at one version of the ledger."""

    version: int
    """Version of the table `attribute_values`; -1: there is no event yet."""
    events: DataFrame
    """The assert events of the active values."""

    def without(self, gone: DataFrame) -> ActiveValues:
        """Return all but the events whose ids are in the column ``event_id`` of ``gone``."""
        return ActiveValues(self.version, self.events.join(gone.select("event_id"), "event_id", "left_anti"))

    def after(self, changes: DataFrame) -> ActiveValues:
        """Return the active values after a next commit of ``changes``: asserts, and retracts of active values.

        Not for the events of a rollback (``undoes``), which need a replay of the whole ledger.
        """
        from pyspark.sql import functions as F

        retracted = changes.where(F.col("op") == Op.RETRACT.value).select(F.col("refers_to").alias("event_id"))
        kept = self.without(retracted).events
        created = max(self.version, 0)  # making the table is its version 0
        return ActiveValues(created + 1, kept.unionByName(changes.where(F.col("op") == Op.ASSERT.value)))


@dataclass(frozen=True)
class LedgerState:
    """The facts that a run needs about a version of the ledger."""

    version: int
    """Version of the table `attribute_values`; -1: there is no event yet."""
    events: DataFrame
    """The whole ledger."""
    left_out: str = ""
    """Id of a run whose events are not in ``events``."""

    @cached_property
    def totals(self) -> Totals:
        """The totals of all events: one aggregation, when it is first asked for."""
        return Totals.of(self.events)

    def active(self) -> ActiveValues:
        """Return the active values, by a replay of all events."""
        return ActiveValues(self.version, active(self.events, self.totals.corrections))

    def active_among(self, events: DataFrame, persist: Persist) -> ActiveValues:
        """Return the active values of some products; ``events``: all about them in this version, read once."""
        some = persist(self._without(self.left_out, events))
        return ActiveValues(self.version, active(some, self.totals.corrections))

    def before(self, run_id: str) -> LedgerState:
        """Return the ledger without the events of ``run_id``."""
        return replace(self, events=self._without(run_id, self.events), left_out=run_id)

    @staticmethod
    def _without(run_id: str, events: DataFrame) -> DataFrame:
        return events.where(events["run_id"] != run_id) if run_id else events


@dataclass(frozen=True, slots=True)
class Totals:
    """Numbers over all events of a ledger."""

    last_asserted_at: datetime | None
    """Time of the newest event, in UTC; None: there is no event yet."""
    human_events: int
    """How many events people have added."""
    corrections: int
    """How many events refer to another event."""
    asserted_at: Mapping[str, datetime]
    """Run id -> time of its events, in UTC."""
    asserted: Mapping[tuple[str, str | None], int]
    """Attribute and certificate id -> values that models have asserted, active or not."""

    @classmethod
    def of(cls, events: DataFrame) -> Totals:
        from pyspark.sql import functions as F

        groups = events.groupBy("run_id", "attribute", "certificate_id").agg(
            F.max(F.unix_micros("asserted_at")).alias("micros"),
            F.count_if(F.col("source") == Source.HUMAN.value).alias("human"),
            F.count("refers_to").alias("corrections"),
            F.count_if(asserted_by_model()).alias("asserted"),
        )
        times, asserted = dict[str, datetime](), Counter[tuple[str, str | None]]()
        human = corrections = 0
        for row in groups.collect():
            times[row["run_id"]] = _EPOCH + timedelta(microseconds=row["micros"])  # one time per run
            asserted[row["attribute"], row["certificate_id"]] += row["asserted"]
            human, corrections = human + row["human"], corrections + row["corrections"]
        return cls(max(times.values(), default=None), human, corrections, times, asserted)


def assertions(decided: DataFrame, stamp: RunStamp) -> DataFrame:
    """Return an assert event for every row of ``decided`` (contract `predictions`) whose decision is to publish."""
    from pyspark.sql import functions as F

    return _record(
        decided.where(F.col("decision") == Decision.PUBLISH.value),
        stamp,
        op=F.lit(Op.ASSERT.value),
        refers_to=F.lit(None),
        undoes=F.lit(None),
        source=F.lit(Source.MODEL.value),
        model_name=F.lit(stamp.model_name),
        model_version=F.lit(stamp.model_version),
    )


def human_assertions(
    product: Mapping[str, Any], attribute: str, values: Sequence[str], stamp: RunStamp
) -> list[dict[str, Any]]:
    """Return the assert events, as rows, of the whole set of ``values`` that a person gave; no values: there is none.

    ``product``: its product_id and content_hash.
    """
    usual = {
        "op": Op.ASSERT.value,
        "product_id": product["product_id"],
        "attribute": attribute,
        "source": Source.HUMAN.value,
        "run_id": stamp.run_id,
        "content_hash": product["content_hash"],
        "reason": (Reason.SET_BY_PERSON if values else Reason.REMOVED_BY_PERSON).value,
        "asserted_at": stamp.asserted_at,
    }
    key = (stamp.run_id, product["product_id"], attribute)
    return [usual | {"value": value, "event_id": event_id(*key, value, Op.ASSERT)} for value in values or [NO_VALUE]]


def retract(active: DataFrame, stamp: RunStamp) -> DataFrame:
    """Return the retract events for all of ``active``; its column ``contradiction`` is their reason."""
    return _act(Op.RETRACT, active, stamp)


def reinstate(inactive: DataFrame, stamp: RunStamp) -> DataFrame:
    """Return the reinstate events for the assert events ``inactive``; their column ``contradiction`` is the reason."""
    return _act(Op.REINSTATE, inactive, stamp)


def _act(op: Op, asserts: DataFrame, stamp: RunStamp) -> DataFrame:
    from pyspark.sql import functions as F

    nothing, reason = F.lit(None), F.col("contradiction")
    acts = {"op": F.lit(op.value), "refers_to": F.col("event_id"), "undoes": nothing, "evidence": nothing}
    return _record(asserts, stamp, **acts, reason=reason)


def contradicted(active: DataFrame, decided: DataFrame) -> DataFrame:
    """Return the active model values that the newest decision, in ``decided``, contradicts; ``contradiction`` says why.

    PRECISION, "One version at a time". Only where the run publishes nothing for the product and attribute; where it
    does, its set replaces the old set by being newer. Reason CONTENT_CHANGED: the value was decided on other content.
    Reason SUPERSEDED: on the same content the score is now too low (reasons.JUDGED). Reason CATEGORY_CHANGED: the
    product has moved to a category or language that the certificate does not cover. A value stays active if the newest
    decision did not use the score (reasons.ADMINISTRATIVE) or was only about a merchant's or a human's value.
    """
    from pyspark.sql import functions as F

    def any_row_for(reasons: Collection[Reason]) -> Column:
        return F.max(F.col("reason").isin([reason.value for reason in reasons]))

    decisions = decided.groupBy(_KEY).agg(
        F.first("content_hash").alias("new_content"),
        F.first(F.struct("category", "language")).alias("new_slice"),
        F.max(F.col("decision") == Decision.PUBLISH.value).alias("published"),
        any_row_for(JUDGED).alias("judged"),
        any_row_for(ADMINISTRATIVE).alias("administrative"),
        any_row_for({Reason.UNSEEN_SLICE}).alias("unseen"),
    )
    content_changed = ~F.col("content_hash").eqNullSafe(F.col("new_content"))
    moved = F.col("unseen") & ~F.struct("category", "language").eqNullSafe(F.col("new_slice"))
    reason = (
        F.when(content_changed, Reason.CONTENT_CHANGED.value)
        .when(moved, Reason.CATEGORY_CHANGED.value)
        .otherwise(Reason.SUPERSEDED.value)
    )
    return (
        active.where(by_model())
        .join(decisions.where(~F.col("published")), _KEY)
        .where(content_changed | moved | (F.col("judged") & ~F.col("administrative")))
        .withColumn("contradiction", reason)
    )


def with_replaced(active: DataFrame, gone: DataFrame) -> DataFrame:
    """Return ``gone``, active values to retract, and the older values that would be seen again without it (SUPERSEDED).

    A set that a newer set replaced stays active, and no reader sees it until the newer set is retracted. A rollback
    wants that; a retraction of values that are wrong or switched off does not. Older values are added only where
    nothing of the newest model set of a product and attribute is left.
    """
    from pyspark.sql import functions as F

    model = active.where(by_model()).join(gone.select(_KEY).distinct(), _KEY, "left_semi")
    rest = model.join(gone.select("event_id"), "event_id", "left_anti")
    newest = newest_sets(model).select(*_KEY, "run_id")
    emptied = newest.join(rest, [*_KEY, "run_id"], "left_anti").select(_KEY)
    older = rest.join(emptied, _KEY).withColumn("contradiction", F.lit(Reason.SUPERSEDED.value))
    return gone.unionByName(older.select(*gone.columns))


def undo(events: DataFrame, run_ids: str | Collection[str], attribute: str | None, stamp: RunStamp) -> DataFrame:
    """Return the events that take back what a run, or several, did (to ``attribute``, if given) and is in force (I6).

    An assert or reinstate is answered by a retract, a retract by a reinstate. Undoing twice gives no rows; undoing
    the undoing restores what it took. Later runs keep their effect.
    """
    from pyspark.sql import functions as F

    did = events.where(F.col("run_id").isin([run_ids] if isinstance(run_ids, str) else list(run_ids)))
    if attribute is not None:
        did = did.where(F.col("attribute") == attribute)
    taken_back = _replay(events).select(F.explode("undone").alias("event_id"))
    was_retract = F.col("op") == Op.RETRACT.value
    return _record(
        did.join(taken_back, "event_id", "left_anti"),
        stamp,
        op=F.when(was_retract, Op.REINSTATE.value).otherwise(Op.RETRACT.value),
        refers_to=F.coalesce("refers_to", "event_id"),
        undoes=F.col("event_id"),
        evidence=F.lit(None),
        reason=F.lit(Reason.ROLLED_BACK.value),
    )


def active_rows(events: Sequence[Mapping[str, Any]]) -> list[Mapping[str, Any]]:
    """Return the assert events of the active values among a few ``events``, without Spark; see :func:`active`."""
    return [event for event in events if event["op"] == Op.ASSERT.value and _is_active(event, events)]


def _is_active(asserted: Mapping[str, Any], events: Sequence[Mapping[str, Any]]) -> bool:
    acts = [event for event in events if event["refers_to"] == asserted["event_id"]]
    acts.sort(key=lambda event: (event["asserted_at"], event["run_id"], event["op"], event["event_id"]))
    undone: set[str] = set()
    for act in reversed(acts):
        if act["undoes"] is not None and act["event_id"] not in undone:
            undone.add(act["undoes"])
    in_force = [act for act in acts if act["undoes"] is None and act["event_id"] not in undone]
    retracted = bool(in_force) and in_force[-1]["op"] == Op.RETRACT.value
    return asserted["event_id"] not in undone and not retracted


def active(events: DataFrame, corrections: int | None = None) -> DataFrame:
    """Return the assert events of the active values.

    ``corrections``: how many of a larger set of events refer to another event, if that is known. Few are broadcast, so
    that the asserts, which may be very many, are not shuffled.
    """
    from pyspark.sql import functions as F

    inactive = _replay(events).where(~F.col("active")).select(F.col("assert_id").alias("event_id"))
    if corrections is not None and corrections <= BROADCAST_CORRECTIONS:
        inactive = F.broadcast(inactive)
    return events.where(F.col("op") == Op.ASSERT.value).join(inactive, "event_id", "left_anti")


def _replay(events: DataFrame) -> DataFrame:
    """Return, for every assert that later events refer to: assert_id, whether it is ``active``, the ids ``undone``.

    Read from the newest event to the oldest, an event is in force unless an event already read, itself in force, undoes
    it.
    """
    from pyspark.sql import functions as F

    later = events.where("refers_to IS NOT NULL").groupBy(F.col("refers_to").alias("assert_id"))
    acts = F.expr("array_sort(collect_list(struct(asserted_at, run_id, op, event_id, undoes)))")
    undone = F.expr(
        """aggregate(reverse(acts), cast(array() AS array<string>), (ids, act) -> if(
            act.undoes IS NULL OR array_contains(ids, act.event_id), ids, concat(ids, array(act.undoes))))"""
    )
    newest = "try_element_at(filter(acts, act -> act.undoes IS NULL AND NOT array_contains(undone, act.event_id)), -1)"
    retracted = f"coalesce({newest}.op = '{Op.RETRACT.value}', false)"
    replayed = later.agg(acts.alias("acts")).withColumn("undone", undone)
    is_active = f"NOT array_contains(undone, assert_id) AND NOT {retracted} AS active"
    return replayed.selectExpr("assert_id", "undone", is_active)


def by_model() -> Column:
    """Return whether the column ``source`` says that a model wrote the value."""
    from pyspark.sql import functions as F

    return F.col("source") == Source.MODEL.value


def asserted_by_model() -> Column:
    """Return whether an event asserts a value that a model wrote; a later event may have retracted it."""
    from pyspark.sql import functions as F

    return (F.col("op") == Op.ASSERT.value) & by_model()


def human_owned(events: DataFrame) -> DataFrame:
    """Return product_id and attribute of every active value that a person gave, or said is not there."""
    from pyspark.sql import functions as F

    # whatever refers to a person's event has the same source
    return active(events.where(F.col("source") == Source.HUMAN.value)).select(_KEY).distinct()


def current_values(products: DataFrame, active: DataFrame, dictionary: Dictionary | None = None) -> DataFrame:
    """Return what the catalog's readers see (contract `current_values`), per product and attribute, values sorted.

    The merchant's set (I1); else the newest human set, which may say that there is no value; else the whole set of the
    newest run with an active value. Products that are gone have nothing, and where the merchant opted out no model's
    value is seen. ``dictionary``: says which attributes are numbers; without it `number` and `unit` are null.
    """
    from pyspark.sql import functions as F

    merchant = _merchant_values(products)
    of_products = active.join(products.select("product_id", "opt_out"), "product_id")
    visible = newest_sets(of_products.where(~F.col("opt_out") | ~by_model()))
    removed = (F.col("source") == Source.HUMAN.value) & F.array_contains("values", NO_VALUE)
    others = visible.where(~removed).join(merchant, _KEY, "left_anti")
    seen = merchant.unionByName(others, allowMissingColumns=True)
    only = F.when(F.size("values") == 1, F.col("values")[0])
    seen = seen.withColumn("value", only).withColumns(value_columns.number_and_unit(dictionary or Dictionary({})))
    return seen.select(*[F.col(field.name).cast(field.dataType) for field in contract.spark_schema("current_values")])


def _merchant_values(products: DataFrame) -> DataFrame:
    from pyspark.sql import functions as F

    given = products.select("product_id", F.explode("merchant_attributes").alias("attribute", "given"))
    named = F.filter("given", lambda value: value.isNotNull() & (F.trim(value) != ""))
    values = F.array_sort(F.array_distinct(named)).alias("values")
    merchant = F.lit(Source.MERCHANT.value).alias("source")
    return given.select(*_KEY, values, merchant).where(F.size("values") > 0)


def newest_sets(active: DataFrame) -> DataFrame:
    """Return per product and attribute the set of one run: the newest human set, else the newest set."""
    from pyspark.sql import Window
    from pyspark.sql import functions as F

    sets = active.groupBy(*_KEY, "source", "run_id").agg(
        F.array_sort(F.collect_set("value")).alias("values"),
        *[F.max(name).alias(name) for name in ("asserted_at", "model_version", "certificate_id")],
    )
    human_first = F.when(F.col("source") == Source.HUMAN.value, 0).otherwise(1)
    newest = Window.partitionBy(*_KEY).orderBy(human_first, F.col("asserted_at").desc(), F.col("run_id").desc())
    return sets.withColumn("recency", F.row_number().over(newest)).where("recency = 1").drop("recency")


def history(events: DataFrame, product_id: str, attribute: str) -> DataFrame:
    """Return every event about one product and attribute, oldest first."""
    from pyspark.sql import functions as F

    mine = events.where((F.col("product_id") == product_id) & (F.col("attribute") == attribute))
    return mine.orderBy("asserted_at", "run_id", "op", "value")


def _record(rows: DataFrame, stamp: RunStamp, **given: Column) -> DataFrame:
    """Return ledger rows: the stamp, the ``given`` columns, and for every other column what ``rows`` have."""
    from pyspark.sql import functions as F

    micros = (stamp.asserted_at - _EPOCH) // timedelta(microseconds=1)
    # as a number: a datetime literal would pass through the session's time zone
    own = {**given, "run_id": F.lit(stamp.run_id), "asserted_at": F.timestamp_micros(F.lit(micros))}
    fields = [field for field in contract.spark_schema("attribute_values") if field.name != "event_id"]
    columns = [f"CAST({field.name} AS {field.dataType.simpleString()}) AS {field.name}" for field in fields]
    return rows.withColumns(own).selectExpr(*columns).selectExpr(f"{_EVENT_ID} AS event_id", "*")


_ID_OF = ("run_id", "product_id", "attribute", "value", "op", "refers_to")
_PARTS = ", ".join("length({0}), ':', {0}".format(f"coalesce({name}, '')") for name in _ID_OF)
_EVENT_ID = f"sha2(concat({_PARTS}), 256)"
""":func:`catalog_enrichment.records.event_id` in Spark SQL."""
