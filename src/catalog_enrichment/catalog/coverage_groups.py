"""Products with a value per category and per shop: bounded, brought up to date, and as rows for a run's row.

The largest groups have a name, and the others together are one group without a name, so that a run's row stays small.
Pure functions.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from typing import Any

BY = ("category", "shop")
"""The columns by which products are grouped."""

COVERAGE_KEY = "coverage"
"""Key in `runs.attributes`: the coverage after a run, with ``groups`` as :data:`Rows`."""

CHANGE_KEY = "coverage_change"
"""Key in `runs.attributes`: what the run changed (:func:`difference`), as :data:`Rows`."""

LIMIT = 50
"""Most categories, and most shops, that are counted by name: every run's row has them, and a report shows 12."""

Group = tuple[str, str | None, str, bool]
"""An entry of :data:`BY`, the name of the group, an attribute, and True for the products with a value of it; False: all
products that it applies to. The name is "" for products without a category or shop, and None for the groups that are
counted together."""

Groups = Mapping[Group, int]
"""Group -> products."""

Rows = Mapping[str, Iterable[tuple[str | None, Mapping[str, tuple[int, int]]]]]
"""Groups as JSON can have them: an entry of :data:`BY` -> [name, {attribute: [applicable, with a value]}], by name."""


def bounded(groups: Groups, limit: int = LIMIT) -> Groups:
    """Return ``groups`` with the ``limit`` largest of each kind by name and the others summed, without empty groups."""
    sizes: dict[str, Counter[str]] = {by: Counter() for by in BY}
    for (by, name, _, has_value), products in groups.items():
        if name is not None and not has_value:
            sizes[by][name] += products
    named = {}
    for by, counted in sizes.items():
        largest_first = sorted((-size, name) for name, size in counted.items() if size)
        named[by] = {name for _, name in largest_first[:limit]}
    found: Counter[Group] = Counter()
    for (by, name, attribute, has_value), products in groups.items():
        found[by, name if name in named[by] else None, attribute, has_value] += products
    return {key: products for key, products in found.items() if products}


def moved(groups: Groups, change: Groups, limit: int = LIMIT) -> Groups:
    """Return the bounded ``groups`` after ``change``, which has the names of all groups.

    A group without a name of its own in ``groups`` may be among those that were summed there, and is summed again.
    """
    now = Counter(groups)
    now.update(_named_as_in(groups, change))
    return bounded(now, limit)


def difference(before: Groups, after: Groups) -> Groups:
    """Return what was added to ``before``; the numbers can be negative. Groups that did not change are left out.

    A group with a name on one side alone may be among those that were summed on the other: then it is summed on both.
    """
    before, after = _named_as_in(after, before), _named_as_in(before, after)
    keys = {*before, *after}
    change = {key: after.get(key, 0) - before.get(key, 0) for key in keys}
    return {key: products for key, products in change.items() if products}


def _named_as_in(other: Groups, groups: Groups) -> Counter[Group]:
    """Return ``groups`` with those summed that have no name in ``other``, where that has groups that were summed."""
    known = {(by, name) for by, name, _, _ in other}
    found: Counter[Group] = Counter()
    for (by, name, attribute, has_value), products in groups.items():
        summed = (by, name) not in known and (by, None) in known
        found[by, None if summed else name, attribute, has_value] += products
    return found


def to_rows(groups: Groups) -> dict[str, list[list[Any]]]:
    """Return ``groups`` as :data:`Rows`, sorted."""
    rows: dict[str, dict[str | None, dict[str, list[int]]]] = {by: {} for by in BY}
    for by, name, attribute, _ in sorted(groups, key=lambda key: (key[1] is None, *map(str, key))):
        numbers = [groups.get((by, name, attribute, has_value), 0) for has_value in (False, True)]
        rows[by].setdefault(name, {})[attribute] = numbers
    return {by: [[name, attributes] for name, attributes in of.items()] for by, of in rows.items()}


def from_rows(rows: Rows) -> Groups:
    """Return the groups of which :func:`to_rows` made ``rows``."""
    return {
        (by, name, attribute, has_value): products
        for by, of in rows.items()
        for name, attributes in of
        for attribute, numbers in attributes.items()
        for has_value, products in zip((False, True), numbers, strict=True)
        if products
    }
