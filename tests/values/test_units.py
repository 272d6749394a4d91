"""Units: spellings, and conversion between units of one dimension alone."""

from __future__ import annotations

import pytest

from catalog_enrichment.values import units


@pytest.mark.parametrize(
    ("number", "unit", "to", "expected"),
    [
        (1, '"', "cm", 2.54),
        (1, "ft", "in", 12),
        (1, "lbs", "kg", 0.45359237),
        (500, "ml", "l", 0.5),
        (1, "TB", "GB", 1000),
        (32, "°F", "°C", 0),
        (2, "dozen", "pcs", 24),
        (8, "Mbps", "MB/s", 1),
        (1, "fl oz", "ml", 29.5735),
    ],
)
def test_numbers_are_converted(number: float, unit: str, to: str, expected: float) -> None:
    first, second = units.unit_of(unit), units.unit_of(to)
    assert first
    assert second
    assert units.convert(number, first, second) == pytest.approx(expected, abs=1e-4)


@pytest.mark.parametrize(("unit", "to"), [("kg", "cm"), ("Hz", "rpm"), ("%", "pcs"), ("GB", "pcs"), ("cm", "cm²")])
def test_other_dimensions_are_not_converted(unit: str, to: str) -> None:
    first, second = units.unit_of(unit), units.unit_of(to)
    assert first
    assert second
    assert units.convert(1.0, first, second) is None


@pytest.mark.parametrize(("text", "unit"), [("A", "ampere"), ("M", "meter"), ("K", "kelvin"), ("cm", "centimeter")])
def test_capital_letters_are_units_where_nothing_else_can_be_meant(text: str, unit: str) -> None:
    assert units.unit_of_attribute(text) == unit


def test_words_for_pieces() -> None:
    assert {units.unit_of(text) for text in ("set", "cartons", "sets", "ct", "pcs")} == {"piece"}


@pytest.mark.parametrize("text", ["foo", "", "M", "K", "xx", "stocks"])
def test_other_words_are_no_units(text: str) -> None:
    assert units.unit_of(text) is None


def test_every_unit_of_the_table_can_be_converted() -> None:
    for unit in units._SPELLINGS:
        assert units.conversion(unit, unit) == (1.0, 0.0)
        assert units.conversion(unit, "meter") is None or "meter" in unit or unit in ("inch", "foot", "yard", "mile")


def test_no_spelling_stands_for_two_units() -> None:
    spellings = [(units.folded(text), unit) for unit, texts in units._SPELLINGS.items() for text in texts.split()]
    meanings = {text: {unit for other, unit in spellings if other == text} for text, _ in spellings}
    assert {text: of for text, of in meanings.items() if len(of) > 1} == {}
