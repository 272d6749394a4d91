"""What is empty and why, in the whole catalog: the newest decision about each product counts."""

from __future__ import annotations

from datetime import timedelta
from typing import TYPE_CHECKING, Any

import pytest

from catalog_enrichment.catalog import ledger
from catalog_enrichment.catalog.lake import Catalog
from catalog_enrichment.config.schema import EnrichConfig
from catalog_enrichment.dictionary import Attribute, Dictionary
from catalog_enrichment.errors import ConfigError
from catalog_enrichment.operations.empty_values import as_table, empty_values
from catalog_enrichment.records import Cardinality

from ..catalog.catalog_rows import START, event, frame, prediction, product, run_row

if TYPE_CHECKING:
    from pyspark.sql import SparkSession

DICTIONARY = Dictionary(
    {
        "color": Attribute(name="color", cardinality=Cardinality.ONE, values=("Red", "Blue")),
        "size": Attribute(name="size", cardinality=Cardinality.ONE, values=("S",), categories=("Shoes",)),
        "off": Attribute(name="off", cardinality=Cardinality.ONE, values=("S",), enabled=False),
    }
)


RULES = EnrichConfig(disabled_shops=["closed"])


def decided(run: int, name: str, reason: str, decision: str = "abstain", **given: Any) -> dict[str, Any]:
    return prediction(name, "color", "Red", run_id=f"run-{run}", reason=reason, decision=decision, **given)


@pytest.fixture(scope="module")
def catalog(spark: SparkSession, tmp_path_factory: pytest.TempPathFactory) -> Catalog:
    lake = Catalog(tmp_path_factory.mktemp("empty") / "catalog", spark)
    shops = dict.fromkeys("abc", "corner") | {"i": "closed"}
    categories = {"a": "Shoes/Boots", "b": "Hats"}
    products = [product(name, shop_id=shops.get(name), category=categories.get(name, "Hats")) for name in "abcdefghij"]
    products[6] |= {"opt_out": True}
    lake.replace("products", frame(spark, "products", products), "import-1")
    rows = [
        *[decided(1, name, "no_certificate") for name in "abcd"],
        decided(2, "b", "below_threshold"),
        decided(2, "b", "near_miss", "suggest", rank=2),
        decided(2, "c", "certified", "publish"),
        decided(2, "d", "certified", "publish"),
        decided(3, "a", "paused"),  # the run failed
        decided(2, "g", "below_threshold"),
    ]
    lake.append("predictions", frame(spark, "predictions", rows), "runs")
    ended = [{"attempt": 1, "finished_at": START + timedelta(hours=number)} for number in range(4)]
    statuses = {1: "succeeded", 2: "succeeded", 3: "failed"}
    lake.append_rows("runs", [run_row(f"run-{n}", **ended[n], status=status) for n, status in statuses.items()], "runs")
    failed = {"stage": "decode", "reason": "scoring_failed", "run_id": "run-2", "quarantined_at": START}
    lake.append_rows("quarantine", [failed | {"product_id": "h", "content_hash": "content-1"}], "run-2")
    none = event(1, product_id="j", attribute="color", value=ledger.NO_VALUE, source="human", run_id="set_value-1")
    lake.append_rows("attribute_values", [none], "set_value-1")
    seen = [{"product_id": "d", "attribute": "color", "values": ["Red"], "source": "model"}]
    lake.replace("current_values", frame(spark, "current_values", seen), "run-2")
    return lake


def test_products_without_any_value_are_counted_by_their_newest_decision(catalog: Catalog) -> None:
    found = empty_values(catalog, DICTIONARY, RULES)
    assert [(row["attribute"], row["reason"], row["products"]) for row in found] == [
        ("color", "never_decided", 2),
        ("color", "already_quarantined", 1),
        ("color", "near_miss", 1),
        ("color", "no_certificate", 1),
        ("color", "opted_out", 1),
        ("color", "removed_by_person", 1),
        ("color", "switched_off_now", 1),
        ("color", "taken_back", 1),
        ("size", "never_decided", 1),
    ]
    assert "just below the certified threshold" in found[2]["why"]
    assert [row["attribute"] for row in empty_values(catalog, DICTIONARY, RULES, ["size"])] == ["size"]
    by_shop = empty_values(catalog, DICTIONARY, RULES, ["color"], by="shop")
    assert {(row["shop"], row["reason"]): row["products"] for row in by_shop} == {
        ("", "never_decided"): 2, ("", "opted_out"): 1, ("corner", "near_miss"): 1, ("corner", "no_certificate"): 1,
        ("corner", "taken_back"): 1, ("", "already_quarantined"): 1, ("", "removed_by_person"): 1,
        ("closed", "switched_off_now"): 1,
    }  # fmt: skip
    lines = as_table(by_shop).splitlines()
    assert " ".join(lines[0].split()) == "attribute shop products reason why, and what would change it"
    assert "never decided" in lines[2]
    with pytest.raises(ConfigError, match=r"no attribute \['off'\]: it has \['color', 'size'\]"):
        empty_values(catalog, DICTIONARY, RULES, ["off"])


def test_an_empty_table_has_its_headings() -> None:
    assert len(as_table([]).splitlines()) == 2
