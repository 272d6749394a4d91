"""Problems per shop are bounded, and nothing of them is lost."""

from __future__ import annotations

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
