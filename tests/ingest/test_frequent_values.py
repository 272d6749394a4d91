"""The frequent values of an attribute: spellings of one value together, most frequent first."""

from __future__ import annotations

import pytest

from catalog_enrichment.errors import DataContractError
from catalog_enrichment.ingest.frequent_values import by_value, dictionary_of


def test_spellings_of_one_value_are_counted_together_under_the_most_frequent() -> None:
    spellings = [("rare", 1), ("navy blue", 2), ("Navy-Blue", 3), ("Red", 4), ("Blue", 4), ("--", 9)]
    assert by_value(spellings) == [("Navy-Blue", 5), ("Blue", 4), ("Red", 4), ("rare", 1)]


def test_only_values_with_enough_products_are_in_the_dictionary() -> None:
    counts = {"size": [("S", 3)], "color": [("Red", 4), ("Blue", 3), ("rare", 2)]}
    content, summary = dictionary_of(counts, {"size"}, min_count=3, name="shop")
    values = {row["name"]: (row["cardinality"], row["values"]) for row in content["attributes"]}
    assert values == {"color": ("one", ["Red", "Blue"]), "size": ("many", ["S"])}
    assert summary == {"color": {"values": 2, "too_rare": 1}, "size": {"values": 1, "too_rare": 0}}
    with pytest.raises(DataContractError, match="size: no value has 4 products, the most frequent is 'S' with 3"):
        dictionary_of(counts, set(), min_count=4, name="shop")
    with pytest.raises(DataContractError, match=r"no value has 4 products$"):
        dictionary_of({"size": []}, set(), min_count=4, name="shop")
