"""The populations of samples, and the probability and order of their rows."""

from __future__ import annotations

from collections import Counter
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

from catalog_enrichment.audit import draws
from catalog_enrichment.audit.draws import DrawRequest, draw_products, draw_values
from catalog_enrichment.catalog import ledger
from catalog_enrichment.catalog.lake import Catalog
from catalog_enrichment.dictionary import Attribute, Dictionary
from catalog_enrichment.records import Cardinality

from ..catalog import catalog_rows
from ..catalog.catalog_rows import prediction, product, run_row, stamp

if TYPE_CHECKING:
    from pyspark.sql import DataFrame, SparkSession

WORDS = Dictionary(
    {
        "color": Attribute(name="color", cardinality=Cardinality.ONE, values=("red", "blue")),
        "material": Attribute(name="material", cardinality=Cardinality.MANY, values=("wool", "silk")),
    }
)


def test_the_newest_proposals_of_a_version_for_products_without_a_value(tmp_path: Path, spark: SparkSession) -> None:
    catalog = Catalog(tmp_path / "catalog", spark)
    ids = ("plain", "changed", "opted_out", "of_merchant", "of_person", "judged", "again", "low", "suppressed")
    given = {
        "changed": {"content_hash": "content-2"},
        "opted_out": {"opt_out": True},
        "of_merchant": {"merchant_attributes": {"color": ["blue"]}},
    }
    catalog.append_rows("products", [product(name, **given.get(name, {})) for name in ids], "import")
    runs = [run_row(f"run-{n}", attempt=1, finished_at=catalog_rows.START + timedelta(hours=n)) for n in (1, 2, 3)]
    catalog.append_rows("runs", [*runs, run_row("refused", attempt=1, status="refused")], "runs")
    no_certificate = {"decision": "abstain", "reason": "no_certificate", "certificate_id": None, "threshold": None}
    rows = [
        *(prediction(name, "color", "red", score=0.9) for name in ids if name not in ("low", "suppressed")),
        prediction("plain", "color", "blue", rank=2, score=0.8),
        prediction("plain", "material", "wool", score=0.7),
        prediction("plain", "material", "silk", rank=2, score=0.6),
        prediction("plain", "material", "cotton", rank=3, score=0.4),
        prediction("again", "color", "blue", score=0.55, run_id="run-2"),
        prediction("again", "color", "red", score=0.99, run_id="refused"),
        prediction("low", "color", "red", score=0.49),
        prediction("suppressed", "color", "red", score=0.5, **no_certificate),
        prediction("plain", "color", "blue", score=0.95, model_version="2", run_id="run-3"),
    ]
    catalog.append_rows("predictions", rows, "predictions")
    person = {"product_id": "of_person", "content_hash": "content-1"}
    events = ledger.human_assertions(person, "color", ["blue"], stamp("set_value-1", 5))
    catalog.append_rows("attribute_values", events, "events")
    catalog.refresh_current_values("catch-up")

    found = draws.proposed(catalog, WORDS, "1", 0.5, {("judged", "color")}).collect()
    assert {(row["product_id"], row["attribute"], row["value"], row["decided_by"]) for row in found} == {
        ("plain", "color", "red", "run-1"),
        ("plain", "material", "wool", "run-1"),
        ("plain", "material", "silk", "run-1"),
        ("again", "color", "blue", "run-2"),
        ("suppressed", "color", "red", "run-1"),
    }
    assert len(found) == 5
    (suppressed,) = (row for row in found if row["product_id"] == "suppressed")
    assert (suppressed["certificate_id"], suppressed["threshold"], suppressed["model_version"]) == (None, None, "1")
    assert draws.versions(catalog, ["color"]) == ["1", "2"]
    assert draws.versions(catalog, ["material"]) == ["1"]


ROWS = 1200
COLUMNS = (
    "product_id string, attribute string, value string, content_hash string, score double, threshold double, "
    "certificate_id string, modality string, model_version string, event_id string, decided_by string, reason string"
)


def values(spark: SparkSession) -> DataFrame:
    """Return 1,200 colours, a tenth of them Rare; scores grow with the number: the first 20% are near the threshold."""
    rows = [
        (f"p{n:04d}", "color", "Rare" if n % 10 == 0 else f"Common {n % 3}", "c", 0.9 + n / 20_000, 0.9, f"c{n % 2}",
         "both", "1", f"e{n}", "run-1", "certified")
        for n in range(ROWS)
    ]  # fmt: skip
    return spark.createDataFrame(rows, COLUMNS)


def request(**given: Any) -> DrawRequest:
    usual = {"uniform": 120, "near": 40, "near_share": 0.2, "reviewers": 2}
    return DrawRequest(**usual | given)


@pytest.fixture(scope="module")
def samples(spark: SparkSession) -> list[list[Any]]:
    """Return the rows drawn with 12 seeds."""
    population = values(spark).cache()
    return [draw_values(population, request(seed=seed)).collect() for seed in range(12)]


def test_the_uniform_stratum_has_every_value_in_its_share(samples: list[list[Any]]) -> None:
    for rows in samples:
        of_values = Counter(row["value"] for row in rows if row["stratum"] == "uniform")
        assert sum(of_values.values()) == 120
        assert abs(of_values["Rare"] - 12) <= 1
        assert all(abs(of_values[f"Common {n}"] - 36) <= 1 for n in range(3))


def test_further_rows_are_near_the_threshold_and_of_every_value(samples: list[list[Any]]) -> None:
    for rows in samples:
        near = [row for row in rows if row["stratum"] == "near_threshold"]
        assert Counter(row["value"] for row in near) == {"Rare": 10, **{f"Common {n}": 10 for n in range(3)}}
        assert max(int(row["product_id"][1:]) for row in near) <= 0.2 * ROWS
        assert len({row["product_id"] for row in rows}) == len(rows)


def test_the_stored_probability_is_how_often_a_row_is_drawn(samples: list[list[Any]]) -> None:
    """Rows that count by the inverse of their probability add up to the population, and so do those of a kind."""
    for of_kind, expected in {
        "all": ROWS, "rare": 120, "near": 240, "far": 960, "near and rare": 24,
    }.items():  # fmt: skip
        totals = [
            sum(
                1 / row["probability"]
                for row in rows
                if ("rare" not in of_kind or row["value"] == "Rare")
                and ("near" not in of_kind or int(row["product_id"][1:]) < 240)
                and (of_kind != "far" or int(row["product_id"][1:]) >= 240)
            )
            for rows in samples
        ]
        spread = float(np.std(totals, ddof=1)) / np.sqrt(len(totals))
        assert np.mean(totals) == pytest.approx(expected, abs=3.5 * spread + 0.01 * expected), of_kind
    uniform_far = {row["probability"] for row in samples[0] if int(row["product_id"][1:]) > 241}
    assert uniform_far == {0.1}


def test_whole_products_bring_the_other_values_of_what_is_drawn_uniformly(spark: SparkSession) -> None:
    rows = [
        (f"p{n:03d}", "material", f"value {k}", "c", 0.9 + n / 5000 + k / 10_000, 0.9, "c0", "both", "1", f"e{n}-{k}",
         "run-1", "certified")
        for n in range(200)
        for k in range(1 + n % 3)
    ]  # fmt: skip
    population = spark.createDataFrame(rows, COLUMNS).cache()
    plain = draw_values(population, request(uniform=60, near=20)).collect()
    whole = draw_values(population, request(uniform=60, near=20, whole_products=True)).collect()

    def of(drawn: list[Any], *strata: str) -> set[tuple[str, str]]:
        return {(row["product_id"], row["value"]) for row in drawn if row["stratum"] in strata}

    assert of(whole, "uniform", "near_threshold") == of(plain, "uniform", "near_threshold")
    assert {row["stratum"] for row in plain} == {"uniform", "near_threshold"}
    products = {product for product, _ in of(whole, "uniform")}
    everything = {(row[0], row[2]) for row in rows if row[0] in products}
    assert of(whole, "same_product") == everything - of(plain, "uniform", "near_threshold") != set()
    assert len(whole) == len({(row["product_id"], row["value"]) for row in whole})


def test_weights_are_relative_to_the_attribute_and_certificate(samples: list[list[Any]]) -> None:
    row = samples[0][0]
    assert row["population"] == ROWS / 2
    mean_weights = [np.mean([row["weight"] for row in rows if row["certificate_id"] == "c0"]) for rows in samples]
    assert np.mean(mean_weights) == pytest.approx(1.0, abs=0.05)
    assert all(row["weight"] <= row["highest_weight"] + 1e-12 for rows in samples for row in rows)
    for certificate in ("c0", "c1"):
        of_it = [row for row in samples[0] if row["certificate_id"] == certificate]
        assert max(row["weight"] for row in of_it) == pytest.approx(of_it[0]["highest_weight"])


def test_the_order_mixes_the_strata_and_another_seed_draws_others(samples: list[list[Any]]) -> None:
    rows = sorted(samples[0], key=lambda row: int(row["draw_order"]))
    assert [row["draw_order"] for row in rows] == list(range(len(rows)))
    first_half = sum(row["stratum"] == "uniform" for row in rows[:80])
    assert 45 <= first_half <= 75
    ids = [frozenset(row["product_id"] for row in rows) for rows in samples]
    assert len(set(ids)) == len(samples)


def test_a_small_population_is_drawn_whole(spark: SparkSession) -> None:
    rows = draw_values(values(spark).where("product_id < 'p0050'"), request()).collect()
    assert len(rows) == 50
    assert {row["probability"] for row in rows} == {1.0}
    assert {row["stratum"] for row in rows} == {"uniform"}


def test_products_are_drawn_uniformly_with_all_their_rows(spark: SparkSession) -> None:
    rows = [(f"p{n:03d}", "color", f"v{k}", 0.5 + k / 10) for n in range(200) for k in range(1 + n % 3)]
    frame = spark.createDataFrame(rows, "product_id string, attribute string, value string, score double").cache()
    seen: Counter[str] = Counter()
    for seed in range(8):
        products = draw_products(frame, 50, f"seed {seed}")
        assert len(products) == 50
        for of_product in products:
            product = of_product[0]["product_id"]
            seen[product] += 1
            number = int(product[1:])
            assert [row["value"] for row in of_product] == [f"v{k}" for k in reversed(range(1 + number % 3))]
            assert {(row["product_id"], row["probability"], row["population"]) for row in of_product} == {
                (product, 0.25, 200)
            }
        numbers = [int(of_product[0]["product_id"][1:]) for of_product in products]
        assert np.corrcoef(numbers, range(50))[0, 1] == pytest.approx(0, abs=0.5), "the order is random"
    numbers = [number for product, count in seen.items() for number in [int(product[1:])] * count]
    assert np.mean(numbers) == pytest.approx(99.5, abs=4 * 200 / np.sqrt(12 * len(numbers)))
    assert max(seen.values()) <= 7
