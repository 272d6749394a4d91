"""Groups of products are bounded, and brought up to date as if they were counted anew."""

from __future__ import annotations

import json
import random
from collections import Counter
from typing import Any

from catalog_enrichment.catalog.coverage_groups import Groups, bounded, difference, from_rows, moved, to_rows


def counted(products: dict[int, tuple[str, str, bool]]) -> Groups:
    """``products``: id -> category, shop, whether it has a color."""
    groups: Counter[Any] = Counter()
    for category, shop, has_value in products.values():
        for by, name in (("category", category), ("shop", shop)):
            groups[by, name, "color", False] += 1
            if has_value:
                groups[by, name, "color", True] += 1
    return groups


def test_the_largest_have_a_name_and_the_others_are_summed() -> None:
    products = {n: ("Shoes" if n < 3 else "Hats" if n < 5 else f"c{n}", "s", n % 2 == 0) for n in range(8)}
    groups = bounded(counted(products), limit=2)
    assert groups == {
        ("category", "Shoes", "color", False): 3, ("category", "Shoes", "color", True): 2,
        ("category", "Hats", "color", False): 2, ("category", "Hats", "color", True): 1,
        ("category", None, "color", False): 3, ("category", None, "color", True): 1,
        ("shop", "s", "color", False): 8, ("shop", "s", "color", True): 4,
    }  # fmt: skip
    stored = json.loads(json.dumps(to_rows(groups)))
    assert stored["category"] == [
        ["Hats", {"color": [2, 1]}], ["Shoes", {"color": [3, 2]}], [None, {"color": [3, 1]}]
    ]  # fmt: skip
    assert from_rows(stored) == groups


def test_what_is_brought_up_to_date_is_what_is_counted_anew() -> None:
    draw = random.Random(3)

    def drawn() -> tuple[str, str, bool]:
        return f"c{draw.randrange(9)}", f"s{draw.randrange(4)}", draw.random() < 0.5

    products = {n: drawn() for n in range(60)}
    kept = bounded(counted(products), limit=50)
    narrow = bounded(counted(products), limit=3)
    for _ in range(20):
        before = dict(products)
        for n in draw.sample(range(80), 5):
            products[n] = drawn()
        change = difference(counted(before), counted(products))
        kept, narrow = moved(kept, change, limit=50), moved(narrow, change, limit=3)
        assert kept == bounded(counted(products), limit=50)
        assert all(number > 0 for number in narrow.values())
        for by in ("category", "shop"):
            assert len({name for kind, name, _, _ in narrow if kind == by and name is not None}) <= 3
            assert sum(n for key, n in narrow.items() if (key[0], key[3]) == (by, False)) == len(products)


def test_groups_that_are_new_grow_or_go_away_take_the_names_that_they_deserve() -> None:
    gone = {("shop", "s", "color", False): -2, ("shop", "s", "color", True): -1}
    assert moved({("shop", "s", "color", False): 2, ("shop", "s", "color", True): 1}, gone) == {}
    assert moved({("shop", "a", "color", False): 5}, {("shop", "b", "color", False): 6}, limit=1) == {
        ("shop", "b", "color", False): 6,
        ("shop", None, "color", False): 5,
    }


def test_a_group_that_was_summed_gets_no_name_by_what_was_added_to_it() -> None:
    """Its products of before are among the others: under its own name there would be only those that were added."""
    groups = {("shop", "a", "color", False): 5, ("shop", None, "color", False): 20}
    assert moved(groups, {("shop", "b", "color", False): 6, ("shop", "a", "color", False): 1}, limit=1) == {
        ("shop", "a", "color", False): 6,
        ("shop", None, "color", False): 26,
    }


def test_a_group_with_a_name_on_one_side_alone_did_not_grow_by_all_its_products() -> None:
    """A run that is resumed compares numbers that were brought up to date with a fresh count."""
    shops = {n: ("c", f"s{n // 10}", n % 2 == 0) for n in range(30)}  # three shops of 10
    grown = shops | dict.fromkeys(range(30, 50), ("c", "new", False))  # 20 products of a new shop, larger than all
    before = moved(bounded(counted(shops), limit=2), difference(counted(shops), counted(grown)), limit=2)
    assert ("shop", "new", "color", False) not in before, "it is among the others"
    filled = {n: (category, shop, has_value or n == 49) for n, (category, shop, has_value) in grown.items()}
    after = bounded(counted(filled), limit=2)
    assert ("shop", "new", "color", False) in after
    change = difference(before, after)
    assert change == {("shop", None, "color", True): 1, ("category", "c", "color", True): 1}
    back = difference(after, before)
    assert back == {key: -number for key, number in change.items()}


def test_a_group_that_is_new_where_all_have_names_keeps_its_own() -> None:
    before, after = {("shop", "a", "color", False): 5}, {("shop", "b", "color", False): 3}
    assert difference(before, after) == {("shop", "a", "color", False): -5, ("shop", "b", "color", False): 3}
