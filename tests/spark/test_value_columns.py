"""Values of numbers and texts in Spark columns: the same answers as in Python."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import pytest

from catalog_enrichment.dictionary import Attribute, Dictionary
from catalog_enrichment.spark import value_columns
from catalog_enrichment.values import same
from catalog_enrichment.values.kinds import NumberRule

from ..open_words import BRAND, CLOSED_WORDS, COLOR, OPEN_WORDS, WIDTH

if TYPE_CHECKING:
    from pyspark.sql import SparkSession

LENGTH = replace(WIDTH, name="length", number=NumberRule(unit="m", low=0.1, high=5, units=("cm", "in")))
HEAT = replace(WIDTH, name="heat", number=NumberRule(unit="°C"))
COUNT = replace(WIDTH, name="count", number=NumberRule(unit="", low=0))
CURRENT = replace(WIDTH, name="current", number=NumberRule(unit="A"))
SPEED = replace(WIDTH, name="speed", number=NumberRule(unit="Mbps"))
WORDS = Dictionary({each.name: each for each in (COLOR, WIDTH, BRAND, LENGTH, HEAT, COUNT, CURRENT, SPEED)})

GIVEN: dict[str, list[str | None]] = {
    "width": ["1 cm", "500 cm", "0.99 cm", "500.1 cm", "-5 cm", "1.09 m", "43 in", "5 kg", "12-15 cm", "51", "51 ", "",
              "51 cm wide", "cm", None, "1e2 cm", "0.5 cm", "2 ft"],
    "length": ["109 cm", "1.09 m", "43 in", "109 mm", "501 cm", "10 cm", "9 cm"],
    "heat": ["-40 °C", "104 °F", "40 cm"],
    "count": ["12", "-1", "12 pcs", "0"],
    "current": ["16 A", "16000 mA"],
    "speed": ["100 Mbps", "1 Gbps"],
    "brand": ["None", "3M", "-", " ", "", None, "x" * 200, "x" * 201, "*", "C#", "HP", "€", "…", "中文"],
    "color": ["Red", "red", "", None],
}  # fmt: skip


def _expected(attribute: Attribute, value: str | None) -> bool:
    if value is None or value != value.strip():
        return False
    if not attribute.is_open or attribute.number is None:
        return attribute.renewed(value) is not None
    is_bare = value.replace(".", "").lstrip("-").isdigit()
    return attribute.renewed(value) is not None and (not is_bare or not attribute.number.unit) and "e" not in value


def test_stored_values_and_their_numbers_are_found_as_in_python(spark: SparkSession) -> None:
    from pyspark.sql import functions as F

    rows = [(name, value) for name, values in GIVEN.items() for value in values]
    frame = spark.createDataFrame(rows, "attribute string, value string")
    listed = F.lit(False)
    for attribute in WORDS.attributes.values():
        listed = F.when(F.col("attribute") == attribute.name, value_columns.lists(attribute)).otherwise(listed)
    found = frame.withColumn("listed", listed).withColumns(value_columns.number_and_unit(WORDS)).collect()
    wrong = [tuple(row) for row in found if row["listed"] != _expected(WORDS[row["attribute"]], row["value"])]
    assert wrong == []
    for row in found:
        rule = WORDS[row["attribute"]].number
        if rule is None or not row["listed"]:
            assert (row["number"], row["unit"]) == (None, None)
            continue
        expected = same.number_of(row["value"], WORDS[row["attribute"]].rule())
        assert row["number"] == pytest.approx(expected)
        assert row["unit"] == rule.unit


def test_sets_are_compared_by_the_kind(spark: SparkSession) -> None:
    rows = [
        ("width", ["109 cm"], ["1.09 m"], True),
        ("width", ["109 cm"], ["110 cm"], True),
        ("width", ["109 cm"], ["112 cm"], False),
        ("width", ["109 cm"], None, False),
        ("width", None, None, True),
        ("width", ["50 cm", "60 cm"], ["50 cm", "60 cm"], True),
        ("width", ["50 cm", "60 cm"], ["0.5 m", "60 cm"], False),
        ("width", ["50 cm"], [], False),
        ("brand", ["HP"], ["hewlett packard"], True),
        ("color", ["109 cm"], ["1.09 m"], False),
        ("unknown", ["109 cm"], ["1.09 m"], False),
        ("unknown", ["a"], ["a"], True),
    ]
    frame = spark.createDataFrame(rows, "attribute string, a array<string>, b array<string>, expected boolean")
    for words, usual in ((OPEN_WORDS, True), (CLOSED_WORDS, False)):
        same_sets = value_columns.are_same(words, frame["a"], frame["b"])
        for row in frame.withColumn("found", same_sets).collect():
            assert row["found"] == (row["expected"] if usual else row["a"] == row["b"]), row


def test_without_open_attributes_there_is_no_python_in_the_tasks(spark: SparkSession) -> None:
    frame = spark.createDataFrame([("color", "Red", ["Red"])], "attribute string, value string, others array<string>")
    plans = [
        frame.select(value_columns.is_among(words, frame["value"], frame["others"]))._jdf.queryExecution().toString()  # type: ignore[operator]
        for words in (CLOSED_WORDS, OPEN_WORDS)
    ]
    assert ["Python" in plan or "ArrowEval" in plan for plan in plans] == [False, True]
