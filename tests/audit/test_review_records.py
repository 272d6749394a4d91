"""Names of people; agreement of reviewers: raw, and Cohen's kappa against figures worked out by hand."""

from __future__ import annotations

import pytest

from catalog_enrichment.audit.review_records import Answer, Verdict, agreement, person_key, person_name
from catalog_enrichment.errors import DataContractError

from .review_samples import item, verdict


def _pairs(*answers: tuple[Answer, Answer]) -> dict[str, list[Verdict]]:
    return {
        str(number): [verdict(item(number), name, answer) for name, answer in zip(("Ana", "Ben"), pair, strict=True)]
        for number, pair in enumerate(answers)
    }


def test_kappa_of_a_worked_example() -> None:
    """8 of 10 pairs agree; 12 of 20 answers are yes and 8 no: by chance .36 + .16 = .52, (.8 - .52) / .48."""
    verdicts = _pairs(*[(Answer.YES, Answer.YES)] * 5, *[(Answer.NO, Answer.NO)] * 3, *[(Answer.YES, Answer.NO)] * 2)
    found = agreement(verdicts)
    assert (found.pairs, found.agreeing, found.raw) == (10, 8, 0.8)
    assert found.kappa == pytest.approx((0.8 - 0.52) / 0.48)


def test_single_verdicts_and_adjudicators_make_no_pair() -> None:
    verdicts = [verdict(item(1), "Ana"), verdict(item(1), "Eve", Answer.NO, adjudicates=True)]
    found = agreement({"1": verdicts, "2": [verdict(item(2), "Ana")]})
    assert (found.pairs, found.raw, found.kappa) == (0, None, None)


def test_kappa_is_not_known_where_everybody_says_the_same() -> None:
    found = agreement(_pairs((Answer.YES, Answer.YES), (Answer.YES, Answer.YES)))
    assert (found.raw, found.kappa) == (1.0, None)


def test_three_reviewers_make_three_pairs() -> None:
    answers = (("A", Answer.YES), ("B", Answer.YES), ("C", Answer.OTHER, "Blue"))
    found = agreement({"1": [verdict(item(1), *answer) for answer in answers]})
    assert (found.pairs, found.agreeing) == (3, 1)


INVISIBLE = (
    *"\u200b\u200c\u200d\u2060\ufeff\u00ad\u061c\u180e\u202e\u2066\u2069\u0000\u007f\u0600\ue000\uffff",
    *"\u034f\u115f\u1160\u3164\uffa0\u17b4\u2800\ufe0f\u180b",
    *"\U000e0020\U000e0100\U000f0000",
)


@pytest.mark.parametrize("char", INVISIBLE, ids=ascii)
def test_a_character_that_shows_nothing_makes_no_other_name(char: str) -> None:
    assert person_name(f"{char}An{char}a {char} Ro{char}\u0308sler{char}") == "Ana Rösler"
    assert person_key(f"ANA{char}") == person_key("ana")
    with pytest.raises(DataContractError, match="give a name that can be read"):
        person_name(f" {char} ")


@pytest.mark.parametrize(
    ("given", "name"),
    [
        ("  Ana\tMaria\u00a0\u3000Rößler\n", "Ana Maria Rößler"),
        ("Ａｎａ", "Ana"),
        ("Zoe\u0308", "Zoë"),
        ("محمد علی", "محمد علی"),
        ("अनामिका", "अनामिका"),
        ("田中 さくら", "田中 さくら"),
        ("ana@example.org", "ana@example.org"),
        ("👩 Ana", "👩 Ana"),
    ],
)
def test_a_name_stays_readable(given: str, name: str) -> None:
    assert person_name(given) == name == person_name(name)
    assert person_key(given) == person_key(name.upper())


def test_a_name_is_refused_and_not_cut_where_it_is_too_long() -> None:
    assert person_name("a" * 80 + "\u200b " * 50) == "a" * 80
    with pytest.raises(DataContractError, match="has more than 80 characters"):
        person_name("a" * 81)
