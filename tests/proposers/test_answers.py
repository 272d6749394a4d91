"""Answers of foreign models: forms, scores, votes, and what is no proposal."""

from __future__ import annotations

import json
import math
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from catalog_enrichment.dictionary import Attribute, Dictionary
from catalog_enrichment.proposers.answers import MOST_EXAMPLES, AnswerReader, read_object
from catalog_enrichment.records import Cardinality

from ..open_words import OPEN_WORDS

COLOR = Attribute(
    name="color",
    cardinality=Cardinality.ONE,
    values=("Red", "Blue", "Gray"),
    aliases={"en": {"crimson": "Red"}, "de": {"rot": "Red"}, "es": {"rot": "Blue"}, "tr": {"kırmızı": "Red"}},
    was={"Grey": "Gray"},
)
MATERIAL = Attribute(name="material", cardinality=Cardinality.MANY, values=("Wool", "Silk", "Linen", "Cotton"))
SIZE = Attribute(name="size", cardinality=Cardinality.ONE, values=("36", "36.6"))
WORDS = Dictionary({attribute.name: attribute for attribute in (COLOR, MATERIAL, SIZE)})


def read(attribute: str, *answers: object, language: str | None = None) -> list[tuple[str, float]]:
    found = AnswerReader(WORDS).proposals(attribute, answers, language)
    assert [proposal.candidate.rank for proposal in found] == list(range(1, len(found) + 1))
    return [(proposal.candidate.value, proposal.candidate.score) for proposal in found]


def counted(attribute: str, *answers: object) -> dict[str, int]:
    reader = AnswerReader(WORDS)
    reader.proposals(attribute, answers)
    counts = reader.counts[attribute]
    names = ("proposed", "without_value", "unreadable", "bad_score", "unmapped")
    return {name: getattr(counts, name) for name in names if getattr(counts, name)}


@pytest.mark.parametrize(
    ("answer", "expected"),
    [
        ("Red", [("Red", 1.0)]),
        (" RED ", [("Red", 1.0)]),
        ("crimson", [("Red", 1.0)]),
        ("Grey", [("Gray", 1.0)]),
        ({"value": "Blue", "score": 0.5}, [("Blue", 0.5)]),
        ({"value": "Blue", "score": 0}, [("Blue", 0.0)]),
        ({"value": "Blue", "score": None}, [("Blue", 1.0)]),
        ([{"value": "Blue", "score": 0.25}, {"value": "Red", "score": 0.5}], [("Red", 0.5)]),
        ([{"value": "crimson", "score": 0.25}, {"value": "Red", "score": 0.75}], [("Red", 0.75)]),
    ],
)
def test_an_answer_is_a_value_a_dict_or_a_list(answer: object, expected: list[tuple[str, float]]) -> None:
    assert read("color", answer) == expected
    assert counted("color", answer) == {"proposed": 1}


@pytest.mark.parametrize("answer", [["Blue", "Red"], [{"value": "Blue", "score": 0.5}, {"value": "Red", "score": 0.5}]])
def test_two_values_for_one_are_no_proposal(answer: object) -> None:
    assert read("color", answer) == []
    assert counted("color", answer) == {"unreadable": 1}


def test_a_multi_valued_attribute_has_the_best_three() -> None:
    scores = {"Wool": 0.5, "Silk": 0.875, "Linen": 0.25, "Cotton": 0.75}
    given = [{"value": value, "score": score} for value, score in scores.items()]
    assert read("material", given) == [("Silk", 0.875), ("Cotton", 0.75), ("Wool", 0.5)]


def test_an_alias_is_read_in_the_products_language() -> None:
    assert read("color", "rot", language="de") == [("Red", 1.0)]
    assert read("color", "rot", language="es") == [("Blue", 1.0)]
    assert read("color", "rot") == []
    assert read("color", "KIRMIZI", language="tr") == [("Red", 1.0)]


def test_numbers_are_spellings() -> None:
    assert read("size", 36) == [("36", 1.0)]
    assert read("size", 36.0) == read("size", np.float64(36)) == [("36", 1.0)]
    assert read("size", 36.6) == read("size", np.float32(36.6)) == [("36.6", 1.0)]


def test_numbers_and_arrays_of_numpy_are_read() -> None:
    given = [{"value": np.str_("Wool"), "score": np.float32(0.5)}, {"value": "Silk", "score": np.int64(1)}]
    assert read("material", np.array(given, dtype=object)) == [("Silk", 1.0), ("Wool", 0.5)]
    assert read("material", np.array(["Silk", "Wool"])) == [("Silk", 1.0), ("Wool", 1.0)]
    assert read("size", np.array([36.6], dtype=np.float32)) == [("36.6", 1.0)]
    assert counted("color", np.array([])) == {"without_value": 1}
    assert counted("color", np.float32(math.nan), np.bool_(True)) == {"unreadable": 2}
    assert counted("color", {"value": "Red", "score": np.bool_(True)}) == {"bad_score": 1}


def test_a_number_is_read_in_the_products_language_only_from_a_text() -> None:
    def width(answer: object) -> list[str]:
        found = AnswerReader(OPEN_WORDS).proposals("width", [answer], "de")
        return [proposal.candidate.value for proposal in found]

    assert width(1.299) == width({"value": 1.299, "score": 0.5}) == ["1.299 cm"]
    assert width("1.299 mm") == ["129.9 cm"]
    assert width("1,299") == ["1.299 cm"]
    assert width(51) == ["51 cm"]


def test_answers_in_several_spellings_vote_for_one_value() -> None:
    def best(attribute: str, *answers: object) -> list[tuple[str, float]]:
        found = AnswerReader(OPEN_WORDS).proposals(attribute, answers)
        return [(proposal.candidate.value, proposal.candidate.score) for proposal in found]

    assert best("width", "109 cm", "1.09 m", "109,5 cm", "112 cm") == [("109 cm", 0.75)]
    assert best("brand", "Hewlett Packard", "HP", "hewlett-packard") == [("Hewlett Packard", 1.0)]
    assert best("brand", "Acme", "ACME.", "Dell") == [("Acme", float(np.float32(2 / 3)))]
    scored = [{"value": "1.09 m", "score": 0.25}, {"value": "109 cm", "score": 0.75}]
    assert best("width", scored) == [("109 cm", 0.75)]


def test_scores_are_those_of_the_certificates() -> None:
    [(_, score)] = read("color", {"value": "Red", "score": 0.1})
    assert score == 0.10000000149011612  # through float32


def test_several_answers_vote() -> None:
    assert read("color", "Red", "crimson", "Blue", "Red") == [("Red", 0.75)]
    assert read("material", ["Wool", "Silk"], ["Wool", "wool"]) == [("Wool", 1.0), ("Silk", 0.5)]


def test_an_answer_without_a_usable_value_votes_against_the_others() -> None:
    assert read("color", "Red", None, "mauve", True) == [("Red", 0.25)]


def test_several_scored_answers_do_not_vote() -> None:
    answers = ({"value": "Red", "score": 0.25}, {"value": "Blue", "score": 0.5}, {"value": "Red", "score": 0.375})
    assert read("color", *answers) == [("Blue", 0.5)]


@pytest.mark.parametrize("score", ["0.9", -0.1, 1.1, 95, math.nan, math.inf, True, [0.5]])
def test_a_value_whose_score_is_none_in_0_to_1_is_no_proposal(score: object) -> None:
    assert counted("color", {"value": "Red", "score": score}) == {"bad_score": 1}


def test_a_value_without_a_score_beside_scored_ones_is_no_proposal() -> None:
    answer = [{"value": "Blue", "score": 0.5}, "Red"]
    assert read("color", answer) == [("Blue", 0.5)]
    assert counted("color", answer) == {"proposed": 1, "bad_score": 1}
    assert counted("color", [{"value": "Blue", "score": "high"}, "Red"]) == {"bad_score": 2}
    assert counted("color", [{"value": "mauve", "score": 0.9}, "Red"]) == {"unmapped": 1, "bad_score": 1}


@pytest.mark.parametrize("answer", [True, {"color": "Red"}, {"value": ["Red"]}, [["Red"]], b"Red", math.nan, "  ", {}])
def test_what_is_in_none_of_the_forms_is_counted(answer: object) -> None:
    assert counted("color", answer) == {"unreadable": 1}


def test_a_number_that_is_too_long_to_be_written_is_counted() -> None:
    assert counted("size", 10**5000, 1e300) == {"unreadable": 2}


@pytest.mark.parametrize("answer", [None, "", [], (), [None], np.array([]), np.array(None)])
def test_an_answer_can_say_that_there_is_no_value(answer: object) -> None:
    assert counted("color", answer) == {"without_value": 1}


def test_values_that_the_dictionary_lacks_are_counted_with_examples() -> None:
    reader = AnswerReader(WORDS)
    for number in range(10_000):
        reader.proposals("color", [f"shade {number}"])
    for _ in range(3):
        assert reader.proposals("color", ["mauve " * 30]) == []
        reader.proposals("color", ["shade 7", "one too many to be told apart", "mauve " * 30])
    counts = reader.counts["color"]
    assert (counts.proposed, counts.unmapped) == (0, 10_012)
    assert len(counts.examples()) == MOST_EXAMPLES
    assert list(counts.examples().items())[:2] == [("shade 7", 4), ("shade 0", 1)]


def test_a_long_text_is_no_example() -> None:
    reader = AnswerReader(WORDS)
    reader.proposals("color", ["mauve", "mauve " * 30])
    assert reader.counts["color"].examples() == {"mauve": 1}


def test_evidence_is_that_of_the_answer_that_counts() -> None:
    reader = AnswerReader(WORDS)
    worse, better = ({"value": "Red", "score": score, "evidence": str(score)} for score in (0.25, 0.5))
    assert [found.evidence for found in reader.proposals("color", [worse, better])] == ["0.5"]
    voted = [
        {"value": "Red", "evidence": 3},
        {"value": "Red", "evidence": "a red shirt"},
        {"value": "Red", "evidence": "red"},
    ]
    assert [found.evidence for found in reader.proposals("color", voted)] == ["a red shirt"]


def test_an_unknown_attribute_is_an_error() -> None:
    with pytest.raises(KeyError, match="brand"):
        AnswerReader(WORDS).proposals("brand", ["Acme"])


SCORE = st.one_of(st.none(), st.floats(), st.integers(), st.text(max_size=3))
VALUE = st.one_of(st.sampled_from(["Red", "rot", "Blue", "mauve"]), st.none(), st.booleans(), st.floats(), st.text())
CELL = st.one_of(VALUE, st.fixed_dictionaries({"value": VALUE, "score": SCORE}))


@given(st.lists(st.one_of(CELL, st.lists(CELL, max_size=4)), max_size=4))
def test_whatever_is_answered_proposals_are_values_with_scores(answers: list[Any]) -> None:
    for attribute, most in (("color", 1), ("material", 3)):
        found = read(attribute, *answers)
        assert len(found) <= most
        assert all(value in WORDS[attribute].values and 0 <= score <= 1 for value, score in found)
        assert sorted((score for _, score in found), reverse=True) == [score for _, score in found]


# --- texts of language models -----------------------------------------------------------------------------------------

RED = {"color": "Red", "material": ["Wool"]}


@pytest.mark.parametrize(
    "text",
    [
        "{}",
        "```json\n{}\n```",
        "Here is {the answer}, as in [1]:\n\n{}\n\nI hope that helps {a lot}.",
        "[{}]",
        "{}\nThat is: {}",
    ],
)
def test_the_object_of_a_text_is_read(text: str) -> None:
    for answer in (json.dumps(RED), json.dumps(RED, indent=2)):
        assert read_object(text.replace("{}", answer)) == RED


@pytest.mark.parametrize(
    "text",
    [
        "",
        "Red",
        "[1]",
        '{"color": "Red", "more": {"material": "Wool"}',  # cut off: what is inside is another object
        '{"color": "Red", "color": "Blue"}',
        '{"color": {"value": "Red", "score": NaN}}',
        '{"color": "Red"} No, wait: {"color": "Blue"}',
        "{'color': 'Red'}",
        '{"size": 1e999}',
        '{"color": true} {"color": 1}',
        '{"a":' * 100_000,
    ],
)
def test_a_text_is_not_guessed(text: str) -> None:
    assert read_object(text) is None
