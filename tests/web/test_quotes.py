"""Evidence is found in the texts that have it, and told in a sentence."""

from __future__ import annotations

import pytest

from catalog_enrichment.web.quotes import LONGEST_LOOSE, LONGEST_TOLD, Evidence, excerpt

TITLE = "Cot <b>MALM</b> & slats, 160x200 cm"


@pytest.mark.parametrize(
    ("quote", "title", "description", "marked"),
    [
        ("160x200 cm", TITLE, "also 160x200 cm", {"title": ("Cot <b>MALM</b> & slats, ", "160x200 cm", "")}),
        ("of oak", TITLE, "Legs of oak, of oak.", {"description": ("Legs ", "of oak", ", of oak.")}),
        ("</b> & slats", TITLE, "", {"title": ("Cot <b>MALM", "</b> & slats", ", 160x200 cm")}),
        (" 2 kg\n", "12 kg bag, 2 kg net", "", {"title": ("12 kg bag, ", "2 kg", " net")}),
        ("2 kg", "12 kg bag", "net 2 kg", {"description": ("net ", "2 kg", "")}),
        ("2 kg", "12 kg bag", "", {"title": ("1", "2 kg", " bag")}),
        ("US", "contact us for US sizes", "", {"title": ("contact us for ", "US", " sizes")}),
        ("Solid oak", "a SOLID\n  oak table", "", {"title": ("a ", "SOLID\n  oak", " table")}),
        ("a.c", "abc a.c", "", {"title": ("abc ", "a.c", "")}),
        ("45%", "45%cotton", "", {"title": ("", "45%", "cotton")}),
        ("weiß", None, "WEISS weiß", {"description": ("WEISS ", "weiß", "")}),
        ("in the picture", TITLE, "", {}),
        ("160x200 cm", None, None, {}),
        ("  ", " ", " ", {}),
        (None, "None", "", {}),
    ],
)
def test_the_first_place_that_has_the_evidence_is_marked(
    quote: str | None, title: str | None, description: str | None, marked: dict[str, tuple[str, str, str]]
) -> None:
    found = Evidence.of(quote, title, description)
    assert found.marked == marked
    assert bool(found.beside) == bool((quote or "").strip() and not marked)


def test_a_long_quote_is_looked_for_as_it_is() -> None:
    quote = "ab " * (LONGEST_LOOSE // 3) + "ab"
    assert Evidence.of(quote, f"x{quote}", "").marked == {"title": ("x", quote, "")}
    assert Evidence.of(quote, quote.upper(), "").marked == {}


def test_a_sentence_says_whether_the_text_has_it() -> None:
    found = Evidence.of("solid oak", "SOLID\n oak table", "")
    assert (found.sentence, found.beside) == ('The text says "SOLID oak".', "")
    other = Evidence.of(" the picture:\noak ", "table", "")
    assert other.sentence == other.beside == 'The model gives as evidence "the picture: oak".'
    assert Evidence.of("", "table", "").sentence == Evidence.of(None, "", "").beside == ""
    long = Evidence.of("x" * 1000, "", "").sentence
    assert len(long) == LONGEST_TOLD + len('The model gives as evidence "".')
    assert long.endswith('x…".')


def test_an_excerpt_has_whole_words_around_the_quote() -> None:
    assert excerpt(("Cot ", "160 cm", " wide"), around=5) == ("Cot ", "160 cm", " wide")
    assert excerpt(("A big cot of ", "160 cm", " in white oak"), around=8) == ("… cot of ", "160 cm", " in …")
    assert excerpt(("x" * 9, "160 cm", "y" * 9), around=8) == ("…" + "x" * 8, "160 cm", "y" * 8 + "…")
    assert excerpt(("", "x" * 1000, ""))[1] == "x" * (LONGEST_TOLD - 1) + "…"
