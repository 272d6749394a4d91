"""What a promotion changes for readers, row by row and against the run that follows it."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from catalog_enrichment.catalog import ledger
from catalog_enrichment.dictionary import Dictionary
from catalog_enrichment.enrichment import select
from catalog_enrichment.enrichment.request import RunRequest, Window
from catalog_enrichment.operations.promotion_diff import promotion_diff as diff_of_promotion
from catalog_enrichment.operations.promotion_diff import value_changes
from catalog_enrichment.spark.frames import persisted_frames

from ..catalog.catalog_rows import frame, prediction, product, stamp
from ..sample_catalog import PRODUCTS, SampleCatalog, enrich, table, values

if TYPE_CHECKING:
    from pyspark.sql import SparkSession

RED = ["same", "changed", "larger", "gone", "stands", "untouched", "merchant", "opted out", "content back", "not asked"]
"""Products whose colour is Red since the first run."""
NO = {"decision": "abstain", "reason": "below_threshold"}
PLANNED = [
    prediction("same", "color", "Red"),
    prediction("changed", "color", "Blue"),
    *[prediction("larger", "color", value, rank=rank) for rank, value in enumerate(["Red", "Blue"], start=1)],
    *[prediction(name, "color", "Red", **NO) for name in ("gone", "merchant", "opted out", "never had a value")],
    *[prediction(name, "color", "Red", **NO | {"reason": "no_certificate"}) for name in ("stands", "content back")],
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
    active = ledger.ActiveValues(2, ledger.active(earlier[0].unionByName(earlier[1])))
    decided, run = frame(spark, "predictions", PLANNED), stamp("run-3", 3)
    events = ledger.assertions(decided, run).unionByName(
        ledger.retract(ledger.contradicted(active.events, decided), run)
    )

    changes = value_changes(products, active, events, Dictionary({}))

    assert {(row["product_id"], row["attribute"]): tuple(row)[2:] for row in changes.collect()} == {
        ("same", "color"): (["Red"], ["Red"], "unchanged"),
        ("changed", "color"): (["Red"], ["Blue"], "changed"),
        ("larger", "color"): (["Red"], ["Blue", "Red"], "changed"),
        ("content back", "color"): (["Blue"], ["Red"], "changed"),
        ("gone", "color"): (["Red"], None, "retracted"),
        ("new", "color"): (None, ["Red"], "added"),
        ("new", "size"): (None, ["M"], "added"),
    }


def promotion_diff(sample: SampleCatalog, version: str, sampled_products: int = 0) -> dict[str, Any]:
    """Of `promote_model --dry-run`, for a gate that was inconclusive."""
    gate = {"model_name": "m", "model_version": version, "champion_before": "1", "verdict": "inconclusive"}
    gate |= {"reasons": ["recall may be lower"], "comparisons": []}
    model = sample.registry.resolve(version=version)
    return diff_of_promotion(sample.context(), model, gate, sampled_products)


@pytest.mark.slow
def test_the_diff_of_a_promotion_is_what_an_enrichment_then_changes(enriched: SampleCatalog) -> None:
    tables = [table(enriched, name) for name in ("predictions", "attribute_values", "runs")]
    before = values(enriched, "model")
    found = promotion_diff(enriched, "2")
    assert [table(enriched, name) for name in ("predictions", "attribute_values", "runs")] == tables
    assert not list((enriched.config.path("catalog") / "_staging").glob("*/*"))
    assert (found["products"], found["catalog_products"]) == (PRODUCTS, PRODUCTS)

    enriched.promotion.promote("2", expected_current="1")
    enrich(enriched)
    after = values(enriched, "model")
    expected: dict[str, Counter[str]] = {name: Counter() for name in found["attributes"]}
    for key in before.keys() | after.keys():
        old, new = before.get(key), after.get(key)
        kind = "unchanged" if old == new else "added" if old is None else "retracted" if new is None else "changed"
        expected[key[1]][kind] += 1
    counted = {name: {kind: n for kind, n in kinds.items() if n} for name, kinds in found["attributes"].items()}
    assert counted == {name: dict(kinds) for name, kinds in expected.items()}
    assert expected["color"]["changed"]

    page = Path(found["report"]).read_text()
    assert "recall may be lower" in page
    assert page.count("<figure") == sum(kinds.total() - kinds["unchanged"] for kinds in expected.values())
    assert "data:image/jpeg;base64" in page


@pytest.mark.slow
def test_the_diff_of_a_promotion_can_be_of_a_sample(enriched: SampleCatalog) -> None:
    found = promotion_diff(enriched, "2", sampled_products=8)
    assert 0 < found["products"] < found["catalog_products"] == PRODUCTS
    assert sum(sum(kinds.values()) for kinds in found["attributes"].values()) > 0


def test_the_diff_of_a_version_that_has_decided_everything_is_empty(enriched: SampleCatalog) -> None:
    """And it leaves the scores alone that an interrupted run over the same products has stored."""
    context = enriched.context()
    request = RunRequest.of(context.config, context.dictionary, enriched.model(), Window())
    with persisted_frames() as persist:
        state = select.read_ledger(context.catalog)
        run_id = select.select_products(context.catalog, request, state, persist).run_id
    context.catalog.checkpoints.get_or_compute(run_id, "scored", context.spark.range(1))
    assert {sum(kinds.values()) for kinds in promotion_diff(enriched, "1")["attributes"].values()} == {0}
    assert [path.parent.name for path in (enriched.config.path("catalog") / "_staging").glob("*/*")] == [run_id]
