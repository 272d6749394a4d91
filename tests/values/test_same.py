"""Values of open attributes: what they are stored as, why a text is none, when two are the same."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from catalog_enrichment.values import numbers, same, units
from catalog_enrichment.values.kinds import Kind, NumberRule, OpenRule
from catalog_enrichment.values.same import Problem

WIDTH = OpenRule(kind=Kind.NUMBER, number=NumberRule(unit="cm", low=1, high=500))
BRAND = OpenRule(kind=Kind.TEXT, aliases={"H P": "Hewlett-Packard"})


@pytest.mark.parametrize(
    ("text", "stored"),
    [
        ("51", "51 cm"),
        ("51 cm", "51 cm"),
        ("510mm", "51 cm"),
        ('20"', "50.8 cm"),
        ("(½ m)", "50 cm"),
        ("٥١ cm", "51 cm"),
        ("５１ｃｍ", "51 cm"),
        ("1", "1 cm"),
        ("500", "500 cm"),
    ],
)
def test_numbers_are_stored_in_the_attributes_unit(text: str, stored: str) -> None:
    assert same.stored(text, WIDTH) == stored
    assert same.why_not(text, WIDTH) is None
    assert same.stored(stored, WIDTH) == stored


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("", Problem.EMPTY),
        ("--", Problem.EMPTY),
        ("wide", Problem.NO_NUMBER),
        ("1e400", Problem.NO_NUMBER),
        ("12-15 cm", Problem.SEVERAL_NUMBERS),
        ("160x200 cm", Problem.SEVERAL_NUMBERS),
        ("approx. 5", Problem.OTHER_WORDS),
        ("5 foo", Problem.OTHER_WORDS),
        ("5 kg", Problem.OTHER_UNIT),
        ("9000 cm", Problem.NOT_PLAUSIBLE),
        ("0.99 cm", Problem.NOT_PLAUSIBLE),
        ("5" * 300, Problem.TOO_LONG),
    ],
)
def test_what_is_no_number_of_the_attribute_says_why(text: str, problem: Problem) -> None:
    assert same.why_not(text, WIDTH) is problem
    assert same.stored(text, WIDTH) is None


def test_a_k_is_thousands_but_for_karats() -> None:
    assert same.stored("15K", OpenRule(kind=Kind.NUMBER, number=NumberRule(unit="rpm"))) == "15000 rpm"
    assert same.stored("14K", OpenRule(kind=Kind.NUMBER, number=NumberRule(unit="kt"))) == "14 kt"


@pytest.mark.parametrize(
    ("text", "unit", "stored"),
    [
        ("6500K", "K", "6500 K"),
        ("6500 K", "kelvin", "6500 kelvin"),
        ("300K", "°C", "26.85 °C"),
        ("16A", "A", "16 A"),
        ("16 A", "mA", "16000 mA"),
        ("10 M", "cm", "1000 cm"),
        ("1.5M", "m", "1.5 m"),
        ("16 a", "A", "16 A"),
    ],
)
def test_a_capital_letter_alone_behind_a_number_is_its_unit(text: str, unit: str, stored: str) -> None:
    assert same.stored(text, OpenRule(kind=Kind.NUMBER, number=NumberRule(unit=unit))) == stored


def test_a_letter_that_is_no_unit_of_the_attribute_is_refused() -> None:
    assert same.why_not("16 A", WIDTH) is Problem.OTHER_UNIT
    assert same.why_not("16 B", WIDTH) is Problem.OTHER_WORDS


@pytest.mark.parametrize(
    ("text", "stored"),
    [
        ("  51   cm ", "51 cm"),
        ("\u200e51\u00a0cm\u200f", "51 cm"),
        ("51\u200bcm", "51 cm"),
        ("٥١\u200f cm", "51 cm"),
        ("٥٠ سم", "50 cm"),
        ("510 мм", "51 cm"),
        ("０．５１米", "51 cm"),
        ("51センチ", "51 cm"),
        ("(20 in)", "50.8 cm"),
        ("1,5 m", "150 cm"),
        ("+51", "51 cm"),
        ("100 cm (39.4 in)", "100 cm"),
        ("39.4in / 100cm", "100.076 cm"),
        ("0.5 m = 50 cm", "50 cm"),
    ],
)
def test_unusual_spellings_are_read(text: str, stored: str) -> None:
    assert same.stored(text, WIDTH) == stored


@pytest.mark.parametrize(
    "text",
    [
        "100 cm (40 in)",  # 1.6% apart
        "100 cm or 39.4 in",
        "50 / 50 cm",
        "50 50",
        "50 cm, 5 kg",
        "160 cm x 160 cm",
        "900 cm = 9 m",
    ],
)
def test_several_numbers_are_no_value_unless_they_are_one_in_two_units(text: str) -> None:
    assert same.why_not(text, WIDTH) is Problem.SEVERAL_NUMBERS


@pytest.mark.parametrize(
    ("low", "high", "text", "is_value"),
    [
        (1, 500, "1", True),
        (1, 500, "500", True),
        (1, 500, "0.999", False),
        (1, 500, "500.001", False),
        (1, 500, "5.001 m", False),
        (1, 500, "5 m", True),
        (None, 500, "-40", True),
        (0, None, "123456789", True),
        (0, None, "-1", False),
        (0, None, "0", True),
        (None, None, "-0", True),
    ],
)
def test_the_plausible_range_has_its_ends(low: float | None, high: float | None, text: str, is_value: bool) -> None:
    rule = OpenRule(kind=Kind.NUMBER, number=NumberRule(unit="cm", low=low, high=high))
    assert same.why_not(text, rule) is (None if is_value else Problem.NOT_PLAUSIBLE)


@given(st.sampled_from(sorted({text for texts in units._SPELLINGS.values() for text in texts.split()})),
       st.floats(1e-12, 1e15) | st.floats(-1e15, -1e-12) | st.just(0.0))  # fmt: skip
def test_what_is_stored_is_read_as_itself_in_every_unit(unit: str, number: float) -> None:
    rule = OpenRule(kind=Kind.NUMBER, number=NumberRule(unit=unit))
    stored = same.stored(f"{numbers.shown(number)} {unit}", rule)
    assert stored == f"{numbers.shown(number)} {unit}"
    assert same.stored(stored, rule) == stored


def test_only_the_units_that_are_listed_are_converted() -> None:
    metric = OpenRule(kind=Kind.NUMBER, number=NumberRule(unit="cm", units=("mm",)))
    assert same.stored("510 mm", metric) == "51 cm"
    assert same.why_not('20"', metric) is Problem.OTHER_UNIT


@pytest.mark.parametrize("text", ["1e-13", "1e16 cm", "1e300", "-1e16", "1e-300 km"])
def test_numbers_that_nobody_could_print_are_not_plausible(text: str) -> None:
    assert same.why_not(text, OpenRule(kind=Kind.NUMBER, number=NumberRule(unit="cm"))) is Problem.NOT_PLAUSIBLE


def test_a_number_without_a_unit_takes_no_unit() -> None:
    count = OpenRule(kind=Kind.NUMBER, number=NumberRule(unit=""))
    assert same.stored("12", count) == "12"
    assert same.why_not("12 cm", count) is Problem.OTHER_UNIT


def test_numbers_are_the_same_within_the_tolerance() -> None:
    assert same.is_same("100 cm", "101 cm", WIDTH)
    assert not same.is_same("100 cm", "101.1 cm", WIDTH)
    exact = OpenRule(kind=Kind.NUMBER, number=NumberRule(unit="cm", tolerance=0))
    assert same.is_same("100 cm", "100 cm", exact)
    assert not same.is_same("100 cm", "100.1 cm", exact)
    assert NumberRule(unit="cm", tolerance=0).is_same(5.0, 5.0)


def test_numbers_in_other_units_are_the_same() -> None:
    assert same.is_same("109 cm", "1.09 m", WIDTH)
    assert not same.is_same("109 cm", "1.09 kg", WIDTH)
    assert not same.is_same("109 cm", "1.2 m", WIDTH)
    assert not same.is_same("wide", "broad", WIDTH)


def test_an_alias_is_the_same_as_its_text() -> None:
    assert same.is_same("HP", "Hewlett Packard", BRAND)
    assert same.is_same("hewlett-packard", "h.p.", BRAND)
    assert not same.is_same("HP", "Dell", BRAND)


@pytest.mark.parametrize(
    ("first", "second", "are_same"),
    [
        ("WD-40", "wd 40", True),
        ("Peter England", "PETER  ENGLAND", True),
        ("Café", "Cafe\u0301", True),
        ("A+", "A", False),  # I1
        ("C#", "C", False),
        ("None", "Nones", False),
    ],
)
def test_case_punctuation_spaces_and_unicode_forms_of_a_text_do_not_count(
    first: str, second: str, are_same: bool
) -> None:
    assert same.is_same(first, second, BRAND) is are_same


def test_a_text_is_stored_as_it_is_written_or_as_its_alias_says() -> None:
    assert same.stored("  Peter\n England ", BRAND) == "Peter England"
    assert same.stored("hp", BRAND) == "Hewlett-Packard"
    assert same.stored("None", BRAND) == "None"
    assert same.why_not("-", BRAND) is Problem.EMPTY
    assert same.why_not("x" * 201, BRAND) is Problem.TOO_LONG


@pytest.mark.parametrize(
    ("text", "bare", "stored"),
    [
        ("80 mm", False, ["8 cm"]),
        ("80", False, [None]),
        ("80", True, ["80 cm"]),
        ("5 kg", True, [None]),
        ("900 cm", True, [None]),
        ("2x500 ml", True, ["2 cm", None]),  # the 2 is a count, or whatever the attribute is
    ],
)
def test_numbers_in_texts_are_stored_if_the_attribute_can_have_them(
    text: str, bare: bool, stored: list[str | None]
) -> None:
    assert [same.stored_number(literal, WIDTH, bare=bare) for literal in numbers.find(text)] == stored


def test_the_number_of_a_stored_value() -> None:
    assert same.number_of("50.8 cm", WIDTH) == 50.8
    assert same.number_of("Acme", BRAND) is None
