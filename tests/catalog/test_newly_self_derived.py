"""Which merchant values repeat what was written or suggested here."""

from __future__ import annotations

from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any

from catalog_enrichment import contract
from catalog_enrichment.catalog.lake import LakeCatalog
from catalog_enrichment.catalog.self_derived import newly_adopted

from .catalog_rows import START, prediction, product, run_row

if TYPE_CHECKING:
    from pyspark.sql import DataFrame, SparkSession


def event(product_id: str, value: str, run_id: str, hours: int = 0, **given: Any) -> dict[str, Any]:
    usual = {"event_id": f"{product_id}/{value}/{run_id}", "attribute": "color", "op": "assert", "source": "model"}
    at = START + timedelta(hours=hours)
    return usual | {"product_id": product_id, "value": value, "run_id": run_id, "asserted_at": at} | given


def test_a_value_is_adopted_if_a_model_wrote_it_or_suggested_it_before_the_merchant_gave_it(
    spark: SparkSession, tmp_path: Path
) -> None:
    catalog = LakeCatalog(tmp_path / "catalog", spark)
    stored = {"stored": ["Red"], "kept": ["Blue"], "marked": ["Red"]}
    catalog.append_rows(
        "products", [product(name, merchant_attributes={"color": values}) for name, values in stored.items()], "import"
    )
    events = [
        event("stored", "Red", "run-1"),
        event("twice", "Red", "run-2", hours=2), event("twice", "Red", "run-1", hours=1),
        event("of a person", "Red", "audit-1", source="human"),
        event("retracted only", "Red", "run-1", op="retract"),
        event("other value", "Green", "run-1"),
        event("other attribute", "Red", "run-1", attribute="size"),
        event("marked", "Red", "run-1"),
    ]  # fmt: skip
    catalog.append_rows("attribute_values", events, "runs")
    suggest = {"decision": "suggest", "run_id": "run-3"}
    catalog.append_rows("predictions", [
        prediction("kept", "color", "Blue", **suggest),
        prediction("taken up", "color", "Green", **suggest),
        prediction("abstained", "color", "Green", run_id="run-3", decision="abstain"),
        prediction("unfinished", "color", "Green", decision="suggest", run_id="killed"),
    ], "run-3")  # fmt: skip
    catalog.append_rows("runs", [run_row("run-3", attempt=1)], "run-3")
    given = {"kept": ["Blue"], "taken up": ["Green", "Pink"], "abstained": ["Green"], "unfinished": ["Green"]}
    given |= {name: ["Red"] for name in ("twice", "of a person", "retracted only", "other value", "other attribute")}
    imported = [(name, {"color": values}) for name, values in given.items()]
    frame = spark.createDataFrame(imported, "product_id string, merchant_attributes map<string, array<string>>")

    written = {("twice", "color", "Red", "run-1"), ("taken up", "color", "Green", "run-3")}
    before_the_table = {(name, "color", "Red", "run-1") for name in ("stored", "marked")}

    found = newly_adopted(catalog, frame, START)
    assert found.columns == contract.columns("self_derived")
    assert values_and_runs(found) == written | before_the_table
    assert {row["adopted_at"].timestamp() for row in found.collect()} == {START.timestamp()}

    mark = {"product_id": "twice", "attribute": "color", "value": "Red", "run_id": "run-1", "adopted_at": START}
    catalog.append_rows("self_derived", [mark], "import")
    assert values_and_runs(newly_adopted(catalog, frame, START)) == written - {("twice", "color", "Red", "run-1")}


def values_and_runs(found: DataFrame) -> set[tuple[str, str, str, str]]:
    rows = found.collect()
    assert len(rows) == len({(row["product_id"], row["attribute"], row["value"]) for row in rows})
    return {(row["product_id"], row["attribute"], row["value"], row["run_id"]) for row in rows}
