"""What is wrong with the shops' products, counted: bounded, for the rows of an import and of an enrichment in `runs`.

A problem has the name of its :class:`~catalog_enrichment.records.Reason`, with the attribute behind a dot where it is
about one: ``empty_title``, ``disagrees_with_merchant.color``. Pure functions.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from typing import Any

KEY = "shops"
"""In `runs.attributes`: :func:`largest`."""

LIMIT = 100
"""Shops that are counted by name."""

UNMAPPED = "unmapped_value"
"""The problem of a merchant's value that the dictionary lacks; no Reason, because nothing is refused for it."""

Problems = Mapping[str, Mapping[str, int]]
"""Shop id, "" for none -> problem -> products, rows or values."""


def added(*counted: Problems) -> dict[str, Counter[str]]:
    """The sum, shop by shop and problem by problem."""
    total: dict[str, Counter[str]] = {}
    for problems in counted:
        for shop, numbers in problems.items():
            total.setdefault(shop, Counter()).update(numbers)
    return total


def largest(*counted: Problems, limit: int = LIMIT) -> dict[str, Any]:
    """The sum as JSON can have it: ``shops`` with most problems by name, and ``others``: their number and problems."""
    total = {shop: numbers for shop, numbers in added(*counted).items() if numbers.total()}
    order = sorted(total, key=lambda shop: (-total[shop].total(), shop))
    named, others = order[:limit], order[limit:]
    rest = sum((total[shop] for shop in others), Counter[str]())
    return {
        "shops": {shop: dict(sorted(total[shop].items())) for shop in named},
        "others": {"shops": len(others), "problems": dict(sorted(rest.items()))},
    }


def merged(rows: Iterable[Mapping[str, Any]]) -> dict[str, Any]:
    """Several results of :func:`largest` added up; shops that are among the others of one may be counted twice."""
    rows = list(rows)
    found = largest(*(row["shops"] for row in rows))
    rest = sum((Counter(row["others"]["problems"]) for row in [*rows, found]), Counter[str]())
    number = sum(row["others"]["shops"] for row in [*rows, found])
    return {"shops": found["shops"], "others": {"shops": number, "problems": dict(sorted(rest.items()))}}
