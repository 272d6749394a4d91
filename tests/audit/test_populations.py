"""Which proposals of a model version a sample is drawn of, on rows made for it."""

from __future__ import annotations

from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING

from catalog_enrichment.audit import populations
from catalog_enrichment.catalog import ledger
from catalog_enrichment.catalog.lake import LakeCatalog
from catalog_enrichment.dictionary import Attribute, Dictionary
from catalog_enrichment.records import Cardinality

from ..catalog.catalog_rows import START, prediction, product, run_row, stamp

if TYPE_CHECKING:
    from pyspark.sql import SparkSession

WORDS = Dictionary(
    {
        "color": Attribute(name="color", cardinality=Cardinality.ONE, values=("red", "blue")),
        "material": Attribute(name="material", cardinality=Cardinality.MANY, values=("wool", "silk")),
    }
)


def test_the_newest_proposals_of_a_version_for_products_that_nobody_gave_a_value(
    tmp_path: Path, spark: SparkSession
) -> None:
    catalog = LakeCatalog(tmp_path / "catalog", spark)
    ids = ("plain", "changed", "opted_out", "of_merchant", "of_person", "judged", "again", "low", "withheld")
    given = {
        "changed": {"content_hash": "content-2"},
        "opted_out": {"opt_out": True},
        "of_merchant": {"merchant_attributes": {"color": ["blue"]}},
    }
    catalog.append_rows("products", [product(one, **given.get(one, {})) for one in ids], "import")
    runs = [run_row(f"run-{n}", attempt=1, finished_at=START + timedelta(hours=n)) for n in (1, 2, 3)]
    catalog.append_rows("runs", [*runs, run_row("refused", attempt=1, status="refused")], "runs")
    no_certificate = {"decision": "abstain", "reason": "no_certificate", "certificate_id": None, "threshold": None}
    rows = [
        *(prediction(one, "color", "red", score=0.9) for one in ids if one not in ("low", "withheld")),
        prediction("plain", "color", "blue", rank=2, score=0.8),
        prediction("plain", "material", "wool", score=0.7),
        prediction("plain", "material", "silk", rank=2, score=0.6),
        prediction("plain", "material", "cotton", rank=3, score=0.4),
        prediction("again", "color", "blue", score=0.55, run_id="run-2"),
        prediction("again", "color", "red", score=0.99, run_id="refused"),
        prediction("low", "color", "red", score=0.49),
        prediction("withheld", "color", "red", score=0.5, **no_certificate),
        prediction("plain", "color", "blue", score=0.95, model_version="2", run_id="run-3"),
    ]
    catalog.append_rows("predictions", rows, "predictions")
    person = {"product_id": "of_person", "content_hash": "content-1"}
    events = ledger.human_assertions(person, "color", ["blue"], stamp("set_value-1", 5))
    catalog.append_rows("attribute_values", events, "events")
    catalog.refresh_current_values("catch-up")

    found = populations.proposed(catalog, WORDS, "1", 0.5, {("judged", "color")}).collect()
    assert {(row["product_id"], row["attribute"], row["value"], row["decided_by"]) for row in found} == {
        ("plain", "color", "red", "run-1"),
        ("plain", "material", "wool", "run-1"),
        ("plain", "material", "silk", "run-1"),
        ("again", "color", "blue", "run-2"),
        ("withheld", "color", "red", "run-1"),
    }
    assert len(found) == 5
    (withheld,) = (row for row in found if row["product_id"] == "withheld")
    assert (withheld["certificate_id"], withheld["threshold"], withheld["model_version"]) == (None, None, "1")
    assert populations.versions(catalog, ["color"]) == ["1", "2"]
    assert populations.versions(catalog, ["material"]) == ["1"]
