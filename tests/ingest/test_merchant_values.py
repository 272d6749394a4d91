"""I1: merchant values become canonical values; values that the dictionary lacks are kept as they are."""

from __future__ import annotations

from typing import Any

import pytest

from catalog_enrichment.config.source import MappingConfig
from catalog_enrichment.dictionary import Attribute, Dictionary
from catalog_enrichment.errors import ConfigError
from catalog_enrichment.ingest.merchant_values import check_attributes, count_merchant_values, normalise_attributes
from catalog_enrichment.records import Cardinality

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
    assert count_merchant_values(normalised, DICTIONARY) == {
        "brand": {"mapped": 0, "unmapped": 1},
        "color": {"mapped": 4, "unmapped": 1},
    }


def test_a_mapped_attribute_that_is_not_in_the_dictionary_is_refused() -> None:
    with pytest.raises(ConfigError, match=r"\['size'\] are not in the attribute dictionary.*\['color'\]"):
        check_attributes(MappingConfig(attributes={"color": "c", "size": "s"}), DICTIONARY)
