"""What is drawn, with which probability, and in which order."""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

from catalog_enrichment.audit.sampling import DrawRequest, Population, _why_nothing, draw
from catalog_enrichment.catalog.switches import Scope, State, Switch, Switches
from catalog_enrichment.errors import ConfigError, DataContractError

from ..sample_catalog import SampleCatalog, enrich, table
from .reviewers import drawn, items_of

if TYPE_CHECKING:
    from pyspark.sql import DataFrame, SparkSession

ROWS = 1200
COLUMNS = (
    "product_id string, attribute string, value string, content_hash string, score double, threshold double, "
    "certificate_id string, modality string, model_version string, event_id string, decided_by string, reason string"
)


def values(spark: SparkSession) -> DataFrame:
    """1,200 colours, a tenth of them Rare; the score grows with the number: the first 20% are near the threshold."""
    rows = [
        (
            f"p{n:04d}",
            "color",
            "Rare" if n % 10 == 0 else f"Common {n % 3}",
            "c",
            0.9 + n / 20_000,
            0.9,
            f"c{n % 2}",
            "both",
            "1",
            f"e{n}",
            "run-1",
            "certified",
        )
        for n in range(ROWS)
    ]
    return spark.createDataFrame(rows, COLUMNS)


def request(**given: Any) -> DrawRequest:
    usual = {"uniform": 120, "near": 40, "near_share": 0.2, "reviewers": 2}
    return DrawRequest(**usual | given)


@pytest.fixture(scope="module")
def samples(spark: SparkSession) -> list[list[Any]]:
    """The rows drawn with 12 seeds."""
    population = values(spark).cache()
    return [draw(population, request(seed=seed)).collect() for seed in range(12)]


def test_the_uniform_stratum_has_every_value_in_its_share(samples: list[list[Any]]) -> None:
    for rows in samples:
        of_values = Counter(row["value"] for row in rows if row["stratum"] == "uniform")
        assert sum(of_values.values()) == 120
        assert abs(of_values["Rare"] - 12) <= 1
        assert all(abs(of_values[f"Common {n}"] - 36) <= 1 for n in range(3))


def test_the_uniform_stratum_is_uniform(samples: list[list[Any]]) -> None:
    """The mean number of the rows drawn, and how often the same one is drawn by other seeds."""
    numbers = [int(row["product_id"][1:]) for rows in samples for row in rows if row["stratum"] == "uniform"]
    assert np.mean(numbers) == pytest.approx((ROWS - 1) / 2, abs=4 * ROWS / np.sqrt(12 * len(numbers)))
    assert max(Counter(numbers).values()) <= 7


def test_further_rows_are_near_the_threshold_and_of_every_value(samples: list[list[Any]]) -> None:
    for rows in samples:
        near = [row for row in rows if row["stratum"] == "near_threshold"]
        assert Counter(row["value"] for row in near) == {"Rare": 10, **{f"Common {n}": 10 for n in range(3)}}
        assert max(int(row["product_id"][1:]) for row in near) <= 0.2 * ROWS
        assert len({row["product_id"] for row in rows}) == len(rows)


def test_the_stored_probability_is_how_often_a_row_is_drawn(samples: list[list[Any]]) -> None:
    """Rows that count by the inverse of their probability come to the population, and so do those of one kind."""
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
    plain = draw(population, request(uniform=60, near=20)).collect()
    whole = draw(population, request(uniform=60, near=20, whole_products=True)).collect()

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
    rows = draw(values(spark).where("product_id < 'p0050'"), request()).collect()
    assert len(rows) == 50
    assert {row["probability"] for row in rows} == {1.0}
    assert {row["stratum"] for row in rows} == {"uniform"}


def test_a_sample_is_in_the_table_and_in_the_review_store(enriched: SampleCatalog) -> None:
    visible = [row for row in table(enriched, "current_values") if row["source"] == "model"]
    summary = drawn(enriched, uniform=5, near=2)
    rows = sorted(table(enriched, "audits"), key=lambda row: row["draw_order"])
    items = items_of(enriched, summary["sample_id"])
    assert [item.item_id for item in items] == [row["item_id"] for row in rows]
    assert summary["drawn"]["color.uniform"] == 5
    assert summary["items"] == len(rows) == sum(summary["drawn"].values())
    seen = {(row["product_id"], row["attribute"]): set(row["values"]) for row in visible}
    assert all(row["value"] in seen[row["product_id"], row["attribute"]] for row in rows)
    events = {row["event_id"]: row for row in table(enriched, "attribute_values")}
    for row in rows:
        event = events[row["event_id"]]
        assert (event["product_id"], event["value"], event["score"]) == (row["product_id"], row["value"], row["score"])
        assert event["certificate_id"] == row["certificate_id"]
    assert items[0].title.startswith("Shirt number")
    assert items[0].images[0][0].endswith(".jpg")
    assert not {"score", "threshold", "stratum"} & set(items[0].__dataclass_fields__)


def test_i5_the_same_request_on_the_same_catalog_is_the_same_sample(enriched: SampleCatalog) -> None:
    first = drawn(enriched, uniform=5, near=2)
    again = drawn(enriched, uniform=5, near=2)
    assert (first["status"], again["status"]) == ("succeeded", "nothing_to_do")
    assert again["sample_id"] == first["sample_id"]
    assert len(table(enriched, "audits")) == first["items"]
    assert drawn(enriched, uniform=5, near=2, seed=1)["sample_id"] != first["sample_id"]


@pytest.mark.slow
def test_suggestions_and_abstentions_are_drawn_for_labels(sample: SampleCatalog) -> None:
    from ..sample_catalog import register

    version = register(sample, sample.folder / "scratch", seed=5, thresholds={"color": 0.9999, "material": None})
    sample.registry.promote(version, expected_current="1")
    enrich(sample)
    with pytest.raises(DataContractError, match="no accepted values"):
        drawn(sample)
    with pytest.raises(DataContractError, match="no suggestions"):
        drawn(sample, population=Population.SUGGESTIONS)
    summary = drawn(sample, population=Population.ABSTENTIONS, uniform=4)
    items = items_of(sample, summary["sample_id"])
    assert summary["drawn"] == {"color.uniform": 4}
    assert {item.value for item in items} == {""}
    assert {row["purpose"] for row in table(sample, "audits")} == {"label"}


def test_an_unknown_attribute_is_refused_before_anything_is_read(enriched: SampleCatalog) -> None:
    with pytest.raises(ConfigError, match="'size'"):
        drawn(enriched, attributes=("size",))
    with pytest.raises(ConfigError, match="--uniform"):
        drawn(enriched, uniform=0)


@pytest.mark.slow
def test_only_what_a_run_wrote(enriched: SampleCatalog, run: dict[str, Any]) -> None:
    assert drawn(enriched, run_id=run["run_id"], attributes=("color",))["items"] > 0
    with pytest.raises(DataContractError, match="accepted"):
        drawn(enriched, run_id="enrich-other")


def test_where_there_is_nothing_to_draw_it_says_why() -> None:
    usual: dict[str, Any] = {"state": State.OFF, "who": "ann", "why": "what it had allowed was taken back"}
    entries = (
        Switch(scope=Scope.CERTIFICATE, target="c1", **usual),
        Switch(scope=Scope.ATTRIBUTE, attribute="size", **usual),
    )
    why = _why_nothing(request(run_id="run-7"), ("color",), Switches(entries))
    assert why.startswith("readers see no value of them that a model wrote by run run-7. What was taken back")
    assert "certificate c1 is off: what it had allowed was taken back" in why
    assert "size" not in why
    assert "open" in _why_nothing(request(population=Population.SUGGESTIONS), ("color",), Switches())
    assert "too low" in _why_nothing(request(population=Population.ABSTENTIONS), ("color",), Switches())
