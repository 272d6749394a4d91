"""Coverage per category and shop: what changed most first, bounded, the rest summed."""

from __future__ import annotations

from typing import Any

from catalog_enrichment.catalog.coverage_groups import Groups, to_rows
from catalog_enrichment.report.coverage import changes, tables


def attributes(after: Groups, change: Groups) -> dict[str, Any]:
    return {"coverage": {"groups": to_rows(after)}, "coverage_change": to_rows(change)}


def of(name: str | None, applicable: int, covered: int, attribute: str = "color") -> Groups:
    return {("category", name, attribute, False): applicable, ("category", name, attribute, True): covered}


AFTER = of("Shoes", 100, 80) | of("Hats", 50, 10) | of("", 10, 9) | of("Toys", 40, 39) | of(None, 7, 7)
CHANGE = of("Shoes", 0, 20) | of("Toys", 20, 29) | of(None, 0, 1) | of("Gone", -4, -2)


def test_the_most_changed_come_first_then_the_weakest() -> None:
    [table] = tables(attributes(AFTER, CHANGE), shown=4)
    assert [(row["name"], row["products"], row["more"], row["before"], row["after"]) for row in table["rows"]] == [
        ("Toys", 40, 29, 10 / 20, 39 / 40),
        ("Shoes", 100, 20, 0.6, 0.8),
        ("Gone", 0, -2, 0.5, None),
        ("Hats", 50, 0, 0.2, 0.2),
    ]
    [rest] = table["rest"]
    assert (rest["name"], rest["products"], rest["more"]) == ("other categories", 17, 1)
    assert (rest["before"], rest["after"]) == (15 / 17, 16 / 17)
    assert tables(attributes(AFTER, CHANGE))[0]["rows"][-1]["name"] == "no category"


def test_the_bar_shows_what_was_there_and_what_was_gained() -> None:
    [table] = tables(attributes(of("up", 10, 5) | of("down", 10, 2), of("up", 0, 3) | of("down", 0, -4)))
    bars = {row["name"]: (row["start"], round(row["gain"], 6)) for row in table["rows"]}
    assert bars == {"up": (0.2, 0.3), "down": (0.2, 0.0)}


def test_attributes_are_rows_of_their_own() -> None:
    [table] = tables(attributes(of("Shoes", 9, 1) | of("Shoes", 3, 3, "size"), {}))
    assert [(row["name"], row["attribute"]) for row in table["rows"]] == [("Shoes", "color"), ("Shoes", "size")]


def test_a_run_of_an_earlier_release_has_no_table() -> None:
    assert tables({"coverage": {"counts": {}}}) == tables({}) == []


def test_the_changes_of_several_runs_are_added() -> None:
    first, second = (attributes({}, of("Shoes", 0, more) | of("Hats", 1, 0)) for more in (5, -5))
    assert changes([first, second, {}]) == {("category", "Hats", "color", False): 2}
