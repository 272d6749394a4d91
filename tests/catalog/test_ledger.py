from __future__ import annotations

from datetime import UTC, datetime, timedelta, timezone
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from catalog_enrichment.catalog import ledger
from catalog_enrichment.catalog.lake import Catalog
from catalog_enrichment.records import Op, event_id

from ..open_words import OPEN_WORDS
from .catalog_rows import START, event, frame, prediction, product, stamp

if TYPE_CHECKING:
    from pyspark.sql import DataFrame, SparkSession

ODD = ["it's", 'say "hi"', "línea\nnueva", "\x1f", "1:1:", "商品-1", "🙂🏽", "e\u0301", "back\\slash", "\x00", "", "  "]


def kept(spark: SparkSession, *events: DataFrame) -> DataFrame:
    """The ledger with these events, computed, so that a test's plans stay short."""
    return frame(spark, "attribute_values", [row.asDict() for part in events for row in part.collect()])


def asserted(spark: SparkSession, run: ledger.RunStamp, *predictions: dict[str, Any]) -> DataFrame:
    return kept(spark, ledger.assertions(frame(spark, "predictions", predictions), run))


def retracted(spark: SparkSession, events: DataFrame, run: ledger.RunStamp, *predictions: dict[str, Any]) -> DataFrame:
    decided = frame(spark, "predictions", predictions)
    return kept(spark, ledger.retract(ledger.contradicted(ledger.active(events), decided), run))


def seen(spark: SparkSession, events: DataFrame, *products: dict[str, Any]) -> dict[tuple[str, str], tuple[Any, ...]]:
    rows = ledger.current_values(frame(spark, "products", products), ledger.active(events)).collect()
    assert len({(row["product_id"], row["attribute"]) for row in rows}) == len(rows)
    return {(r["product_id"], r["attribute"]): (r["source"], r["run_id"], r["values"]) for r in rows}


def test_only_published_predictions_become_events_and_name_their_origin_i6(spark: SparkSession) -> None:
    events = asserted(
        spark,
        stamp("run-1", 1),
        prediction("a", "color", "Red"),
        prediction("b", "color", "Red", decision="suggest", reason="near_miss"),
        prediction("c", "color", "Red", decision="abstain", reason="below_threshold"),
    )

    [event] = events.selectExpr("*", "unix_micros(asserted_at) as micros").collect()
    assert event["event_id"] == event_id("run-1", "a", "color", "Red", Op.ASSERT)
    assert event["micros"] == int(stamp("run-1", 1).asserted_at.timestamp()) * 1_000_000 + 123456
    assert event["op"] == "assert"
    assert event["source"] == "model"
    assert (event["run_id"], event["model_name"], event["model_version"]) == ("run-1", "m", "1")
    assert (event["certificate_id"], event["threshold"], event["score"]) == ("certificate-1", 0.9, 0.99)
    assert (event["content_hash"], event["modality"], event["reason"]) == ("content-1", "both", "certified")
    assert event["refers_to"] is None
    assert event["undoes"] is None
    [value] = ledger.current_values(frame(spark, "products", [product("a")]), ledger.active(events)).collect()
    names = ("run_id", "model_version", "certificate_id", "asserted_at")
    assert [value[name] for name in names] == [event[name] for name in names]


def test_evidence_is_in_the_asserts_of_models_alone_and_not_in_their_ids_i6(spark: SparkSession) -> None:
    given = [prediction("a", "color", "Red", evidence="red wool"), prediction("b", "color", "Red")]
    first = asserted(spark, stamp("run-1", 1), *given)
    assert {row["product_id"]: row["evidence"] for row in first.collect()} == {"a": "red wool", "b": None}
    ids = {row["product_id"]: row["event_id"] for row in first.collect()}
    assert ids == {name: event_id("run-1", name, "color", "Red", Op.ASSERT) for name in "ab"}
    low = prediction("a", "color", "Red", decision="abstain", reason="below_threshold", evidence="red wool")
    retracts = retracted(spark, first, stamp("run-2", 2), low)
    undone = kept(spark, ledger.undo(kept(spark, first, retracts), ["run-1", "run-2"], None, stamp("undo", 3)))
    again = kept(spark, ledger.reinstate(first.selectExpr("*", "'x' AS contradiction"), stamp("run-4", 4)))
    later = kept(spark, retracts, undone, again).collect()
    assert {row["op"] for row in later} == {"retract", "reinstate"}
    assert {row["evidence"] for row in later} == {None}
    by_person = ledger.human_assertions(product("a"), "color", ["Blue"], stamp("set_value-1", 5))
    assert [row.get("evidence") for row in by_person] == [None]


def test_event_ids_in_spark_are_those_of_records_for_any_text(spark: SparkSession) -> None:
    run = stamp("run ñ", 1)
    events = asserted(spark, run, *[prediction(a, b, a + b) for a in ODD for b in ODD])
    back = kept(spark, ledger.undo(events, "run ñ", None, stamp("un'do", 2)))

    for row in events.collect():
        assert row["event_id"] == event_id("run ñ", row["product_id"], row["attribute"], row["value"], Op.ASSERT)
    for row in back.collect():
        parts = (row["product_id"], row["attribute"], row["value"])
        assert row["event_id"] == event_id("un'do", *parts, Op.RETRACT, row["refers_to"])
    all_ids = [row["event_id"] for row in events.union(back).collect()]
    assert len(set(all_ids)) == len(all_ids) == 2 * len(ODD) ** 2


def test_a_merchant_value_is_never_overwritten_i1(spark: SparkSession) -> None:
    events = asserted(
        spark,
        stamp("run-1", 1),
        prediction("a", "color", "Red"),
        prediction("a", "size", "M"),
        prediction("b", "color", "Blue"),
        prediction("c", "color", "Green"),
    )
    human = events.where("product_id = 'a'").selectExpr("* except (source)", "'human' as source")

    view = seen(
        spark,
        events.unionByName(human.selectExpr("* except (event_id)", "concat('h', event_id) as event_id")),
        product("a", merchant_attributes={"color": ["Teal", "Aqua", "Teal"], "fit": ["Slim"]}),
        product("b", merchant_attributes={"color": []}),
        product("c", merchant_attributes={"color": [None, " "]}),
    )

    assert view == {
        ("a", "color"): ("merchant", None, ["Aqua", "Teal"]),
        ("a", "fit"): ("merchant", None, ["Slim"]),
        ("a", "size"): ("human", "run-1", ["M"]),
        ("b", "color"): ("model", "run-1", ["Blue"]),
        ("c", "color"): ("model", "run-1", ["Green"]),
    }


def test_a_person_can_say_that_there_is_no_value_until_that_is_undone_i6(spark: SparkSession) -> None:
    def given(run: str, step: int, *values: str) -> DataFrame:
        by = ledger.RunStamp(run, None, None, stamp(run, step).asserted_at)
        return frame(spark, "attribute_values", ledger.human_assertions(product("a"), "color", values, by))

    written = asserted(spark, stamp("run-1", 1), prediction("a", "color", "Red"), prediction("a", "size", "M"))
    removed = kept(spark, written, given("removed", 2))
    later_run = kept(spark, removed, asserted(spark, stamp("run-3", 3), prediction("a", "color", "Blue")))
    corrected = kept(spark, later_run, given("corrected", 4, "Green", "Teal"))
    undone = kept(spark, later_run, ledger.undo(later_run, "removed", None, stamp("undo-5", 5)))
    without_model = kept(spark, removed, ledger.undo(removed, "run-1", None, stamp("undo-6", 6)))
    shown = [seen(spark, events, product("a")) for events in (removed, later_run, corrected, undone, without_model)]
    assert [values.get(("a", "color")) for values in shown] == [
        None, None, ("human", "corrected", ["Green", "Teal"]), ("model", "run-3", ["Blue"]), None,
    ]  # fmt: skip
    assert shown[0]["a", "size"] == ("model", "run-1", ["M"])
    merchants = product("a", merchant_attributes={"color": ["Grey"]})
    assert seen(spark, removed, merchants)["a", "color"] == ("merchant", None, ["Grey"])
    events = corrected.where("source = 'human'").orderBy("asserted_at", "value").collect()
    assert [(row["value"], row["reason"], row["content_hash"]) for row in events] == [
        (ledger.NO_VALUE, "removed_by_person", "content-1"),
        ("Green", "set_by_person", "content-1"),
        ("Teal", "set_by_person", "content-1"),
    ]
    assert {row["event_id"] for row in events} == {
        event_id(row["run_id"], "a", "color", row["value"], Op.ASSERT) for row in events
    }


def test_changed_content_retracts_unless_a_new_value_is_published(spark: SparkSession) -> None:
    names = ["changed", "moved", "rewritten", "unscored", "human"]
    first = asserted(spark, stamp("run-1", 1), *[prediction(name, "color", "Red") for name in names])
    second = asserted(spark, stamp("run-2", 2), prediction("changed", "color", "Red", certificate_id="c2"))
    events = first.selectExpr("* except (source)", "if(product_id = 'human', 'human', 'model') as source").select(
        *first.columns
    )
    events = kept(spark, events, second)
    no = {"decision": "abstain", "reason": "below_threshold"}
    new = {"content_hash": "content-2"}
    decided = [
        prediction("changed", "color", "Blue", **new, **no),
        prediction("changed", "color", "Green", **new, rank=2, decision="suggest", reason="near_miss"),
        prediction("moved", "color", "Blue", **new, decision="abstain", reason="unseen_slice"),
        prediction("rewritten", "color", "Blue", **new),
        prediction("rewritten", "color", "Green", **new, rank=2, **no),
        prediction("human", "color", "Green", **new, **no),
        prediction("unscored", "size", "M", **new, **no),
    ]

    back = retracted(spark, events, stamp("run-3", 3), *decided)

    rows = back.collect()
    assert {(r["product_id"], r["value"], r["op"], r["reason"], r["run_id"]) for r in rows} == {
        ("changed", "Red", "retract", "content_changed", "run-3"),
        ("moved", "Red", "retract", "content_changed", "run-3"),
    }
    asserts = {r["event_id"] for r in events.where("product_id in ('changed', 'moved')").collect()}
    assert {r["refers_to"] for r in rows} == asserts
    assert len(asserts) == len({r["event_id"] for r in rows}) == 3
    after = kept(spark, events, back, asserted(spark, stamp("run-3", 3), *decided))
    assert {key: value[2] for key, value in seen(spark, after, *map(product, names)).items()} == {
        ("rewritten", "color"): ["Blue"],
        ("unscored", "color"): ["Red"],
        ("human", "color"): ["Red"],
    }
    assert retracted(spark, after, stamp("run-4", 4), *decided).count() == 0


def test_a_value_of_unknown_content_is_a_value_of_other_content(spark: SparkSession) -> None:
    """A decision about known content contradicts it whatever the score was."""
    from pyspark.sql import functions as F

    events = asserted(spark, stamp("run-1", 1), prediction("a", "color", "Red"), prediction("b", "color", "Red"))
    unknown = F.when(F.col("product_id") == "b", F.col("content_hash"))
    decided = [prediction(name, "color", "Blue", decision="abstain", reason="no_certificate") for name in "ab"]
    rows = ledger.contradicted(events.withColumn("content_hash", unknown), frame(spark, "predictions", decided))
    assert [(row["product_id"], row["contradiction"]) for row in rows.collect()] == [("a", "content_changed")]


def test_a_product_that_moves_where_no_certificate_is_loses_its_value(spark: SparkSession) -> None:
    where = {"category": "Apparel", "language": "en"}
    names = ["category", "language", "stays", "unknown before", "expired", "certified"]
    first = [prediction(name, "color", "Red", **where) for name in names if name != "unknown before"]
    events = asserted(spark, stamp("run-1", 1), *first, prediction("unknown before", "color", "Red"))
    no = {"decision": "abstain", "reason": "unseen_slice"}
    decided = [
        prediction("category", "color", "Blue", **where | {"category": "Hats"}, **no),
        prediction("language", "color", "Red", **where | {"language": None}, **no),
        prediction("stays", "color", "Blue", **where, **no),
        prediction("unknown before", "color", "Blue", **where, **no),
        prediction("expired", "color", "Blue", category="Hats", decision="abstain", reason="certificate_expired"),
        prediction("certified", "color", "Blue", category="Hats"),
    ]
    rows = retracted(spark, events, stamp("run-2", 2), *decided).collect()
    moved = dict.fromkeys(("category", "language", "unknown before"), "category_changed")
    assert {row["product_id"]: row["reason"] for row in rows} == moved


ADMINISTRATIVE = [
    *("no_certificate", "certificate_expired", "certificate_mismatch", "unseen_slice"),
    *("paused", "provisional_cap", "picture_outage"),
]

NEWEST_DECISIONS: dict[str, tuple[list[tuple[str, str]], str]] = {
    "publish": ([("publish", "certified"), ("abstain", "below_threshold")], "replaced"),
    "below the threshold": ([("abstain", "below_threshold")], "retracted"),
    "not in the pool": ([("abstain", "value_not_in_pool")], "retracted"),
    "a near miss alone": ([("suggest", "near_miss")], "retracted"),
    "suggestions alone": ([("suggest", "near_miss"), ("suggest", "value_not_in_pool")], "retracted"),
    "beside the merchant's": ([("abstain", "agrees_with_merchant"), ("abstain", "below_threshold")], "retracted"),
    "about the merchant's": ([("suggest", "disagrees_with_merchant")], "stays"),
    "about a human's": ([("abstain", "human_value_stands")], "stays"),
    **{reason: ([("abstain", reason)], "stays") for reason in ADMINISTRATIVE},
    "one value waits": ([("abstain", "provisional_cap"), ("abstain", "below_threshold")], "stays"),
}
"""Newest decision on the same content -> its rows (decision, reason), what becomes of the older model value."""


def test_the_newest_decision_counts_as_the_table_of_the_promise_says(spark: SparkSession) -> None:
    """PRECISION, "One version at a time"."""
    first = asserted(spark, stamp("run-1", 1), *[prediction(name, "color", "Red") for name in NEWEST_DECISIONS])
    decided = [
        prediction(name, "color", value, decision=decision, reason=reason)
        for name, (rows, _) in NEWEST_DECISIONS.items()
        for value, (decision, reason) in zip(["Blue", "Green"], rows, strict=False)
    ]

    events = kept(
        spark,
        first,
        asserted(spark, stamp("run-2", 2), *decided),
        retracted(spark, first, stamp("run-2", 2), *decided),
    )

    shown = {name: values for (name, _), (*_, values) in seen(spark, events, *map(product, NEWEST_DECISIONS)).items()}
    fates = {("Blue",): "replaced", ("Red",): "stays", (): "retracted"}
    assert {name: fates[tuple(shown.get(name, ()))] for name in NEWEST_DECISIONS} == {
        name: fate for name, (_, fate) in NEWEST_DECISIONS.items()
    }
    reasons = {row["reason"] for row in events.where("op = 'retract'").collect()}
    assert reasons == {"superseded"}


def test_undoing_one_attribute_leaves_the_others_i6(spark: SparkSession) -> None:
    events = asserted(spark, stamp("run-1", 1), prediction("a", "color", "Red"), prediction("a", "size", "M"))
    color_gone = kept(spark, events, ledger.undo(events, "run-1", "color", stamp("undo-1", 2)))
    rest = kept(spark, ledger.undo(color_gone, "run-1", None, stamp("undo-2", 3)))

    assert set(seen(spark, color_gone, product("a"))) == {("a", "size")}
    assert [(r["attribute"], r["op"], r["reason"]) for r in rest.collect()] == [("size", "retract", "rolled_back")]
    assert seen(spark, color_gone.union(rest), product("a")) == {}
    assert ledger.undo(color_gone.union(rest), "run-1", None, stamp("undo-3", 4)).count() == 0
    assert ledger.undo(events, "no-such-run", None, stamp("undo-3", 4)).count() == 0


def test_history_is_told_in_order(spark: SparkSession) -> None:
    events = asserted(spark, stamp("run-1", 1), prediction("a", "color", "Red"), prediction("b", "color", "Red"))
    events = kept(spark, events, ledger.undo(events, "run-1", None, stamp("a-undo", 2)))
    events = kept(spark, ledger.undo(events, "a-undo", None, stamp("Z", 3)), events)

    told = ledger.history(events, "a", "color").collect()

    assert [(row["op"], row["run_id"]) for row in told] == [
        ("assert", "run-1"),
        ("retract", "a-undo"),
        ("reinstate", "Z"),
    ]
    assert {row["refers_to"] for row in told[1:]} == {told[0]["event_id"]}
    assert [row["undoes"] for row in told] == [None, told[0]["event_id"], told[1]["event_id"]]


def test_times_of_runs_increase_whatever_the_clock_says(tmp_path: Path) -> None:
    lake, last = Catalog(tmp_path), START + timedelta(minutes=1)
    madrid = timezone(timedelta(hours=2))

    assert lake.next_asserted_at(START) == START
    assert lake.next_asserted_at(START.astimezone(madrid)).tzinfo == UTC
    lake.append_rows("attribute_values", [event(1), event(2, asserted_at=last), event(3)], "run-1")
    assert lake.next_asserted_at(last + timedelta(hours=1)) == last + timedelta(hours=1)
    assert lake.next_asserted_at(last) == last + timedelta(microseconds=1)
    assert lake.next_asserted_at(datetime(2000, 1, 1, tzinfo=madrid)) == last + timedelta(microseconds=1)
    with pytest.raises(ValueError, match="time zone"):
        ledger.RunStamp("run", "m", "1", datetime(2026, 1, 1))


def test_totals_of_a_ledger_and_what_was_active_before_one_of_its_runs(spark: SparkSession) -> None:
    first = asserted(spark, stamp("run-1", 1), prediction("a", "color", "Red"), prediction("b", "color", "Red"))
    given = prediction("c", "color", "Red")
    human = frame(spark, "attribute_values", [
        row.asDict() | {"source": "human"} for row in asserted(spark, stamp("audit-1", 2), given).collect()
    ])  # fmt: skip
    events = kept(spark, first, human)
    events = kept(spark, events, ledger.undo(events, "run-1", None, stamp("rollback-1", 3)))
    state = ledger.LedgerState(7, events)
    totals = state.totals
    assert (totals.human_events, totals.corrections) == (1, 2)
    assert set(totals.asserted_at) == {"run-1", "audit-1", "rollback-1"}
    assert totals.last_asserted_at == stamp("any", 3).asserted_at
    active = {name: {row["product_id"] for row in state.before(name).active().events.collect()}
              for name in ("rollback-1", "audit-1", "none")}  # fmt: skip
    assert active == {"rollback-1": {"a", "b", "c"}, "audit-1": set(), "none": {"c"}}
    assert state.before("rollback-1").active().version == 7
    of_b = state.before("rollback-1").active_among(events.where("product_id = 'b'"), lambda rows: rows)
    assert [row["product_id"] for row in of_b.events.collect()] == ["b"]


def test_what_is_active_after_a_commit_follows_from_what_was_active_before_and_its_events(spark: SparkSession) -> None:
    first = asserted(spark, stamp("run-1", 1), prediction("a", "color", "Red"), prediction("b", "color", "Red"))
    before = ledger.ActiveValues(3, ledger.active(first))
    changed = frame(
        spark, "predictions", [prediction("a", "color", "Blue", decision="abstain", content_hash="content-2")]
    )
    new = asserted(spark, stamp("run-2", 2), prediction("c", "color", "Green"))
    changes = new.unionByName(ledger.retract(ledger.contradicted(before.events, changed), stamp("run-2", 2)))
    after = before.after(changes)
    replayed = ledger.active(first.unionByName(changes))
    assert after.version == 4
    assert {row["event_id"] for row in after.events.collect()} == {row["event_id"] for row in replayed.collect()}
    assert {row["product_id"] for row in after.events.collect()} == {"b", "c"}
    assert ledger.ActiveValues(-1, first.limit(0)).after(new).version == 1


def material(product_id: str, value: str, run: int, **given: Any) -> dict[str, Any]:
    return {
        "event_id": f"{product_id} {value} {run}", "op": "assert", "source": "model", "product_id": product_id,
        "attribute": "material", "value": value, "run_id": f"run-{run}", "asserted_at": START + timedelta(hours=run),
        **given,
    }  # fmt: skip


def test_an_older_set_is_retracted_where_nothing_of_the_newest_one_is_left(spark: SparkSession) -> None:
    rows = [
        material("emptied", "wool", 1), material("emptied", "silk", 1), material("emptied", "linen", 2),
        material("emptied", "hemp", 2),
        material("partly", "wool", 1), material("partly", "linen", 2), material("partly", "silk", 2),
        material("untouched", "wool", 1), material("untouched", "linen", 2),
        material("emptied", "red", 1, attribute="color"),
        material("emptied", "cotton", 1, source="human"),
        material("old set goes", "wool", 1), material("old set goes", "linen", 2),
    ]  # fmt: skip
    from pyspark.sql import functions as F

    active = frame(spark, "attribute_values", rows)
    ids = ["emptied linen 2", "emptied hemp 2", "partly linen 2", "old set goes wool 1"]
    gone = active.where(F.col("event_id").isin(ids)).withColumn("contradiction", F.lit("audit_wrong"))
    found = {row["event_id"]: row["contradiction"] for row in ledger.with_replaced(active, gone).collect()}
    assert found == dict.fromkeys(ids, "audit_wrong") | dict.fromkeys(
        ["emptied wool 1", "emptied silk 1"], "superseded"
    )


def test_numbers_have_their_number_and_unit_where_readers_see_one(spark: SparkSession) -> None:
    given = {
        "merchant": ["51 cm"], "other unit": ["510 mm"], "no number": ["12-15 cm"], "implausible": ["900 cm"],
        "several": ["51 cm", "52 cm"], "decimals": ["50.8 cm"],
    }  # fmt: skip
    products = [product(name, merchant_attributes={"width": values}) for name, values in given.items()]
    products += [product(name) for name in ("model", "human", "brand")]
    decided = [prediction("model", "width", "1.5 cm"), prediction("brand", "brand", "51 cm")]
    human = ledger.human_assertions(product("human"), "width", ["499 cm"], stamp("run-2", 2))
    events = kept(spark, asserted(spark, stamp("run-1", 1), *decided), frame(spark, "attribute_values", human))
    seen = ledger.current_values(frame(spark, "products", products), ledger.active(events), OPEN_WORDS).collect()
    found = {row["product_id"]: (row["number"], row["unit"]) for row in seen}
    nothing = (None, None)
    assert found == dict.fromkeys([*given, "brand"], nothing) | {
        "merchant": (51.0, "cm"), "other unit": (51.0, "cm"), "decimals": (50.8, "cm"), "model": (1.5, "cm"),
        "human": (499.0, "cm"),
    }  # fmt: skip
    without = ledger.current_values(frame(spark, "products", products), ledger.active(events)).collect()
    assert {(row["number"], row["unit"]) for row in without} == {nothing}
