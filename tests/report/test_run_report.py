"""The report of a run: what it collects from the catalog's tables."""

from __future__ import annotations

import json
import re
from collections import Counter
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from catalog_enrichment.catalog.lake import Catalog
from catalog_enrichment.catalog.value_names import Names
from catalog_enrichment.precision.claim import PATHS
from catalog_enrichment.reasons import Reason
from catalog_enrichment.records import Modality, RunKind
from catalog_enrichment.report import run_report

from ..catalog.catalog_rows import frame, prediction, product, run_row
from ..sample_catalog import SampleCatalog, table
from ..sample_certificate import SCORED_BY, abstention, certificate

if TYPE_CHECKING:
    from pyspark.sql import SparkSession


def test_the_report_shows_the_run(enriched: SampleCatalog, run: dict[str, Any]) -> None:
    page = run_report.write_report(enriched.context().catalog, enriched.config, run["run_id"]).read_text()
    assert run["run_id"] in page
    assert "Shirt number" in page
    assert "data:image/jpeg" in page
    assert "<h2>Coverage by category and shop</h2>" in page
    assert "<h2>What merchants should correct</h2>" in page
    [row] = [row for row in table(enriched, "runs") if row["run_id"] == run["run_id"]]
    problems = json.loads(row["attributes"])["shops"]["shops"]
    assert set(problems) == {"shop-0", "shop-1"}
    by_reason = {name: sum(of.get(name, 0) for of in problems.values()) for name in run["unusable_images"]}
    assert by_reason == run["unusable_images"] != {}
    against = [row for row in table(enriched, "predictions") if row["reason"] == "disagrees_with_merchant"]
    drawn = sum(min(2, number) for number in Counter(row["attribute"] for row in against).values())
    assert page.count('<span class="change">replace</span>') == drawn > 0


def test_samples_have_the_evidence_and_the_text_that_may_have_it(
    enriched: SampleCatalog, spark: SparkSession, tmp_path: Path
) -> None:
    catalog = Catalog(tmp_path / "catalog", spark)
    products = [product(name, title=f"Shirt {name}", description=f"Of red wool {name}") for name in "ab"]
    catalog.replace("products", frame(spark, "products", products), "run-1")
    rows = [prediction("a", "color", "Red", evidence="red wool"), prediction("b", "color", "Red")]
    samples = run_report._samples(catalog, frame(spark, "predictions", rows), enriched.config, [])
    found = {of.product_id: (of.evidence, of.description) for of in samples[Reason.CERTIFIED]}
    assert found == {"a": ("red wool", "Of red wool a"), "b": ("", "")}


def test_a_missing_page_is_written_by_the_next_run(
    enriched: SampleCatalog, run: dict[str, Any], tmp_path: Path
) -> None:
    """The job was killed, or the disk was full, when it was to be written."""
    config = replace(enriched.config, report=replace(enriched.config.report, path=str(tmp_path)))
    catalog = enriched.context().catalog
    newest = run_report.runs.newest_of(catalog, RunKind.ENRICH)
    page = run_report.write_report_once(catalog, config, None)
    assert page == tmp_path / f"{newest['run_id']}.html"
    assert run_report.write_report_once(catalog, config, None) is None
    assert run_report.write_report_once(catalog, config, run["run_id"]) == tmp_path / f"{run['run_id']}.html"


def test_the_report_counts_what_was_written_by_path(enriched: SampleCatalog, run: dict[str, Any]) -> None:
    published = [row for row in table(enriched, "predictions") if row["decision"] == "publish"]
    products: dict[str, set[str]] = {}
    for row in published:
        products.setdefault(row["certificate_id"], set()).add(row["product_id"])
    assert products
    path = run_report.write_report(
        enriched.context().catalog, enriched.config, run["run_id"], right=dict.fromkeys(products, 1)
    )
    page = " ".join(re.sub("<[^>]*>", " ", path.read_text()).split())
    for certificate_id, written in products.items():
        attribute = next(row["attribute"] for row in published if row["certificate_id"] == certificate_id)
        modality = next(row["modality"] for row in published if row["certificate_id"] == certificate_id)
        assert f"{attribute} {PATHS[Modality(modality)]} {len(written)} {1 / len(written):.1%}" in page


def test_the_report_shows_the_runs_own_stages_whoever_writes_it(enriched: SampleCatalog, run: dict[str, Any]) -> None:
    page = run_report.write_report(enriched.context().catalog, enriched.config, run["run_id"]).read_text()
    shown = [name for name in ("select", "score", "decide", "publish") if f">{name}<" in page]
    assert shown == ["select", "score", "decide", "publish"]
    assert ">read<" not in page, "a stage of the import"


def test_merchants_values_are_those_of_the_newest_import_that_read_all_rows(tmp_path: Path) -> None:
    catalog = Catalog(tmp_path / "catalog")

    def imported(name: str, day: int, window: dict[str, str] | None) -> None:
        attributes, finished = json.dumps({"import": name}), datetime(2026, 1, day, tzinfo=UTC)
        given = {"attributes": attributes, "finished_at": finished, "window": json.dumps(window) if window else None}
        catalog.append_rows("runs", [run_row(name, kind="import", **given)], name)

    imported("changed", 1, {"read": "changes"})
    assert run_report._imported(catalog, None) == {"import": "changed"}
    imported("plain", 2, None)
    imported("changed again", 3, {"read": "changes"})
    assert run_report._imported(catalog, None) == {"import": "plain"}
    imported("all", 4, {"read": "all"})
    imported("few", 5, {"read": "changes"})
    assert run_report._imported(catalog, None) == {"import": "all"}
    assert run_report._imported(catalog, datetime(2026, 1, 3, tzinfo=UTC)) == {"import": "plain"}


def test_each_product_is_counted_once_by_its_best_value_and_by_who_gave_what_readers_see(
    spark: SparkSession, tmp_path: Path
) -> None:
    catalog = Catalog(tmp_path / "catalog", spark)
    seen = [
        {"product_id": name, "attribute": "color", "values": ["x"], "source": source}
        for name, source in {"a": "model", "d": "merchant", "f": "human"}.items()
    ]
    catalog.replace("current_values", frame(spark, "current_values", seen), "run-1")
    titles = {"a": "has VALUE 2", "b": "value 1 only", "e": "has value 1", "d": "and value 1"}
    described = {"e": "nothing", "h": "of value 1 too"}
    products = [product(name, title=titles.get(name), description=described.get(name)) for name in "abcdefgh"]
    catalog.replace("products", frame(spark, "products", products), "run-1")

    def decided(product: str, decision: str, reason: str, rank: int = 1, **given: Any) -> dict[str, Any]:
        row = prediction(product, "color", f"value {rank}", decision=decision, reason=reason, rank=rank)
        return row | {"compute_type": SCORED_BY.compute_type, "category": "Garden", "language": "en"} | given

    rows = [
        decided("a", "suggest", "near_miss"), decided("a", "publish", "certified", 2),
        decided("b", "abstain", "below_threshold"), decided("b", "suggest", "near_miss", 2),
        decided("c", "abstain", "certificate_mismatch"), decided("c", "abstain", "below_threshold", 2),
        decided("d", "abstain", "no_certificate", modality="text_only"),
        decided("e", "abstain", "no_certificate", modality="text_only"),
        decided("f", "abstain", "unseen_slice"), decided("g", "abstain", "unseen_slice", category=None),
        decided("h", "abstain", "below_threshold", attribute="size"),
    ]  # fmt: skip
    certificates = [certificate(), abstention(modality=Modality.TEXT_ONLY, why_abstains="nine more are needed")]
    run = {
        "attributes": json.dumps({"certificates": [issued.to_dict() for issued in certificates]}),
        "config": json.dumps({"images": {"max_bytes": 5, "max_pixels": SCORED_BY.max_image_pixels}}),
    }

    found = {
        (row.attribute, row.reason): row
        for row in run_report.reason_counts(catalog, frame(spark, "predictions", rows), run)
    }

    assert {key: (row.decision, row.modality, row.products) for key, row in found.items()} == {
        ("color", "certified"): ("publish", "both", 1),
        ("color", "near_miss"): ("suggest", "both", 1),
        ("color", "certificate_mismatch"): ("abstain", "both", 1),
        ("color", "no_certificate"): ("abstain", "text_only", 2),
        ("color", "unseen_slice"): ("abstain", "both", 2),
        ("size", "below_threshold"): ("abstain", "both", 1),
    }
    assert {key[1]: (dict(row.sources), row.named) for key, row in found.items() if key[0] == "color"} == {
        "certified": ({"model": 1}, 1),
        "near_miss": ({"none": 1}, 0),
        "certificate_mismatch": ({"none": 1}, 0),
        "no_certificate": ({"none": 1, "merchant": 1}, 1),
        "unseen_slice": ({"none": 1, "human": 1}, 0),
    }
    assert found["size", "below_threshold"].named == 1, "the description counts as well"
    assert "images.max_bytes (certificate 20000000, run 5); run" in found["color", "certificate_mismatch"].sentence
    assert "nine more are needed" in found["color", "no_certificate"].sentence
    assert "category Garden had no labelled product" in found["color", "unseen_slice"].sentence
    assert "below the certified threshold;" in found["size", "below_threshold"].sentence


def test_the_share_of_accepted_products_without_a_merchants_value(spark: SparkSession) -> None:
    issued, nothing = certificate(), abstention(modality=Modality.TEXT_ONLY)

    def decided(product: str, score: float, value: str = "red", **given: Any) -> dict[str, Any]:
        row = prediction(product, "color", value, score=score, certificate_id=issued.certificate_id)
        return row | {"threshold": issued.threshold} | given

    rows = [
        decided("at the threshold", 0.9), decided("at the threshold", 0.2, "green", rank=2),
        decided("below", 0.89), decided("not in the pool", 0.95, "blue"),
        decided("refused category", 0.95, decision="abstain", reason="unseen_slice"),
        decided("merchant", 0.95), decided("no merchant", 0.1),
        decided("no picture", 0.95, certificate_id=nothing.certificate_id, threshold=None),
    ]  # fmt: skip
    given = {"merchant": {"color": ["red"]}, "no merchant": {"color": [], "size": ["M"]}}
    names = {row["product_id"] for row in rows}
    products = [product(name, merchant_attributes=given.get(name)) for name in names]
    run = {"attributes": json.dumps({"certificates": [issued.to_dict(), nothing.to_dict()]})}
    found = run_report.accept_rates(frame(spark, "predictions", rows), frame(spark, "products", products), run, Names())
    assert found == {issued.certificate_id: 2 / 5}
