"""What waits under the provisional cap: listed as waiting, and pending only for another reason."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from catalog_enrichment.catalog.lake import LakeCatalog
from catalog_enrichment.enrichment.pending import DecisionScope, with_pending

from ..catalog.catalog_rows import frame, product
from .test_pending import COLOR, CONFIG_HASH, SLICE, decided, finished, later, model

if TYPE_CHECKING:
    from pyspark.sql import SparkSession


def capped(product_id: str, run: str = "run-1", **given: Any) -> dict[str, Any]:
    return decided(product_id, **({"reason": "provisional_cap", "run": run} | given))


def test_what_waits_and_with_which_score(spark: SparkSession, tmp_path: Path) -> None:
    predictions = [
        capped("one"),
        capped("two", score=0.95), capped("two", value="Blue", rank=2, score=0.91),
        capped("two", value="Green", rank=3, score=0.2, reason="below_threshold"),
        capped("earlier", score=0.5), capped("earlier", value="Blue", rank=2, score=0.4),
        capped("earlier", "run-2", score=0.8),
        capped("published since"), decided("published since", "certified", "run-2"),
        capped("merchant"),
        capped("not applicable", category="Home"),
        capped("other content", content_hash="content-0"),
        capped("other certificate", certificate_id="other"),
        capped("rolled back", "run-3"),
        decided("published and rolled back", "certified", "run-3"),
    ]  # fmt: skip
    runs = [finished(f"run-{n}", later(n)) for n in (1, 2, 3)]
    undo = finished("undo", later(4), parent_run_id="run-3", window='{"attribute": null}') | {"kind": "rollback"}
    catalog = LakeCatalog(tmp_path / "catalog", spark)
    catalog.append_rows("predictions", predictions, "test")
    catalog.append_rows("runs", [*runs, undo], "test")
    given = {"merchant": {"color": ["Red"]}}
    names = {row["product_id"] for row in predictions} - {"not applicable"} | {"new"}
    products = [SLICE | product(name, merchant_attributes=given.get(name)) for name in names]
    products += [SLICE | product("not applicable", category="Home")]
    of_apparel = replace(COLOR, categories=("Apparel",))

    found = with_pending(
        catalog, frame(spark, "products", products), DecisionScope([of_apparel], model("1"), CONFIG_HASH)
    )

    rows = {row["product_id"]: row for row in found.select("product_id", "pending", "waiting").collect()}
    waiting = {name: [tuple(one) for one in row["waiting"]] for name, row in rows.items() if row["waiting"]}
    assert waiting == {
        "one": [("color", 1, 0.99)], "two": [("color", 2, 0.91)], "earlier": [("color", 1, 0.8)]
    }  # fmt: skip
    pending = {name for name, row in rows.items() if row["pending"]}
    assert pending == {"new", "other content", "other certificate"}
