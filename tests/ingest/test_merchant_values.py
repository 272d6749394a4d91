"""I1: merchant values become canonical values; values that the dictionary lacks are kept as they are."""

from __future__ import annotations

import random
from dataclasses import replace
from decimal import Decimal
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from catalog_enrichment.config.source import MappingConfig, SourceConfig
from catalog_enrichment.dictionary import Attribute, Dictionary, Spellings
from catalog_enrichment.errors import ConfigError
from catalog_enrichment.ingest import merchant_values
from catalog_enrichment.ingest.merchant_values import (
    check_attributes,
    count_merchant_values,
    normalise_attributes,
    normalised,
)
from catalog_enrichment.records import Cardinality
from catalog_enrichment.validation import by_shop
from catalog_enrichment.values.kinds import NumberRule

from ..open_words import OPEN_WORDS, WIDTH
from .read_source import read_source

if TYPE_CHECKING:
    from pyspark.sql import SparkSession

COLOR = Attribute(
    name="color",
    cardinality=Cardinality.ONE,
    values=("Grey", "Navy Blue"),
    aliases={"en": {"gray": "Grey", "navy": "Navy Blue"}, "de": {"grau": "Grey"}},
)
DICTIONARY = Dictionary({"color": COLOR})
ROWS = [
    ("en", {"color": ["GRAY", " navy-blue "], "brand": ["Corvo"]}),
    ("de", {"color": ["Grau", "see picture", "grey"]}),
    (None, {"color": ["Grey\0"]}),
    ("en", {}),
    ("en", None),
]


def test_i1_values_are_normalised_and_values_without_a_canonical_one_are_kept(spark: Any) -> None:
    frame = spark.createDataFrame(ROWS, "language string, merchant_attributes map<string, array<string>>")
    normalised = normalise_attributes(frame, DICTIONARY)
    assert [row.merchant_attributes for row in normalised.collect()] == [
        {"color": ["Grey", "Navy Blue"], "brand": ["Corvo"]},
        {"color": ["Grey", "see picture"]},
        {"color": ["Grey"]},
        {},
        None,
    ]


def test_merchant_values_are_counted_and_the_most_frequent_that_are_not_canonical_are_kept(
    spark: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(merchant_values, "MOST_UNMAPPED", 3)
    rows = [
        ("en", "s1", {"color": ["Grey", "Navy Blue", "see picture"], "brand": ["Corvo"]}),
        ("de", "s1", {"color": ["Grey", "see picture", "rot"]}),
        ("de", None, {"color": ["see picture", "z"]}),
        (None, "s2", {"color": ["rot", "a" * 101, "y"]}),
        ("en", "s3", {"color": ["Grey"]}),
        ("en", "s3", None),
    ]
    frame = spark.createDataFrame(
        rows, "language string, shop_id string, merchant_attributes map<string, array<string>>"
    )
    refused = spark.createDataFrame(
        [(None, "missing_id"), ("s4", "empty_title"), ("s2", "empty_title")], "shop_id string, problem string"
    )
    found = count_merchant_values(frame, DICTIONARY, refused)
    assert found["merchant_values"] == {"brand": {"mapped": 0, "unmapped": 1}, "color": {"mapped": 4, "unmapped": 8}}
    assert found["unmapped_value"] == {
        "brand": [["Corvo", "en", 1]],
        "color": [["see picture", "de", 3], ["rot", "", 2], ["y", "", 1]],
    }
    shops = {
        "s1": {"unmapped_value.brand": 1, "unmapped_value.color": 3},
        "s2": {"unmapped_value.color": 3, "empty_title": 1},
        "": {"unmapped_value.color": 2, "missing_id": 1},
        "s4": {"empty_title": 1},
    }
    assert found["shops"] == {"shops": shops, "others": {"shops": 0, "problems": {}}}
    monkeypatch.setattr(by_shop, "LIMIT", 2)
    monkeypatch.setattr(merchant_values, "MOST_UNMAPPED", 1)
    few = count_merchant_values(frame, DICTIONARY, refused)
    assert few["merchant_values"] == found["merchant_values"]
    assert few["unmapped_value"] == {name: values[:1] for name, values in found["unmapped_value"].items()}
    assert few["shops"] == {
        "shops": {shop: shops[shop] for shop in ("s1", "s2")},
        "others": {"shops": 2, "problems": {"empty_title": 1, "missing_id": 1, "unmapped_value.color": 2}},
    }


def test_numbers_are_read_by_the_mark_of_their_column_or_the_language() -> None:
    text = "1.299 m"
    for marks, language, value in (
        ({}, "en", "129.9 cm"),
        ({}, "de", text),  # 1299 m is not plausible
        ({"width": "."}, "de", "129.9 cm"),
        ({"width": ","}, "en", text),
        ({"brand": ","}, "en", "129.9 cm"),
    ):
        assert (Spellings(OPEN_WORDS, marks).canonical("width", language, text) or text) == value
    assert Spellings(OPEN_WORDS, {"brand": ","}).canonical("brand", "en", "HP") == "Hewlett-Packard"


def test_a_column_of_numbers_has_a_full_stop_before_the_decimals(spark: SparkSession, tmp_path: Path) -> None:
    """A double is no text of the product's language: 1.299 would be 1299 in German."""
    rows = {
        "id": ["a"], "title": ["Tisch"], "double": [12.345], "list": [[12.345]], "decimal": [Decimal("12.345")],
        "text": ["12.345"], "given": ["12.345"],
    }  # fmt: skip
    (tmp_path / "feed").mkdir()
    pq.write_table(pa.table(rows), tmp_path / "feed" / "a.parquet")
    names = ("double", "list", "decimal", "text", "given")
    mapping = MappingConfig(
        product_id="id", title="title", default_language="de", attributes={name: name for name in names},
        decimal_marks={"given": "."},
    )  # fmt: skip
    source = SourceConfig(format="parquet", path=str(tmp_path / "feed"), mapping=mapping)
    words = Dictionary({name: replace(WIDTH, name=name, number=NumberRule(unit="cm")) for name in names})
    [row] = normalise_attributes(read_source(spark, source, tmp_path), words).collect()
    exact = {name: ["12.345 cm"] for name in ("double", "list", "decimal", "given")}
    assert row["merchant_attributes"] == exact | {"text": ["12345 cm"]}


def test_a_batch_is_normalised_as_each_product_alone() -> None:
    kind = pa.map_(pa.string(), pa.list_(pa.string()))
    draw, rows, languages = random.Random(1), [], []
    for _ in range(500):
        spellings = ["GRAY", "navy", "grau", "Grey", f"odd {draw.randrange(5)}"]
        names = [name for name in ("color", "brand") if draw.random() < 0.6]
        values = [(name, draw.choices(spellings, k=draw.randrange(1, 4))) for name in names]
        rows.append(None if draw.random() < 0.1 else values)
        languages.append(draw.choice(["en", "de", None]))
    spellings, given = Spellings(DICTIONARY), pa.array(rows, kind)

    def alone(values: list[tuple[str, list[str]]], language: str | None) -> list[tuple[str, list[str]]]:
        looked_up = (
            (name, [spellings.canonical(name, language, value) or value for value in given]) for name, given in values
        )
        return [(name, list(dict.fromkeys(canonical))) for name, canonical in looked_up]

    expected = [None if row is None else alone(row, name) for row, name in zip(rows, languages, strict=True)]
    found = normalised(given, pa.array(languages), spellings)
    found.validate(full=True)
    assert found.to_pylist() == expected
    part = slice(7, 300)  # of a longer array
    assert normalised(given[part], pa.array(languages)[part], spellings).to_pylist() == expected[part]
    for few in ([], [None], [[]], [[], None, []]):
        nothing = normalised(pa.array(few, kind), pa.array(["en"] * len(few), pa.string()), spellings)
        assert nothing.to_pylist() == few


def test_a_mapped_attribute_that_was_never_in_the_dictionary_is_refused() -> None:
    mapping = MappingConfig(attributes={"color": "c", "size": "s", "fit": "f"})
    with pytest.raises(ConfigError, match=r"\['size'\] are not in the attribute dictionary.*\['color'\]"):
        check_attributes(mapping, DICTIONARY, {"color", "fit"})
    assert check_attributes(mapping, DICTIONARY, {"size", "fit"}) == ["fit", "size"]
