"""Numbers in product texts: locales, scripts, fractions, products and ranges."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from catalog_enrichment.values import numbers
from catalog_enrichment.values.numbers import MOST_NUMBERS, find


def read(text: str, language: str | None = None) -> list[tuple[float, str | None]]:
    return [(round(literal.number, 6), literal.unit) for literal in find(text, language)]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("51 cm", [(51, "centimeter")]),
        ("51cm", [(51, "centimeter")]),
        ("16-GB", [(16, "gigaoctet")]),
        ("1.299,00 g", [(1299, "gram")]),
        ("1,299.00 g", [(1299, "gram")]),
        ("1'299.00 g", [(1299, "gram")]),
        ("1 299,00 g", [(1299, "gram")]),
        ("1\u202f299 g", [(1299, "gram")]),
        ("1,299 g", [(1299, "gram")]),
        ("1,29 g", [(1.29, "gram")]),
        ("0,299 g", [(0.299, "gram")]),
        ('4 3/4"', [(4.75, "inch")]),
        ("4¾ in", [(4.75, "inch")]),
        ("½ inch", [(0.5, "inch")]),
        ("3/8-in", [(0.375, "inch")]),
        ("5' 6\"", [(66, "inch")]),
        ("-20 °C", [(-20, "degree_Celsius")]),
        ("−20 °C", [(-20, "degree_Celsius")]),
        ("٥٠ cm", [(50, "centimeter")]),
        ("५० cm", [(50, "centimeter")]),
        ("５１ｃｍ", [(51, "centimeter")]),
        ("160x200 cm", [(160, "centimeter"), (200, "centimeter")]),
        ("50×70×20 mm", [(50, "millimeter"), (70, "millimeter"), (20, "millimeter")]),
        ("16cmx20cm", [(16, "centimeter"), (20, "centimeter")]),
        ("12-15 kg", [(12, "kilogram"), (15, "kilogram")]),
        ("5 bis 7 kg", [(5, "kilogram"), (7, "kilogram")]),
        ("7.2K RPM", [(7200, "turn_per_minute")]),
        ("25K pages", [(25000, "page")]),
        ("14K gold", [(14, None)]),
        ("Box of 12", [(12, None)]),
        ("8 fl. oz.", [(8, "fluid_ounce")]),
        ("1 cu. ft.", [(1, "foot ** 3")]),
        ("G7-B4 DDR4", []),  # digits in names
        ("5th 3D", []),
        ("192.168.1.1", []),
        ("12.10.2024", []),
        ("1e400 kg", []),
        ("1/0 kg", []),
        ("1e3 kg", [(1000, "kilogram")]),
        ("", []),
    ],
)
def test_numbers_with_their_units(text: str, expected: list[tuple[float, str | None]]) -> None:
    assert read(text) == expected


def test_the_language_decides_what_a_single_mark_before_three_digits_is() -> None:
    assert read("1.299 kg") == [(1.299, "kilogram")]
    assert read("1.299 kg", "de-AT") == [(1299, "kilogram")]
    assert read("1,299 kg", "de") == [(1.299, "kilogram")]


@pytest.mark.parametrize(
    ("language", "number"),
    [
        ("es-ES", 1299),
        ("es-MX", 1.299),
        ("es_US", 1.299),
        ("de-CH", 1.299),
        ("de-DE", 1299),
        ("it-CH", 1.299),
        ("sv", 1299),
        ("sv-SE", 1299),
        ("en", 1.299),
        ("ja", 1.299),
        ("zh-Hant-TW", 1.299),
        ("", 1.299),
    ],
)
def test_some_countries_write_another_mark_than_their_language(language: str, number: float) -> None:
    assert read("1.299 kg", language) == [(number, "kilogram")]


def test_a_pound_with_ounces_is_one_number() -> None:
    assert read("1 lb 8 oz") == [(24, "ounce")]
    assert read("1 lb, 8 oz") == [(1, "pound"), (8, "ounce")]
    assert read("1 lb 16 oz") == [(1, "pound"), (16, "ounce")]


def test_a_k_without_a_unit_is_known_to_be_thousands_or_karats() -> None:
    assert [(each.number, each.in_thousands, each.end) for each in find("15K SAS 14 kt")] == [
        (15, True, 3),
        (14, False, 13),
    ]


def test_a_number_has_the_place_of_its_text_and_unit() -> None:
    text = "Tisch ５１ x 70 cm hoch"
    assert [text[literal.start : literal.end] for literal in find(text)] == ["５１", "70 cm"]


def test_numbers_of_a_product_or_range_are_parts_and_share_the_last_unit() -> None:
    assert [(literal.is_part, literal.shares_unit) for literal in find("2x500 ml, 3 kg")] == [
        (True, True),
        (True, False),
        (False, False),
    ]


def test_a_text_of_many_numbers_is_read_up_to_a_limit() -> None:
    assert len(find(" ".join(str(number) for number in range(10_000)))) == MOST_NUMBERS


@given(st.text())
def test_any_text_is_read(text: str) -> None:
    for literal in find(text):
        assert 0 <= literal.start < literal.end <= len(text)


@pytest.mark.parametrize(
    ("number", "text"),
    [
        (51.0, "51"),
        (50.8, "50.8"),
        (0.1 + 0.2, "0.3"),
        (1234.5678, "1234.57"),
        (1234567.0, "1234567"),
        (123456789.0, "123456789"),
        (12345670.000000002, "12345670"),
        (1e-9, "0.000000001"),
        (-1234567.0, "-1234567"),
        (-0.0, "0"),
        (2.0**60, "1152921504606850000"),
    ],
)
def test_numbers_are_shown_with_six_digits_and_all_before_the_point(number: float, text: str) -> None:
    assert numbers.shown(number) == text
