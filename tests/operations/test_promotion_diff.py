"""What a promotion changes for readers; :mod:`tests.enrichment.test_pipeline` compares the whole diff with a run."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from catalog_enrichment.catalog import ledger
from catalog_enrichment.operations.promotion_diff import value_changes

from ..catalog.catalog_rows import frame, prediction, product, stamp

if TYPE_CHECKING:
    from pyspark.sql import SparkSession

RED = ["same", "changed", "larger", "gone", "stands", "untouched", "merchant", "opted out", "content back", "not asked"]
"""Products whose colour is Red since the first run."""
NO = {"decision": "abstain", "reason": "below_threshold"}
PLANNED = [
    prediction("same", "color", "Red"),
    prediction("changed", "color", "Blue"),
    *[prediction("larger", "color", value, rank=rank) for rank, value in enumerate(["Red", "Blue"], start=1)],
    *[prediction(name, "color", "Red", **NO) for name in ("gone", "merchant", "opted out", "never had one")],
    *[
        prediction(name, "color", "Red", decision="abstain", reason="no_certificate")
        for name in ("stands", "content back")
    ],
    prediction("new", "color", "Red"),
    prediction("new", "size", "M"),
    prediction("not asked", "color", "Blue"),
]


def test_kinds_of_changes(spark: SparkSession) -> None:
    given: dict[str, dict[str, Any]] = {
        "merchant": {"merchant_attributes": {"color": ["Green"]}}, "opted out": {"opt_out": True}
    }  # fmt: skip
    names = {*RED, *(row["product_id"] for row in PLANNED)} - {"not asked"}
    products = frame(spark, "products", [product(name, **given.get(name, {})) for name in names])
    written = [prediction(name, "color", "Red") for name in RED]
    on_other_content = [prediction("content back", "color", "Blue", content_hash="content-2")]
    earlier = [
        ledger.assertions(frame(spark, "predictions", rows), stamp(f"run-{step}", step))
        for step, rows in enumerate([written, on_other_content], start=1)
    ]
    standing = ledger.StandingValues(2, ledger.active(earlier[0].unionByName(earlier[1])))
    decided, run = frame(spark, "predictions", PLANNED), stamp("run-3", 3)
    events = ledger.assertions(decided, run).unionByName(ledger.retractions(standing.events, decided, run))

    changes = value_changes(products, standing, events)

    assert {(row["product_id"], row["attribute"]): tuple(row)[2:] for row in changes.collect()} == {
        ("same", "color"): (["Red"], ["Red"], "unchanged"),
        ("changed", "color"): (["Red"], ["Blue"], "changed"),
        ("larger", "color"): (["Red"], ["Blue", "Red"], "changed"),
        ("content back", "color"): (["Blue"], ["Red"], "changed"),
        ("gone", "color"): (["Red"], None, "retracted"),
        ("new", "color"): (None, ["Red"], "added"),
        ("new", "size"): (None, ["M"], "added"),
    }
