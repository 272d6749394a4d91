"""Which products a run takes, what stops it before it scores, and what reading costs."""

from __future__ import annotations

import shutil
from pathlib import Path
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import pytest

from catalog_enrichment import contract
from catalog_enrichment.catalog.lake import LakeCatalog
from catalog_enrichment.config.schema import EnrichConfig
from catalog_enrichment.enrichment import select
from catalog_enrichment.enrichment.provisional_cap import ProvisionalCap
from catalog_enrichment.enrichment.request import RunRequest, Window
from catalog_enrichment.errors import DataContractError, ModelContractError
from catalog_enrichment.spark.frames import persisted_frames

from ..sample_catalog import SampleCatalog, enrich, table

if TYPE_CHECKING:
    from pyspark.sql import SparkSession


@pytest.mark.slow
def test_max_products_takes_the_newest_and_says_what_remains(sample: SampleCatalog) -> None:
    run = enrich(sample, Window(max_products=5))
    assert (run["predicted"], run["remaining"]) == (5, 18)
    assert {row["product_id"] for row in table(sample, "predictions")} == {f"p{n:03d}" for n in range(19, 24)}
    assert enrich(sample, Window(max_products=5))["remaining"] == 13


def test_switching_off_shops_and_categories_takes_effect_at_the_next_run(sample: SampleCatalog) -> None:
    run = enrich(sample.with_settings("enrich.disabled_shops=['shop-1']", "enrich.disabled_categories=['Home']"))
    assert run["skipped_reasons"] == {"not_applicable": 2, "opted_out": 1, "shop_disabled": 12}
    assert {int(row["product_id"][1:]) % 2 for row in table(sample, "predictions")} == {0}


def test_values_wait_until_there_is_room_and_the_best_come_first(spark: SparkSession) -> None:
    """The status of three products without a value yet, whose colours wait under a cap of 2 or 0."""
    columns = """product_id string, status string, pending array<string>,
        waiting array<struct<attribute string, values int, score double>>, applicable array<string>,
        category string, shop_id string, opt_out boolean, refused boolean"""
    usual = (["color", "size"], "Apparel", "shop", False, False)
    rows = [
        ("a", "already_scored", [], [("color", 1, 0.91)], *usual),
        ("b", "ready", ["size"], [("color", 1, 0.99)], *usual),
        ("c", "already_scored", [], [("color", 1, 0.95)], *usual),
        ("d", "ready", ["size"], [], *usual),
    ]
    status = spark.createDataFrame(rows, columns)
    none = spark.createDataFrame([], contract.spark_schema("attribute_values"))

    def opened(limit: int) -> tuple[dict[str, tuple[str, list[str]]], dict[str, int]]:
        request: Any = SimpleNamespace(cap=ProvisionalCap(limit, frozenset()), rules=EnrichConfig())
        with persisted_frames() as persist:
            after, waiting = select._open_where_room(status, none, request, persist)
            return {row["product_id"]: (row["status"], row["pending"]) for row in after.collect()}, waiting

    found, waiting = opened(2)
    assert found == {
        "a": ("already_scored", []),
        "b": ("ready", ["color", "size"]),
        "c": ("ready", ["color"]),
        "d": ("ready", ["size"]),
    }
    assert waiting == {"color": 1}
    found, waiting = opened(0)
    assert (found["b"], found["c"]) == (("ready", ["size"]), ("already_scored", []))
    assert waiting == {"color": 3}


def test_an_empty_catalog_has_nothing_to_enrich(sample: SampleCatalog) -> None:
    shutil.rmtree(sample.folder / "catalog")
    assert enrich(sample)["status"] == "nothing_to_do"


def test_a_catalog_that_fails_its_snapshot_gate_stops_the_run(sample: SampleCatalog, tmp_path: Path) -> None:
    suite = sample.folder / "suite.json"
    suite.write_text(
        '{"name": "strict", "expectations": [{"type": "expect_column_values_to_not_be_null", '
        '"kwargs": {"column": "description"}}, {"type": "expect_column_values_to_be_in_set", '
        '"kwargs": {"column": "category", "value_set": ["Toys"]}}]}'
    )
    with pytest.raises(DataContractError, match="category"):
        enrich(sample.with_settings("enrich.snapshot_suite=suite.json"))
    assert not table(sample, "predictions")
    assert [row["status"] for row in table(sample, "runs") if row["kind"] == "enrich"] == ["failed"]


def test_a_model_of_another_dictionary_is_refused(sample: SampleCatalog) -> None:
    text = (sample.folder / "attributes.json").read_text().replace('"Blue"', '"Navy"')
    (sample.folder / "attributes.json").write_text(text)
    with pytest.raises(ModelContractError, match="Blue"):
        sample.registry.check_labels(sample.model(), sample.context().dictionary)


def test_a_run_opens_the_ledger_once_for_its_decisions(sample: SampleCatalog, monkeypatch: pytest.MonkeyPatch) -> None:
    reads: list[str] = []
    read = LakeCatalog.read

    def counted_read(catalog: LakeCatalog, name: str, *rest: Any, **named: Any) -> Any:
        reads.append(name)
        return read(catalog, name, *rest, **named)

    monkeypatch.setattr(LakeCatalog, "read", counted_read)
    done = enrich(sample)
    assert done["attributes"]["color"]["written"] > 0
    others = "for what was withdrawn without a decision, and for what readers see after the commit"
    assert reads.count("attribute_values") == 3, others


def shuffles_of_pictures(node: Any, joined: bool = False) -> tuple[int, int]:
    """Shuffles of a physical plan that carry pictures: above its join, and below it. Cached frames are left out."""
    if node.nodeName() == "AdaptiveSparkPlan":
        node = node.initialPlan()
    columns = {node.output().apply(index).name() for index in range(node.output().size())}
    carries = node.nodeName() == "Exchange" and "images" in columns
    counts = [(carries and not joined, carries and joined)]
    joined = joined or "Join" in node.nodeName()
    children = node.children()
    counts += [shuffles_of_pictures(children.apply(index), joined) for index in range(children.size())]
    return sum(above for above, _ in counts), sum(below for _, below in counts)


@pytest.mark.parametrize(
    ("broadcast_keys", "setting", "partitions"), [(1000, "2", 4), (1000, "8", 4), (0, "2", 4), (0, "8", 8)]
)
def test_pictures_are_shuffled_once_on_their_way_to_the_model(
    sample: SampleCatalog, monkeypatch: pytest.MonkeyPatch, broadcast_keys: int, setting: str, partitions: int
) -> None:
    """Where the keys can be broadcast, the shuffle is above the join: only pictures of products to score take part."""
    monkeypatch.setattr(select, "FEW_PRODUCTS", broadcast_keys)
    context = sample.context()
    before = context.spark.conf.get("spark.sql.shuffle.partitions")
    context.spark.conf.set("spark.sql.shuffle.partitions", setting)
    try:
        request = RunRequest.of(sample.config, context.dictionary, sample.model(), Window())
        with persisted_frames() as persist:
            state = select.read_ledger(context.catalog)
            products = select.select_products(context.catalog, request, state, persist).products
            above, below = shuffles_of_pictures(products._jdf.queryExecution().executedPlan())
            assert products.rdd.getNumPartitions() == partitions
    finally:
        context.spark.conf.set("spark.sql.shuffle.partitions", before)
    assert (above, below) == ((1, 0) if broadcast_keys else (0, 1))
