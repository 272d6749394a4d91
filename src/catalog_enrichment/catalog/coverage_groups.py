"""Products with a value per category and per shop: bounded, brought up to date, and as rows for a run's row.

The largest groups have a name, the others are one group without a name, so that a run's row stays small. Pure
functions.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from typing import Any

BY = ("category", "shop")
"""What products are grouped by."""

COVERAGE_KEY = "coverage"
"""In `runs.attributes`: the coverage after a run, with ``groups`` as :data:`Rows`."""

CHANGE_KEY = "coverage_change"
"""In `runs.attributes`: what the run changed (:func:`difference`), as :data:`Rows`."""

LIMIT = 50
"""Most categories, and most shops, that are counted by name: every run's row has them, and a report shows 12."""

Groups = Mapping[tuple[str, str | None, str, bool], int]
"""(one of :data:`BY`, name of the group, attribute, whether with a value) -> products; False: all that the attribute
applies to. The name is "" for products without a category or shop, and None for the groups that are counted together.
"""

Rows = Mapping[str, Iterable[tuple[str | None, Mapping[str, tuple[int, int]]]]]
"""Groups as JSON can have them: one of :data:`BY` -> [name, {attribute: [applicable, with a value]}], by name."""


def bounded(groups: Groups, limit: int = LIMIT) -> Groups:
    """``groups`` with the ``limit`` largest of each kind by name and the others summed; empty groups are left out."""
    sizes: dict[str, Counter[str]] = {by: Counter() for by in BY}
    for (by, name, _, has_value), products in groups.items():
        if name is not None and not has_value:
            sizes[by][name] += products
    named = {by: {name for name, _ in _largest(sizes[by], limit)} for by in BY}
    found: Counter[tuple[str, str | None, str, bool]] = Counter()
    for (by, name, attribute, has_value), products in groups.items():
        found[by, name if name in named[by] else None, attribute, has_value] += products
    return {key: products for key, products in found.items() if products}


def moved(groups: Groups, change: Groups, limit: int = LIMIT) -> Groups:
    """The bounded ``groups`` after ``change``, which has the names of all groups.

    A group without a name of its own in ``groups`` may be among those that were summed there, and is summed again.
    """
    known = {(by, name) for by, name, _, _ in groups}
    now = Counter(groups)
    for (by, name, attribute, has_value), products in change.items():
        summed = (by, name) not in known and (by, None) in known
        now[by, None if summed else name, attribute, has_value] += products
    return bounded(now, limit)


def difference(before: Groups, after: Groups) -> Groups:
    """What was added to ``before``; the numbers can be negative. Groups that did not change are left out.

    A group with a name on one side alone may be among those that were summed on the other: then it is summed on both.
    """
    before, after = _named_on_both(before, after), _named_on_both(after, before)
    keys = {*before, *after}
    change = {key: after.get(key, 0) - before.get(key, 0) for key in keys}
    return {key: products for key, products in change.items() if products}


def _named_on_both(groups: Groups, other: Groups) -> Groups:
    """``groups`` with those summed that have no name in ``other``, where that has groups that were summed."""
    known = {(by, name) for by, name, _, _ in other}
    found: Counter[tuple[str, str | None, str, bool]] = Counter()
    for (by, name, attribute, has_value), products in groups.items():
        summed = (by, name) not in known and (by, None) in known
        found[by, None if summed else name, attribute, has_value] += products
    return found


def to_rows(groups: Groups) -> dict[str, list[list[Any]]]:
    """``groups`` as :data:`Rows`, sorted."""
    rows: dict[str, dict[str | None, dict[str, list[int]]]] = {by: {} for by in BY}
    for by, name, attribute, _ in sorted(groups, key=lambda key: (key[1] is None, *map(str, key))):
        numbers = [groups.get((by, name, attribute, has_value), 0) for has_value in (False, True)]
        rows[by].setdefault(name, {})[attribute] = numbers
    return {by: [[name, attributes] for name, attributes in of.items()] for by, of in rows.items()}


def from_rows(rows: Rows) -> Groups:
    """The groups of which :func:`to_rows` made ``rows``."""
    return {
        (by, name, attribute, has_value): products
        for by, of in rows.items()
        for name, attributes in of
        for attribute, numbers in attributes.items()
        for has_value, products in zip((False, True), numbers, strict=True)
        if products
    }


def _largest(sizes: Mapping[str, int], limit: int) -> list[tuple[str, int]]:
    return sorted(((name, size) for name, size in sizes.items() if size), key=lambda one: (-one[1], one[0]))[:limit]
