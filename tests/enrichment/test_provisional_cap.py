"""The cap on values under provisional certificates: every case is an attribute of its own, with a cap of 3."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from catalog_enrichment import contract
from catalog_enrichment.catalog import ledger
from catalog_enrichment.enrichment import provisional_cap
from catalog_enrichment.enrichment.provisional_cap import ProvisionalCap
from catalog_enrichment.precision.certificate import CertificateStatus

from ..catalog.catalog_rows import frame, prediction, stamp
from ..sample_certificate import certificate

if TYPE_CHECKING:
    from pyspark.sql import DataFrame, SparkSession

CAP = ProvisionalCap(3, frozenset({"confirmed"}))

Row = dict[str, Any]


def publish(product_id: str, *values: str, score: float = 0.99, **given: Any) -> list[Row]:
    return [
        prediction(product_id, "", value, score=score, rank=rank, **given) for rank, value in enumerate(values, start=1)
    ]


def abstain(product_id: str, reason: str, **given: Any) -> list[Row]:
    return publish(product_id, "x", score=0.5, decision="abstain", reason=reason, **given)


THREE = [*publish("a", "x"), *publish("b", "x"), *publish("c", "x")]


@dataclass(frozen=True)
class Case:
    decided: Sequence[Row]
    waits: str = ""
    """The products whose values wait, one letter each."""
    active: Sequence[Row] = ()
    newer: Sequence[Row] = ()
    """Published by a later run than ``active``."""
    human: str = ""
    """The products of ``active`` whose value a person gave."""


CASES = {
    "everything fits": Case(THREE),
    "highest scores first": Case(
        [*publish("a", "x", score=0.91), *publish("b", "x", score=0.94), *publish("c", "x", score=0.92),
         *publish("d", "x", score=0.93)], waits="a",
    ),
    "ties by product": Case([*publish("d", "x"), *THREE], waits="d"),
    "a replaced value takes no room": Case(
        [*publish("a", "y", score=0.9), *publish("d", "x")], waits="d", active=THREE
    ),
    "an additional value does": Case(publish("a", "x", "y"), waits="a", active=THREE),
    "only the additional one": Case(publish("a", "x", "y"), active=THREE[:2]),
    "a smaller set makes room": Case(
        [*publish("a", "x"), *publish("d", "x")], active=[*publish("a", "x", "y"), *publish("b", "x")]
    ),
    "never half a set, nor a worse one instead": Case(
        [*publish("a", "x", "y"), *publish("b", "x", "y", score=0.95), *publish("c", "x", score=0.94)], waits="bc"
    ),
    "a set counts by its lowest score": Case(
        [*publish("a", "x"), *publish("a", "y", score=0.9), *publish("b", "x", score=0.95),
         *publish("c", "x", score=0.94)], waits="a",
    ),
    "what is retracted makes room": Case([*abstain("a", "below_threshold"), *publish("d", "x")], active=THREE),
    "content that changed makes room": Case(
        [*abstain("a", "no_certificate", content_hash="content-2"), *publish("d", "x")], active=THREE
    ),
    "what stands makes none": Case([*abstain("a", "no_certificate"), *publish("d", "x")], waits="d", active=THREE),
    "confirmed is exempt": Case(
        [*publish("d", "x", certificate_id="confirmed"), *publish("e", "x", certificate_id="confirmed")], active=THREE
    ),
    "confirmed takes no room": Case(
        [*publish("d", "x"), *publish("e", "x")], waits="e",
        active=[*THREE[:2], *publish("c", "x", certificate_id="confirmed")],
    ),
    "confirmed in place of provisional makes room": Case(
        [*publish("a", "x", certificate_id="confirmed"), *publish("d", "x")], active=THREE
    ),
    "only the newest set counts": Case([*publish("d", "x")], active=THREE[:2], newer=publish("a", "y")),
    "above the cap already": Case(
        [*publish("a", "x"), *publish("e", "x")], waits="e", active=[*THREE, *publish("d", "x")]
    ),
    "people's values take no room": Case(
        [*publish("d", "x"), *publish("e", "x")], waits="e", active=THREE, human="c"
    ),
}  # fmt: skip


def rows_of(name: str, rows: Sequence[Row]) -> list[Row]:
    return [row | {"attribute": name} for row in rows]


def standing_events(spark: SparkSession) -> DataFrame:
    older = [row for name, case in CASES.items() for row in rows_of(name, case.active)]
    newer = [row for name, case in CASES.items() for row in rows_of(name, case.newer)]
    events = [
        row.asDict()
        for step, rows in enumerate([older, newer], start=1)
        for row in ledger.assertions(frame(spark, "predictions", rows), stamp(f"run-{step}", step)).collect()
    ]
    given = [
        row | ({"source": "human"} if row["product_id"] in CASES[row["attribute"]].human else {}) for row in events
    ]
    return frame(spark, "attribute_values", given)


def test_what_waits_under_the_cap(spark: SparkSession) -> None:
    before = [row for name, case in CASES.items() for row in rows_of(name, case.decided)]
    decided, active = frame(spark, "predictions", before), standing_events(spark)
    over = provisional_cap.may_exceed(decided, active, CAP)
    assert {name for name, case in CASES.items() if case.waits} <= set(over)
    assert not {"everything fits", "confirmed is exempt"} & set(over)

    capped = provisional_cap.withhold(decided, active, CAP, over)

    assert capped.columns == contract.columns("predictions")
    after = {(row["attribute"], row["product_id"], row["value"]): row.asDict() for row in capped.collect()}
    assert len(after) == len(before)
    for row in before:
        now = after[row["attribute"], row["product_id"], row["value"]]
        waits = row["decision"] == "publish" and row["product_id"] in CASES[row["attribute"]].waits
        expected = {"decision": "abstain", "reason": "provisional_cap"} if waits else {}
        assert now == dict.fromkeys(now) | row | expected, (row["attribute"], row["product_id"])


def test_values_that_would_not_be_published_stay_as_they_are(spark: SparkSession) -> None:
    mixed = [*publish("a", "x"), *publish("a", "y", score=0.8, decision="suggest", reason="near_miss")]
    decided = frame(spark, "predictions", rows_of("color", mixed))
    capped = provisional_cap.withhold(decided, standing_events(spark), ProvisionalCap(0, frozenset()), ["color"])
    assert {(row["value"], row["reason"]) for row in capped.collect()} == {("x", "provisional_cap"), ("y", "near_miss")}


def test_only_the_attributes_over_the_cap_and_with_new_values_are_withheld_from(spark: SparkSession) -> None:
    decided = frame(spark, "predictions", [*rows_of("color", publish("a", "x")), *rows_of("size", publish("a", "x"))])
    nothing = ProvisionalCap(0, frozenset())
    capped = provisional_cap.withhold(decided, frame(spark, "attribute_values", []), nothing, ["color"])
    assert {(row["attribute"], row["reason"]) for row in capped.collect()} == {
        ("color", "provisional_cap"), ("size", "certified"),
    }  # fmt: skip
    active = ledger.assertions(frame(spark, "predictions", rows_of("color", THREE)), stamp("run-1", 1))
    only_size = decided.where("attribute = 'size'")
    assert provisional_cap.may_exceed(only_size, active, ProvisionalCap(2, frozenset())) == []


WAITING = {
    "best first": ([("a", 1, 0.9), ("b", 1, 0.95), ("c", 1, 0.97), ("d", 1, 0.96)], (), "bcd"),
    "a set too large ends the list": ([("a", 4, 0.95), ("b", 1, 0.9)], (), ""),
    "no room": ([("d", 1, 0.95)], THREE, ""),
    "room of one, sets of two": ([("d", 2, 0.95), ("e", 2, 0.94)], THREE[:2], ""),
    "one more than stands": ([("a", 2, 0.95)], THREE[:2], "a"),
}
"""Waiting products (id, values, score), what stands -> those that there is room for."""


def test_what_waits_and_fits(spark: SparkSession) -> None:
    rows = [(product, name, n, score) for name, (some, *_) in WAITING.items() for product, n, score in some]
    waiting = spark.createDataFrame(rows, "product_id string, attribute string, values int, score double")
    there = [row for name, (_, active, _) in WAITING.items() for row in rows_of(name, active)]
    active = ledger.assertions(frame(spark, "predictions", there), stamp("run-1", 1))
    claims, room = provisional_cap.waiting_claims(waiting, active, CAP)
    assert set(claims.columns) == {"product_id", "attribute", "values", "score", "claim"}
    fits = {(row["attribute"], row["product_id"]) for row in provisional_cap.fitting(claims, room, CAP).collect()}
    assert fits == {(name, product) for name, (*_, products) in WAITING.items() for product in products}


def test_only_confirmed_certificates_of_the_model_are_exempt() -> None:
    confirmed = certificate(status=CertificateStatus.CONFIRMED)
    assert ProvisionalCap.of(5, [certificate(), confirmed]) == ProvisionalCap(5, frozenset({confirmed.certificate_id}))
