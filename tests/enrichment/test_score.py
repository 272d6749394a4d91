"""Scores of earlier runs: taken where everything that gives a score is the same, and nowhere else."""

from __future__ import annotations

import json
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import pytest

from catalog_enrichment.catalog import runs
from catalog_enrichment.catalog.lake import Catalog
from catalog_enrichment.catalog.value_names import Names
from catalog_enrichment.config.catalog import CatalogConfig
from catalog_enrichment.config.schema import Config, MlflowConfig
from catalog_enrichment.enrichment.score import known_scores

from ..catalog.catalog_rows import prediction, run_row
from ..sample_catalog import SampleCatalog, enrich, listing, table
from ..sample_certificate import SCORED_BY

if TYPE_CHECKING:
    from pyspark.sql import SparkSession

CONFIG = Config(
    catalog=CatalogConfig(path="catalog", dictionary="attributes.json"),
    mlflow=MlflowConfig(tracking_uri="sqlite:///m.db"),
)
BOTH = ["color", "material"]
MODEL: Any = SimpleNamespace(
    name="m", version="1", weights_hash="w", preprocessing_hash="p",
    certificates=(SimpleNamespace(compute_type=SCORED_BY.compute_type),), proposer=SimpleNamespace(reads=()), heads={},
)  # fmt: skip


def run(run_id: str, **changes: Any) -> dict[str, Any]:
    certificate = {"weights_hash": "w", "preprocessing_hash": "p"}
    attributes = json.dumps({"certificates": [certificate, certificate]})
    given = {"model_name": "m", "model_version": "1", "attributes": attributes}
    return run_row(run_id, **given | {"config": runs.as_json(CONFIG.without_secrets())} | changes)


def decided(product_id: str, attribute: str, value: str, **changes: Any) -> dict[str, Any]:
    given = {"compute_type": SCORED_BY.compute_type, "attention": 0.5} | changes
    return prediction(product_id, attribute, value, **given)


def of_run(run_id: str, content: str, **changes: Any) -> list[dict[str, Any]]:
    """Two candidates for the material, in the wrong order, and a candidate for the colour."""
    given = {"run_id": run_id, "content_hash": content} | changes
    return [
        decided("old", "material", "Wool", rank=2, score=0.25, **given),
        decided("old", "material", "Cotton", rank=1, score=0.5, evidence="seen in the text", **given),
        decided("old", "color", "Red", score=0.75, **given),
    ]


def known(
    spark: SparkSession, catalog: Catalog, ready: dict[str, tuple[str, list[str]]], model: Any = MODEL
) -> dict[str, Any] | None:
    """Product -> its row; ``ready``: product -> content and pending attributes."""
    schema = "product_id string, content_hash string, pending array<string>"
    frame = spark.createDataFrame([(name, *of) for name, of in ready.items()], schema)
    found = known_scores(catalog, frame, model, CONFIG)
    return None if found is None else {row["product_id"]: row for row in found.collect()}


def test_the_same_content_gets_the_scores_that_it_had(spark: SparkSession, catalog: Catalog) -> None:
    fewer = [decided("older", "color", "Blue", content_hash="a", run_id="run-9", score=0.1)]
    catalog.append_rows("runs", [run("run-1"), run("run-9")], "runs")
    rows = [*of_run("run-1", "a"), *fewer, *of_run("run-1", "n", modality="text_only", image_reason="no_image")]
    catalog.append_rows("predictions", rows, "run-1")
    found = known(spark, catalog, {"new": ("a", BOTH), "no picture": ("n", ["color"]), "other": ("b", BOTH)})
    assert found is not None
    assert set(found) == {"new", "no picture"}
    new, without = found["new"], found["no picture"]
    assert [tuple(candidate) for candidate in new["candidates"]] == [
        ("color", "Red", 1, 0.75, 0.5, None),
        ("material", "Cotton", 1, 0.5, 0.5, "seen in the text"),
        ("material", "Wool", 2, 0.25, 0.5, None),
    ]
    assert (new["modality"], new["compute_type"], new["pending"]) == ("both", SCORED_BY.compute_type, BOTH)
    assert (new["image_reason"], new["error"], new["detail"]) == (None, None, None)
    assert (without["modality"], without["image_reason"]) == ("text_only", "no_image")


def test_scores_that_might_differ_are_not_taken(spark: SparkSession, catalog: Catalog) -> None:
    contents = {
        "picture failed": {"image_reason": "image_missing", "modality": "text_only"},
        "other number type": {"compute_type": "bf16-cpu"},
        "fine": {},
    }
    rows = [row for content, changes in contents.items() for row in of_run("run-1", content, **changes)]
    rows += [decided("old", "color", "Red", run_id="run-1", content_hash="one attribute of two")]
    catalog.append_rows("predictions", rows, "run-1")
    catalog.append_rows("runs", [run("run-1")], "run-1")
    ready = {content: (content, BOTH) for content in (*contents, "one attribute of two")}
    assert set(known(spark, catalog, ready) or {}) == {"fine"}


def test_scores_are_taken_where_all_is_the_same_that_the_proposer_reads(spark: SparkSession, catalog: Catalog) -> None:
    """The category and no category; a product without an answer, which may have one now."""
    in_apparel = of_run("run-1", "a", category="Apparel")
    unanswered = [decided("old", name, "", rank=0, score=0.0, run_id="run-1", content_hash="b") for name in BOTH]
    catalog.append_rows("predictions", [*in_apparel, *unanswered], "run-1")
    catalog.append_rows("runs", [run("run-1")], "run-1")
    model = SimpleNamespace(**vars(MODEL) | {"proposer": SimpleNamespace(reads=("category",))})
    schema = "product_id string, content_hash string, category string, pending array<string>"
    rows = [("same", "a", "Apparel", BOTH), ("other", "a", "Home", BOTH), ("none", "a", None, BOTH)]
    rows.append(("unanswered", "b", None, BOTH))
    found = known_scores(catalog, spark.createDataFrame(rows, schema), model, CONFIG)
    assert found is not None
    assert [row["product_id"] for row in found.collect()] == ["same"]


def test_scores_of_a_version_with_a_renamed_label_are_not_taken(spark: SparkSession, catalog: Catalog) -> None:
    """The table has the new name, and the certificate the label."""
    catalog.append_rows("predictions", of_run("run-1", "a"), "run-1")
    catalog.append_rows("runs", [run("run-1")], "run-1")
    model = SimpleNamespace(**vars(MODEL) | {"heads": {"color": SimpleNamespace(labels=("Red", "Blue"))}})
    catalog.names = Names({("color", "Green"): "Lime"})
    assert known(spark, catalog, {"new": ("a", BOTH)}, model) is not None
    catalog.names = Names({("color", "Blue"): "Navy"})
    assert known(spark, catalog, {"new": ("a", BOTH)}, model) is None


def test_runs_with_other_scores_are_not_read(spark: SparkSession, catalog: Catalog) -> None:
    """None, and not an empty frame: the predictions are not even scanned."""
    images = CONFIG.without_secrets() | {"images": CONFIG.without_secrets()["images"] | {"max_pixels": 1}}
    other = json.dumps({"certificates": [{"weights_hash": "other", "preprocessing_hash": "p"}]})
    rows = [
        run("failed", status="failed"),
        run("import", kind="import"),
        run("other model", model_name="n"),
        run("other weights under this version's number", attributes=other),
        run("no certificates", attributes=json.dumps({"certificates": []})),
        run("other limits of pictures", config=runs.as_json(images)),
    ]
    for row in rows:
        catalog.append_rows("predictions", of_run(row["run_id"], "a"), row["run_id"])
    catalog.append_rows("runs", rows, "runs")
    assert known(spark, catalog, {"new": ("a", BOTH)}) is None
    catalog.append_rows("predictions", of_run("good", "a"), "good")
    catalog.append_rows("runs", [run("good")], "good")
    assert set(known(spark, catalog, {"new": ("a", BOTH)}) or {}) == {"new"}
    catalog.append_rows("predictions", of_run("recertified", "b"), "recertified")
    catalog.append_rows("runs", [run("recertified", model_version="2")], "recertified")
    assert known(spark, catalog, {"new": ("b", BOTH)}), "the same weights under another version's number"
    uncertified = SimpleNamespace(**vars(MODEL) | {"certificates": ()})
    assert known(spark, catalog, {"new": ("a", BOTH)}, uncertified) is None


@pytest.mark.slow
def test_a_copy_of_a_listing_is_decided_without_a_forward_pass(enriched: SampleCatalog) -> None:
    copies = {"p900": 1, "p901": 5}  # the picture of the latter is missing: it is tried again
    feed = [listing(of, product_id=name, shop="another shop") for name, of in copies.items()]
    enriched.feed([*feed, listing(2, title="A new title")])
    enriched.with_settings("source.min_volume_ratio=0").import_products()
    done = enrich(enriched)
    assert (done["predicted"], done["known"]) == (3, 1)
    names = ("content_hash", "attribute", "value", "rank", "score", "attention", "modality", "decision", "reason")

    def rows(product_id: str) -> list[tuple[Any, ...]]:
        found = [row for row in table(enriched, "predictions") if row["product_id"] == product_id]
        return sorted(tuple(row[name] for name in names) for row in found)

    assert rows("p900") == rows("p001")
    assert len(rows("p900")) > 1
    assert {row["run_id"] for row in table(enriched, "predictions") if row["product_id"] in copies} == {done["run_id"]}
