"""Decisions that a switch or a reviewer forbids, row by row."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from catalog_enrichment import contract
from catalog_enrichment.catalog.switches import Scope, State, Switch, Switches
from catalog_enrichment.enrichment import withheld

from ..catalog.catalog_rows import frame, prediction

if TYPE_CHECKING:
    from pyspark.sql import SparkSession

Row = dict[str, Any]

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
    rows = {row["product_id"]: row for row in withheld.paused(decided, scored, Switches((moved,))).collect()}
    assert list(rows["red"].asDict()) == contract.columns("predictions")
    paused = {name for name, row in rows.items() if row["reason"] == "paused"}
    assert paused == expected
    for name, row in rows.items():
        was = (ROWS[name]["decision"], ROWS[name]["reason"])
        assert (row["decision"], row["reason"]) == (("abstain", "paused") if name in expected else was)


def test_a_refused_value_abstains_where_it_would_be_written_or_suggested(spark: SparkSession) -> None:
    decided = frame(spark, "predictions", ROWS.values())
    refused = {("red", "color", "Red"), ("near", "color", "Red"), ("low", "color", "Red"), ("home", "color", "Green")}
    rows = {row["product_id"]: row for row in withheld.without_refused(decided, refused).collect()}
    changed = {name for name, row in rows.items() if row["reason"] == "refused_by_person"}
    assert changed == {"red", "near"}
    assert rows["red"]["decision"] == "abstain"
    assert len(rows) == len(ROWS)
