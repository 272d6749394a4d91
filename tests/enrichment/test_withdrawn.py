"""Values that are retracted without a decision (PRECISION, "One version at a time"): rules, and whole runs."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from catalog_enrichment.catalog.lake import LakeCatalog
from catalog_enrichment.config.schema import EnrichConfig
from catalog_enrichment.dictionary import Attribute
from catalog_enrichment.enrichment import publish
from catalog_enrichment.enrichment.withdrawn import of_refused, withdrawn
from catalog_enrichment.operations import rollback
from catalog_enrichment.records import Cardinality

from ..catalog.catalog_rows import frame, product
from ..clock import set_back
from ..sample_catalog import SampleCatalog, enrich, killed_at, table, values
from .test_pending import COLOR, LONG_AGO, decided, finished, later, pending

if TYPE_CHECKING:
    from pyspark.sql import SparkSession

SIZE = Attribute(name="size", cardinality=Cardinality.ONE, values=("M",))
SHIRT_COLOR = replace(COLOR, categories=("Apparel",))
RULES = EnrichConfig(disabled_shops=["off"], disabled_categories=["Apparel/Hats"])
PRODUCTS: dict[str, dict[str, Any]] = {
    "unchanged": {},
    "no shop or category": {"shop_id": None, "category": None},
    "shop": {"shop_id": "off"},
    "category": {"category": "Apparel/Hats/Caps"},
    "not applicable": {"category": "Home"},
    "changed": {"content_hash": "content-2"},
    "changed, refused": {"content_hash": "content-2", "refused": True},
    "refused": {"refused": True},
    "opted out": {"opt_out": True},
}


def active(spark: SparkSession, attribute: str = "color", source: str = "model") -> Any:
    """A value of every product and of one outside the window, decided on the first content."""
    names = [*PRODUCTS, "outside the window"]
    rows = [
        {"event_id": name, "product_id": name, "attribute": attribute, "source": source, "content_hash": "content-1"}
        | {"value": "Red", "op": "assert", "run_id": "run-1"}
        for name in names
    ]
    names = ["event_id", "product_id", "attribute", "value", "op", "source", "content_hash", "run_id"]
    return spark.createDataFrame([tuple(row[name] for name in names) for row in rows], names)


def retracted(spark: SparkSession, attribute: str = "color", source: str = "model") -> dict[str, str]:
    """Product -> reason. The model has a head for the colour and none for the size; the season is switched off."""
    usual = {"shop_id": "s", "category": "Apparel", "content_hash": "content-1", "refused": False}
    rows = [(name, *[(usual | given)[column] for column in usual]) for name, given in PRODUCTS.items()]
    columns = "product_id string, shop_id string, category string, content_hash string, refused boolean"
    products = spark.createDataFrame(rows, columns)
    found = withdrawn(active(spark, attribute, source), products, RULES, [SHIRT_COLOR, SIZE], [SHIRT_COLOR])
    return {row["product_id"]: row["contradiction"] for row in found.collect()}


OFF = dict.fromkeys(("shop", "category"), "switched_off")


def test_what_is_retracted_without_a_decision(spark: SparkSession) -> None:
    assert retracted(spark) == OFF | {"not applicable": "switched_off", "changed, refused": "content_changed"}
    without_head = dict.fromkeys(("changed", "changed, refused"), "content_changed")
    assert retracted(spark, "size") == OFF | without_head
    assert retracted(spark, "season") == dict.fromkeys(PRODUCTS, "switched_off")


def test_values_of_people_are_never_retracted(spark: SparkSession) -> None:
    assert retracted(spark, "season", "human") == {}


def test_new_content_that_this_run_could_not_score_retracts_the_old_value(spark: SparkSession) -> None:
    rows = [
        ("changed", "content-2", "scoring_failed"),
        ("unchanged", "content-1", "scoring_failed"),
        ("shop", "c", None),
    ]
    scored = spark.createDataFrame(rows, "product_id string, content_hash string, error string")
    for source, expected in (("model", [("changed", "content_changed")]), ("human", [])):
        found = of_refused(active(spark, source=source), scored).collect()
        assert [(row["product_id"], row["contradiction"]) for row in found] == expected


def test_a_value_of_unknown_content_goes_with_content_that_cannot_be_scored(spark: SparkSession) -> None:
    from pyspark.sql import functions as F

    unknown = active(spark).withColumn("content_hash", F.lit(None).cast("string"))
    schema = "product_id string, content_hash string, error string"
    scored = spark.createDataFrame([("changed", "content-2", "scoring_failed")], schema)
    assert [row["product_id"] for row in of_refused(unknown, scored).collect()] == ["changed"]


def test_what_was_withdrawn_since_its_decision_is_pending(spark: SparkSession, tmp_path: Path) -> None:
    undo = finished("undo", later(9), parent_run_id="off-2", window='{"attribute": null}')
    undo_first = finished("undo-1", later(9), parent_run_id="run-0", window='{"attribute": null}')
    runs = [
        finished("run-0", later(1)),
        finished("run-1", later(1)),
        *[finished(f"off-{n}", later(2)) for n in (1, 2)],
        finished("run-3", later(3)),
        undo | {"kind": "rollback"},
        undo_first | {"kind": "rollback"},
    ]
    cases = {
        "switched off": ("run-1", "off-1", "switched_off", None),
        "refused content": ("run-1", "off-1", "content_changed", None),
        "superseded": ("run-1", "off-1", "superseded", None),
        "by a rollback": ("run-1", "off-1", "switched_off", "event"),
        "rolled back": ("run-1", "off-2", "switched_off", None),
        "never finished": ("run-1", "killed", "switched_off", None),
        "decided since": ("run-3", "off-1", "switched_off", None),
        "with a decision": ("run-3", "run-3", "content_changed", None),
        "taken back by a person": ("run-0", "off-1", "switched_off", None),
    }
    predictions = [decided(name, "certified", run) for name, (run, *_) in cases.items()]
    events = [
        {"event_id": name, "product_id": name, "attribute": "color", "value": "Red", "op": "retract", "run_id": run}
        | {"reason": reason, "undoes": undoes, "source": "model", "asserted_at": LONG_AGO}
        for name, (_, run, reason, undoes) in cases.items()
    ]
    catalog = LakeCatalog(tmp_path / "catalog", spark)
    catalog.append("attribute_values", frame(spark, "attribute_values", events), "test")
    products = [product(name) for name in cases]
    found = pending(spark, tmp_path, predictions, runs, products)
    assert found == {"switched off", "refused content"}


def switch(sample: SampleCatalog, attribute: str, enabled: bool) -> None:
    file = sample.folder / "attributes.json"
    on, off = f'"name": "{attribute}",', f'"name": "{attribute}", "enabled": false,'
    file.write_text(file.read_text().replace(*((off, on) if enabled else (on, off))))


@pytest.mark.slow
def test_an_attribute_that_is_switched_off_is_hidden_until_it_is_switched_on_again_i5_i6(
    enriched: SampleCatalog,
) -> None:
    before = values(enriched, "model")
    others = {key: value for key, value in before.items() if key[1] != "color"}
    switch(enriched, "color", enabled=False)
    with killed_at(LakeCatalog, "refresh_current_values", unless_label="catch-up"):
        enrich(enriched)
    run = enrich(enriched)
    assert (run["status"], run["predicted"]) == ("succeeded", 0)
    assert run["attributes"]["color"]["retracted"] == len(before) - len(others) > 0
    assert values(enriched, "model") == others
    retractions = [row for row in table(enriched, "attribute_values") if row["op"] == "retract"]
    assert {(row["run_id"], row["reason"]) for row in retractions} == {(run["run_id"], "switched_off")}
    assert enrich(enriched)["status"] == "nothing_to_do"

    undone = rollback.rollback_run(enriched.context().catalog, run["run_id"])
    assert values(enriched, "model") == before
    rollback.rollback_run(enriched.context().catalog, undone["run_id"])
    assert values(enriched, "model") == others

    switch(enriched, "color", enabled=True)
    again = enrich(enriched)
    assert set(again["attributes"]) == {"color"}
    assert values(enriched, "model") == before


@pytest.mark.slow
def test_a_shop_that_is_switched_off_again_after_a_rollback(enriched: SampleCatalog) -> None:
    """The switch counts more than the rollback; the second run is another one, although it sees the same values."""
    before = values(enriched, "model")
    off = enriched.with_settings("enrich.disabled_shops=['shop-1']")
    first = enrich(off)
    hidden = {key for key in before if int(key[0][1:]) % 2}
    assert values(off, "model").keys() == before.keys() - hidden
    rollback.rollback_run(off.context().catalog, first["run_id"])
    assert values(off, "model") == before
    second = enrich(off)
    assert second["run_id"] != first["run_id"]
    assert values(off, "model").keys() == before.keys() - hidden


@pytest.mark.slow
def test_a_certificate_that_expires_while_a_run_lies_dead_publishes_nothing_i2(
    sample: SampleCatalog, monkeypatch: pytest.MonkeyPatch
) -> None:
    with killed_at(publish, "publish"):
        enrich(sample)
    landed = {row["run_id"] for row in table(sample, "predictions")}
    set_back(monkeypatch, -95)
    resumed = enrich(sample)
    assert resumed["run_id"] not in landed
    assert not table(sample, "attribute_values")
    decisions = [row for row in table(sample, "predictions") if row["run_id"] == resumed["run_id"]]
    assert {row["decision"] for row in decisions} == {"abstain"}
    assert "certificate_expired" in {row["reason"] for row in decisions}
    assert enrich(sample)["status"] == "nothing_to_do"
