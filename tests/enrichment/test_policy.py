"""What is suppressed, retracted without a decision and resumed: rules about single products, as frames."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import pytest

from catalog_enrichment import contract
from catalog_enrichment.catalog import ledger
from catalog_enrichment.catalog.lake import Catalog
from catalog_enrichment.catalog.switches import Scope, State, Switch, Switches
from catalog_enrichment.config.schema import EnrichConfig
from catalog_enrichment.dictionary import Attribute
from catalog_enrichment.enrichment import policy
from catalog_enrichment.enrichment.request import ProvisionalCap
from catalog_enrichment.precision.certificate import CertificateStatus
from catalog_enrichment.records import Cardinality
from catalog_enrichment.values.kinds import NumberRule

from ..catalog.catalog_rows import START, frame, prediction, stamp
from ..open_words import CLOSED_WORDS, OPEN_WORDS, WIDTH
from ..sample_certificate import certificate

if TYPE_CHECKING:
    from pyspark.sql import DataFrame, SparkSession

Row = dict[str, Any]


# --- suppressed by switches and reviewers ----------------------------------------------------------------------------

ROWS: dict[str, Row] = {
    "red": prediction("red", "color", "Red", category="Apparel/Hats", language="en"),
    "green": prediction("green", "color", "Green", category="Apparel", language="en", modality="text_only"),
    "size": prediction("size", "size", "Red", category="Apparel/Hats", language="en", certificate_id="certificate-2"),
    "home": prediction("home", "color", "Red", category=None, language=None),
    "low": prediction("low", "color", "Red", category="Apparel", decision="abstain", reason="below_threshold"),
    "near": prediction("near", "color", "Red", category="Apparel", decision="suggest", reason="near_miss"),
    "agrees": prediction("agrees", "color", "Red", decision="abstain", reason="agrees_with_merchant"),
    "human": prediction("human", "color", "Red", decision="abstain", reason="human_value_stands"),
    "none": prediction("none", "color", "Red", decision="abstain", reason="no_certificate", certificate_id=None),
}
COLORS = {"red", "green", "home", "low", "near"}


def switch(scope: Scope, target: str = "", attribute: str = "", state: State = State.PAUSED) -> Switch:
    return Switch(scope=scope, target=target, attribute=attribute, state=state, who="a", why="b")


@pytest.mark.parametrize(
    ("moved", "expected"),
    [
        (switch(Scope.ATTRIBUTE, attribute="color"), COLORS),
        (switch(Scope.ATTRIBUTE, attribute="color", state=State.OFF), COLORS),
        (switch(Scope.CATEGORY, "Apparel/Hats"), {"red", "size"}),
        (switch(Scope.CATEGORY, "Apparel/Hat"), set()),
        (switch(Scope.SHOP, "shop-red"), {"red"}),
        (switch(Scope.VALUE, "Red", "color"), {"red", "home", "near"}),
        (switch(Scope.CERTIFICATE, "certificate-2"), {"size"}),
        (switch(Scope.STRATUM, "both/en/Apparel", "color"), {"red"}),
        (switch(Scope.STRATUM, "both//", "color"), {"home"}),
        (switch(Scope.STRATUM, "text_only/en/Apparel", "color"), {"green"}),
        (switch(Scope.STRATUM, "both/en/Apparel", "size"), {"size"}),
    ],
    ids=lambda given: str(given) if isinstance(given, Switch) else "",
)
def test_what_a_switch_pauses(spark: SparkSession, moved: Switch, expected: set[str]) -> None:
    decided = frame(spark, "predictions", ROWS.values())
    scored = spark.createDataFrame([(name, f"shop-{name}") for name in ROWS], "product_id string, shop_id string")
    rows = {
        row["product_id"]: row
        for row in policy.without_paused(decided, scored, Switches((moved,)), CLOSED_WORDS).collect()
    }
    assert list(rows["red"].asDict()) == contract.columns("predictions")
    for name, row in rows.items():
        was = (ROWS[name]["decision"], ROWS[name]["reason"])
        assert (row["decision"], row["reason"]) == (("abstain", "paused") if name in expected else was)


def test_a_refused_value_abstains_where_it_would_be_written_or_suggested(spark: SparkSession) -> None:
    decided = frame(spark, "predictions", ROWS.values())
    refused = {("red", "color", "Red"), ("near", "color", "Red"), ("low", "color", "Red"), ("home", "color", "Green")}
    rows = {row["product_id"]: row for row in policy.without_refused(decided, refused, CLOSED_WORDS).collect()}
    changed = {name for name, row in rows.items() if row["reason"] == "refused_by_person"}
    assert changed == {"red", "near"}
    assert rows["red"]["decision"] == "abstain"
    assert len(rows) == len(ROWS)


OPEN_ROWS = [
    prediction("same text", "width", "109 cm"),
    prediction("other unit", "width", "1.09 m"),
    prediction("within", "width", "109.9 cm"),
    prediction("beyond", "width", "112 cm"),
    prediction("brand", "brand", "HEWLETT PACKARD"),
    prediction("other brand", "brand", "Dell"),
    prediction("color", "color", "109 cm"),
    prediction("none", "width", "", decision="abstain", reason="no_value"),
]
"""Values of numbers and texts."""
SAME_AS_109_CM = {"same text", "other unit", "within"}


def test_a_refused_number_or_text_is_refused_in_every_spelling(spark: SparkSession) -> None:
    decided = frame(spark, "predictions", OPEN_ROWS)
    refused = {(row["product_id"], row["attribute"], "109 cm") for row in OPEN_ROWS if row["attribute"] == "width"}
    refused |= {(name, "brand", "HP") for name in ("brand", "other brand")} | {("color", "color", "1.09 m")}
    rows = policy.without_refused(decided, refused, OPEN_WORDS).collect()
    assert {row["product_id"] for row in rows if row["reason"] == "refused_by_person"} == {*SAME_AS_109_CM, "brand"}
    assert len(rows) == len(OPEN_ROWS)


def test_a_switch_on_a_number_or_text_is_about_every_spelling(spark: SparkSession) -> None:
    decided = frame(spark, "predictions", OPEN_ROWS)
    scored = spark.createDataFrame([], "product_id string, shop_id string")
    now = Switches((switch(Scope.VALUE, "109 cm", "width"), switch(Scope.VALUE, "HP", "brand")))
    rows = policy.without_paused(decided, scored, now, OPEN_WORDS).collect()
    assert {row["product_id"] for row in rows if row["reason"] == "paused"} == {*SAME_AS_109_CM, "brand"}


# --- suppressed by the provisional cap: every case is an attribute of its own, with a cap of 3 -----------------------

CAP = ProvisionalCap(3, frozenset({"confirmed"}))
NO_ROOM = ProvisionalCap(0, frozenset())


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
    """The products whose values wait, a letter each."""
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
    "only the additional value": Case(publish("a", "x", "y"), active=THREE[:2]),
    "a smaller set makes room": Case(
        [*publish("a", "x"), *publish("d", "x")], active=[*publish("a", "x", "y"), *publish("b", "x")]
    ),
    "never half a set, nor a worse set instead": Case(
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
    "an active value makes none": Case([*abstain("a", "no_certificate"), *publish("d", "x")], waits="d", active=THREE),
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


def events_of(spark: SparkSession, *runs: Sequence[Row]) -> list[Row]:
    """The assert events of several runs that published these rows."""
    return [
        row.asDict()
        for step, rows in enumerate(runs, start=1)
        for row in ledger.assertions(frame(spark, "predictions", rows), stamp(f"run-{step}", step)).collect()
    ]


def active_values(spark: SparkSession) -> DataFrame:
    older = [row for name, case in CASES.items() for row in rows_of(name, case.active)]
    newer = [row for name, case in CASES.items() for row in rows_of(name, case.newer)]
    events = events_of(spark, older, newer)
    by_people = [row for row in events if row["product_id"] in CASES[row["attribute"]].human]
    return frame(spark, "attribute_values", [row | ({"source": "human"} if row in by_people else {}) for row in events])


def test_what_waits_under_the_cap(spark: SparkSession) -> None:
    before = [row for name, case in CASES.items() for row in rows_of(name, case.decided)]
    decided, active = frame(spark, "predictions", before), active_values(spark)
    over = policy.over_provisional_cap(decided, ledger.Totals.of(active), CAP)
    assert {name for name, case in CASES.items() if case.waits} <= set(over)
    assert not {"everything fits", "confirmed is exempt"} & set(over)

    capped = policy.suppress_over_cap(decided, active, CAP, over)

    assert capped.columns == contract.columns("predictions")
    after = {(row["attribute"], row["product_id"], row["value"]): row.asDict() for row in capped.collect()}
    assert len(after) == len(before)
    for row in before:
        now = after[row["attribute"], row["product_id"], row["value"]]
        waits = row["decision"] == "publish" and row["product_id"] in CASES[row["attribute"]].waits
        expected = {"decision": "abstain", "reason": "provisional_cap"} if waits else {}
        assert now == dict.fromkeys(now) | row | expected, (row["attribute"], row["product_id"])


def test_only_values_to_publish_of_the_attributes_over_the_cap_wait(spark: SparkSession) -> None:
    mixed = [*publish("a", "x"), *publish("a", "y", score=0.8, decision="suggest", reason="near_miss")]
    decided = frame(spark, "predictions", [*rows_of("color", mixed), *rows_of("size", publish("a", "x"))])
    capped = policy.suppress_over_cap(decided, frame(spark, "attribute_values", []), NO_ROOM, ["color"])
    assert {(row["attribute"], row["value"], row["reason"]) for row in capped.collect()} == {
        ("color", "x", "provisional_cap"), ("color", "y", "near_miss"), ("size", "x", "certified"),
    }  # fmt: skip
    before = ledger.Totals.of(frame(spark, "attribute_values", events_of(spark, rows_of("color", THREE))))
    only_size = decided.where("attribute = 'size'")
    assert policy.over_provisional_cap(only_size, before, ProvisionalCap(2, frozenset())) == []


WAITING = {
    "best first": ([("a", 1, 0.9), ("b", 1, 0.95), ("c", 1, 0.97), ("d", 1, 0.96)], (), "bcd"),
    "a set too large ends the list": ([("a", 4, 0.95), ("b", 1, 0.9)], (), ""),
    "no room": ([("d", 1, 0.95)], THREE, ""),
    "room of 1, sets of 2": ([("d", 2, 0.95), ("e", 2, 0.94)], THREE[:2], ""),
    "a value more than is active": ([("a", 2, 0.95)], THREE[:2], "a"),
}
"""Waiting products (id, values, score), what is active -> the products that there is room for."""


def test_what_waits_and_fits(spark: SparkSession) -> None:
    rows = [(product, name, n, score) for name, (some, *_) in WAITING.items() for product, n, score in some]
    waiting = spark.createDataFrame(rows, "product_id string, attribute string, values int, score double")
    there = [row for name, (_, active, _) in WAITING.items() for row in rows_of(name, active)]
    marked = policy.with_room(waiting, frame(spark, "attribute_values", events_of(spark, there)), CAP)
    assert set(marked.columns) == {"product_id", "attribute", "values", "score", "fits"}
    found = marked.collect()
    assert len(found) == len(rows)
    fits = {(row["attribute"], row["product_id"]) for row in found if row["fits"]}
    assert fits == {(name, product) for name, (*_, products) in WAITING.items() for product in products}


def test_only_confirmed_certificates_of_the_model_are_exempt() -> None:
    confirmed = certificate(status=CertificateStatus.CONFIRMED)
    assert ProvisionalCap.of(5, [certificate(), confirmed]) == ProvisionalCap(5, frozenset({confirmed.certificate_id}))


# --- retracted without a decision ------------------------------------------------------------------------------------

SIZE = Attribute(name="size", cardinality=Cardinality.ONE, values=("M", "Red"))
SHIRT_COLOR = Attribute(
    name="color", cardinality=Cardinality.ONE, values=("Red", "Blue", "Green"), categories=("Apparel",)
)
PRODUCTS: dict[str, Row] = {
    "unchanged": {},
    "no shop or category": {"shop_id": None, "category": None},
    "shop": {"shop_id": "off"},
    "category": {"category": "Apparel/Hats/Caps"},
    "not applicable": {"category": "Home"},
    "changed": {"content_hash": "content-2"},
    "changed, refused": {"content_hash": "content-2", "refused": True},
    "refused": {"refused": True},
}


def active(
    spark: SparkSession, attribute: str = "color", source: str = "model", content: str | None = "content-1"
) -> DataFrame:
    """A value of every product and of a product outside the window."""
    names = [*PRODUCTS, "outside the window"]
    usual = {"attribute": attribute, "source": source, "content_hash": content, "value": "Red", "op": "assert"}
    rows = [usual | {"event_id": name, "product_id": name, "run_id": "run-1", "asserted_at": START} for name in names]
    return frame(spark, "attribute_values", rows)


def retracted(
    spark: SparkSession,
    values: DataFrame,
    *switched: Switch,
    enabled: tuple[Attribute, ...] = (SHIRT_COLOR, SIZE),
) -> dict[str, str]:
    """Product -> reason. The model has a head for the colour and none for the size; the season is switched off."""
    request: Any = SimpleNamespace(
        rules=EnrichConfig(disabled_shops=["off"], disabled_categories=["Apparel/Hats"]),
        enabled=enabled, attributes=enabled[:1], switches=Switches(switched),
    )  # fmt: skip
    usual = {"shop_id": "s", "category": "Apparel", "content_hash": "content-1", "refused": False}
    rows = [(name, *[(usual | given)[column] for column in usual]) for name, given in PRODUCTS.items()]
    columns = "product_id string, shop_id string, category string, content_hash string, refused boolean"
    found = policy.to_retract(values, spark.createDataFrame(rows, columns), request)
    return {row["event_id"]: row["contradiction"] for row in found.collect()}


OFF = dict.fromkeys(("shop", "category"), "switched_off")


def test_what_is_retracted_without_a_decision(spark: SparkSession) -> None:
    of_color = OFF | {"not applicable": "switched_off", "changed, refused": "content_changed"}
    assert retracted(spark, active(spark)) == of_color
    without_head = dict.fromkeys(("changed", "changed, refused"), "content_changed")
    assert retracted(spark, active(spark, "size")) == OFF | without_head
    assert retracted(spark, active(spark, "season")) == dict.fromkeys(PRODUCTS, "switched_off")


def test_a_number_stays_in_another_unit_and_goes_out_of_another_range(spark: SparkSession) -> None:
    metres = replace(WIDTH, number=NumberRule(unit="m", low=0.1, high=3))
    said = {"unchanged": "109 cm", "changed": "400 cm", "refused": "1.09 m", "no shop or category": "2.5 kg"}
    usual = {"attribute": "width", "source": "model", "content_hash": "content-1", "op": "assert", "run_id": "run-1"}
    rows = [
        usual | {"event_id": name, "product_id": name, "value": value, "asserted_at": START}
        for name, value in said.items()
    ]
    values = frame(spark, "attribute_values", rows)
    removed = dict.fromkeys(("changed", "no shop or category"), "value_removed")
    assert retracted(spark, values, enabled=(metres,)) == removed
    off = switch(Scope.VALUE, "1.09 m", "width", State.OFF)
    assert retracted(spark, values, off, enabled=(metres,)) == removed | dict.fromkeys(
        ("unchanged", "refused"), "switched_off"
    )


def test_values_of_people_are_never_retracted(spark: SparkSession) -> None:
    off = switch(Scope.VALUE, "Red", "season", State.OFF)
    assert retracted(spark, active(spark, "season", "human"), off) == {}


def test_a_value_or_certificate_that_is_switched_off_is_retracted(spark: SparkSession) -> None:
    """The set that a switched off value had replaced goes too; under a certificate it is seen again."""
    given = {"attribute": "color", "source": "model", "content_hash": "content-1", "op": "assert"}

    def event(product_id: str, value: str, step: int, certificate_id: str = "c") -> Row:
        facts = {"event_id": f"{product_id} {value}", "product_id": product_id, "value": value}
        when = {"run_id": f"run-{step}", "asserted_at": START + timedelta(minutes=step)}
        return given | facts | when | {"certificate_id": certificate_id}

    rows = [
        event("unchanged", "Blue", 1), event("unchanged", "Red", 2), event("no shop or category", "Blue", 2),
        event("refused", "Blue", 1), event("refused", "Green", 2, "d"), event("outside the window", "Red", 2),
    ]  # fmt: skip
    values = frame(spark, "attribute_values", rows)
    value_off = switch(Scope.VALUE, "Red", "color", State.OFF)
    assert retracted(spark, values, value_off) == {"unchanged Red": "switched_off", "unchanged Blue": "superseded"}
    assert retracted(spark, values, switch(Scope.VALUE, "Red", "color")) == {}, "it is paused only"
    certificate_off = switch(Scope.CERTIFICATE, "d", state=State.OFF)
    assert retracted(spark, values, certificate_off) == {"refused Green": "switched_off"}


def test_a_value_that_the_dictionary_does_not_list_is_retracted_with_the_set_that_it_replaced(
    spark: SparkSession,
) -> None:
    usual = {"attribute": "color", "source": "model", "content_hash": "content-1", "op": "assert"}
    facts = [
        ("unchanged", "Blue", 1, "model"), ("unchanged", "Grey", 2, "model"), ("refused", "Grey", 1, "model"),
        ("refused", "Red", 2, "model"), ("shop", "Grey", 2, "model"), ("no shop or category", "Grey", 1, "human"),
        ("outside the window", "Grey", 1, "model"),
    ]  # fmt: skip
    rows = [
        usual | {"event_id": f"{product} {value}", "product_id": product, "value": value, "source": source,
                 "run_id": f"run-{step}", "asserted_at": START + timedelta(minutes=step)}
        for product, value, step, source in facts
    ]  # fmt: skip
    values = frame(spark, "attribute_values", rows)
    removed = {"unchanged Grey": "value_removed", "unchanged Blue": "superseded", "refused Grey": "value_removed"}
    assert retracted(spark, values) == removed | {"shop Grey": "switched_off"}


def test_new_content_that_this_run_could_not_score_retracts_the_old_value(spark: SparkSession) -> None:
    """Also a value of unknown content."""
    failed = "scoring_failed"
    rows = [("changed", "content-2", failed), ("unchanged", "content-1", failed), ("shop", "c", None)]
    scored = spark.createDataFrame(rows, "product_id string, content_hash string, error string")
    changed = [("changed", "content_changed")]
    for source, content, expected in (
        ("model", "content-1", changed), ("model", None, [*changed, ("unchanged", "content_changed")]),
        ("human", "content-1", []),
    ):  # fmt: skip
        found = policy.of_refused(active(spark, source=source, content=content), scored).collect()
        assert sorted((row["product_id"], row["contradiction"]) for row in found) == expected


# --- resumed ---------------------------------------------------------------------------------------------------------

NOW = datetime.now(UTC)
VALID = certificate(issued_at=NOW, expires_at=NOW + timedelta(days=1))
EXPIRED = replace(VALID, attribute="size", expires_at=NOW - timedelta(seconds=1))
ROOM = ProvisionalCap(10, frozenset())


def landed(product_id: str, by: Any, **given: Any) -> Row:
    return prediction(product_id, "color", "Red", certificate_id=by.certificate_id, **given)


def resumes(spark: SparkSession, catalog: Catalog, cap: ProvisionalCap = ROOM, others: str = "") -> bool:
    """``others``: products that have an active value of another run."""
    rows = frame(spark, "predictions", [prediction(name, "color", "Blue") for name in others])
    request: Any = SimpleNamespace(model=SimpleNamespace(certificates=[VALID, EXPIRED]), cap=cap)
    state = ledger.LedgerState(0, ledger.assertions(rows, stamp("run-0", 0)))
    return policy.may_resume(catalog, request, state, frame(spark, "attribute_values", []), "run-1")


def test_a_run_that_has_landed_nothing_or_committed_may_resume(spark: SparkSession, catalog: Catalog) -> None:
    assert policy.landed_decisions(catalog, "run-1") is None
    assert resumes(spark, catalog)
    catalog.append_rows("predictions", [landed("a", EXPIRED)], "run-1")
    assert not resumes(spark, catalog)
    event = {"event_id": "1", "op": "assert", "product_id": "a", "attribute": "color", "value": "Red"}
    known = {"source": "model", "run_id": "run-1", "asserted_at": START}
    catalog.append_rows("attribute_values", [event | known], "run-1")
    assert resumes(spark, catalog)


def test_only_values_to_publish_under_an_expired_certificate_keep_a_run_from_resuming(
    spark: SparkSession, catalog: Catalog
) -> None:
    rows = [landed("a", VALID), landed("b", EXPIRED, decision="abstain", reason="below_threshold")]
    catalog.append_rows("predictions", rows, "run-1")
    catalog.append_rows("predictions", [landed("c", EXPIRED, run_id="run-2")], "run-2")
    assert resumes(spark, catalog)


@pytest.mark.slow
def test_a_run_for_whose_values_there_is_no_room_any_more_does_not_resume(
    spark: SparkSession, catalog: Catalog
) -> None:
    unseen = landed("c", VALID, decision="abstain", reason="unseen_slice")
    catalog.append_rows("predictions", [landed("a", VALID), landed("b", VALID, score=0.95), unseen], "run-1")
    two = ProvisionalCap(2, frozenset())
    assert resumes(spark, catalog, two)
    assert resumes(spark, catalog, two, others="ab")  # they replace what is there
    assert not resumes(spark, catalog, two, others="xy")
    assert not resumes(spark, catalog, ProvisionalCap(1, frozenset()))
