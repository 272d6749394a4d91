from __future__ import annotations

import pytest

from catalog_enrichment.records import Cardinality
from catalog_enrichment.report.changes import change


@pytest.mark.parametrize(
    ("cardinality", "merchant", "confirmed", "expected"),
    [
        (Cardinality.MANY, ["Cotton"], True, "add"),
        (Cardinality.MANY, ["Cotton"], False, "replace"),
        (Cardinality.ONE, ["Red"], False, "replace"),
        (Cardinality.ONE, ["Red", "Blue"], True, "replace"),
        (Cardinality.MANY, [], True, "fill"),
        (Cardinality.ONE, [], False, "fill"),
    ],
)
def test_a_value_is_added_only_where_the_model_confirms_one_of_the_merchants(
    cardinality: Cardinality, merchant: list[str], confirmed: bool, expected: str
) -> None:
    assert change(cardinality, merchant, confirmed) == expected
