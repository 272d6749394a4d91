"""Coverage before and after a run, per category and per shop: tables from the run's row alone."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

from catalog_enrichment.catalog.coverage_groups import BY, CHANGE_KEY, COVERAGE_KEY, Groups, from_rows

SHOWN = 12
"""Rows per table; the others are summed."""

_TITLES = {"category": "categories", "shop": "shops"}


def tables(attributes: Mapping[str, Any], shown: int = SHOWN) -> list[dict[str, Any]]:
    """A table per category and one per shop, of the column `attributes` of a run; [] where it has no such numbers.

    Rows are about a group and an attribute: most changed first, then most products without a value. The rows that are
    not shown are summed per attribute.
    """
    rows = attributes.get(COVERAGE_KEY, {}).get("groups")
    if rows is None:
        return []
    after, change = from_rows(rows), from_rows(attributes.get(CHANGE_KEY, {}))
    found = [_table(by, after, change, shown) for by in BY]
    return [table for table in found if table["rows"]]


def _table(by: str, after: Groups, change: Groups, shown: int) -> dict[str, Any]:
    keys = {(name, attribute) for kind, name, attribute, _ in [*after, *change] if kind == by}
    rows = {(name, attribute): _numbers(by, name, attribute, after, change) for name, attribute in keys}
    named = sorted((key for key in rows if key[0] is not None), key=lambda key: (*_weakest(rows[key]), key))
    rest: dict[str, Counter[str]] = {}
    for key in (key for key in rows if key not in named[:shown]):
        rest.setdefault(key[1], Counter()).update(rows[key])
    return {
        "title": _TITLES[by],
        "heading": by,
        "rows": [_row(name or f"no {by}", attribute, rows[name, attribute]) for name, attribute in named[:shown]],
        "rest": [_row(f"other {_TITLES[by]}", attribute, numbers) for attribute, numbers in sorted(rest.items())],
    }


def _numbers(by: str, name: str | None, attribute: str, after: Groups, change: Groups) -> Counter[str]:
    numbers: Counter[str] = Counter()
    for has_value, kind in ((False, "applicable"), (True, "covered")):
        number = after.get((by, name, attribute, has_value), 0)
        numbers[kind] = number
        numbers[f"{kind}_before"] = number - change.get((by, name, attribute, has_value), 0)
    return numbers


def _weakest(numbers: Mapping[str, int]) -> tuple[int, int]:
    """Sorts: most changed first, then most products without a value."""
    return -abs(numbers["covered"] - numbers["covered_before"]), numbers["covered"] - numbers["applicable"]


def _row(name: str, attribute: str, numbers: Mapping[str, int]) -> dict[str, Any]:
    before, after = (
        numbers[f"covered{when}"] / numbers[f"applicable{when}"] if numbers[f"applicable{when}"] else None
        for when in ("_before", "")
    )
    return {
        "name": name,
        "attribute": attribute,
        "products": numbers["applicable"],
        "more": numbers["covered"] - numbers["covered_before"],
        "before": before,
        "after": after,
        "start": min(before or 0.0, after or 0.0),
        "gain": max((after or 0.0) - (before or 0.0), 0.0),
    }


def changes(rows: Sequence[Mapping[str, Any]]) -> Groups:
    """The changes of several runs, from their columns `attributes`, added up."""
    total: Counter[tuple[str, str | None, str, bool]] = Counter()
    for row in rows:
        total.update(from_rows(row.get(CHANGE_KEY, {})))
    return {key: number for key, number in total.items() if number}
