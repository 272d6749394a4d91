"""Problems per shop are bounded, and nothing of them is lost."""

from __future__ import annotations

import json
from typing import Any

import pytest

from catalog_enrichment.validation import by_shop
from catalog_enrichment.validation.by_shop import ALL, LIMIT, SHOP, Counted, largest, merged


def test_the_shops_with_most_problems_have_a_name_and_the_others_are_summed() -> None:
    imported = {"a": {"empty_title": 2}, "b": {"empty_title": 1, "unmapped_value.color": 4}, "none": {"empty_title": 0}}
    run = {"a": {"no_image": 1}, "c": {"no_image": 1}, "d": {"no_image": 1}}
    found = largest(imported, run, limit=2)
    assert found == {
        "shops": {"b": {"empty_title": 1, "unmapped_value.color": 4}, "a": {"empty_title": 2, "no_image": 1}},
        "others": {"shops": 2, "problems": {"no_image": 2}},
    }
    assert list(found["shops"]) == ["b", "a"]
    assert merged([found, found]) == {
        "shops": {"b": {"empty_title": 2, "unmapped_value.color": 8}, "a": {"empty_title": 4, "no_image": 2}},
        "others": {"shops": 4, "problems": {"no_image": 4}},
    }
    many = [largest({f"{run}{n}": {"no_image": 1} for n in range(LIMIT)}) for run in "ab"]
    both = merged(many)
    assert len(both["shops"]) == LIMIT
    assert both["others"] == {"shops": LIMIT, "problems": {"no_image": LIMIT}}
    assert merged([]) == {"shops": {}, "others": {"shops": 0, "problems": {}}}


def test_what_spark_bounds_has_the_form_of_what_is_bounded_here(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(by_shop, "LIMIT", 2)
    shops = {"c": {"no_image": 2}, "b": {"empty_title": 2}}
    shops |= {"a": {"empty_title": 1, "no_image": 2}, "d": {"no_image": 1}}
    rows = [{"by": SHOP, "name": shop, "numbers": numbers, "groups": 4} for shop, numbers in list(shops.items())[:3]]
    rows.append({"by": ALL, "name": None, "numbers": {"no_image": 5, "empty_title": 3}, "groups": 1})
    rows.append({"by": "value.color", "name": "rot", "numbers": {"de": 9}, "groups": 7})
    assert Counted.of(rows).row() == largest(shops, limit=2)
    assert list(Counted.of(rows).shops) == ["a", "b"]
    assert Counted.of([]).row() == largest({})


def test_long_names_of_shops_make_no_large_row() -> None:
    shops = {f"{n:04d}" + "x" * 496: {"no_image": 1} for n in range(LIMIT)}
    rows = [{"by": SHOP, "name": shop, "numbers": of, "groups": LIMIT} for shop, of in shops.items()]
    counted = Counted.of([*rows, {"by": ALL, "name": None, "numbers": {"no_image": LIMIT}, "groups": 1}])
    for found in (largest(shops), counted.row()):
        assert len(json.dumps(found)) < 20_000
        named = len(found["shops"])
        assert named > 20
        assert found["others"] == {"shops": LIMIT - named, "problems": {"no_image": LIMIT - named}}


def test_the_id_of_a_refused_shop_is_cut(spark: Any) -> None:
    refused = spark.createDataFrame([("s" * 10_000, "text_too_long")] * 2, "shop_id string, problem string")
    counted = Counted.of(by_shop.largest_of(by_shop.sums(refused), LIMIT))
    assert counted.shops == {"s" * 500: {"text_too_long": 2}}
