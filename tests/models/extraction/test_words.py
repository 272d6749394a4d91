"""Words and runs: every run has the key and the shape that its text would have by itself."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from catalog_enrichment.models.extraction.words import Runs, Words, key_of, runs, shape_of, split


def texts_of(words: Words, found: Runs) -> list[str]:
    return [
        words.texts[words.product[first]][int(words.in_description[first])][words.start[first] : words.end[last]]
        for first, last in zip(found.first.tolist(), found.last.tolist(), strict=True)
    ]


def test_runs_do_not_leave_their_text_and_have_at_most_so_many_words() -> None:
    words = split(["Acme Lamp", "Beta"], ["red", ""], 10)
    assert sorted(texts_of(words, runs(words, 2))) == ["Acme", "Acme Lamp", "Beta", "Lamp", "red"]
    assert sorted(texts_of(words, runs(words, 1))) == ["Acme", "Beta", "Lamp", "red"]


@pytest.mark.parametrize(
    ("title", "expected"),
    [
        ('4" pipe', '4"'),
        ("A+ rated", "A+"),
        ("50% wool", "50%"),
        ("WD-40 oil", "WD-40"),
        ('the "big" one', "big"),
        ("AT&T phone", "AT&T"),
        ("C++ compiler", "C++"),
        ("fridge A+++, white", "A+++"),
        ("rated A- by us", "A-"),
        ("LEGO\u00ae City", "LEGO\u00ae City"),
        ("Scotch\u2122 tape", "Scotch"),
        ("\u0939\u093f\u0928\u094d\u0926\u0940 \u0915\u092a", "\u0939\u093f\u0928\u094d\u0926\u0940"),
        ("cafe\u0301 cup", "cafe\u0301"),
    ],
)
def test_signs_that_belong_to_a_word_are_in_its_run(title: str, expected: str) -> None:
    words = split([title], [""], 10)
    found = runs(words, 3)
    place = texts_of(words, found).index(expected)
    assert int(found.key[place]) == key_of(expected)


@pytest.mark.parametrize(("title", "not_a_value"), [("size 12-15", "12-"), ("big-ish", "big-"), ("A+++++", "A++++")])
def test_other_signs_belong_to_no_run(title: str, not_a_value: str) -> None:
    words = split([title], [""], 10)
    assert not_a_value not in texts_of(words, runs(words, 3))


@pytest.mark.parametrize(
    ("title", "expected"),
    [
        ("Hard DrivePart Number", "Hard Drive"),
        ("UPC: 039956980999INNER", "039956980999"),
        ("13w x 4d", "13"),
        ("Acme XR106B40 toner", "XR106B40"),
        ("Acme LaserJet", "LaserJet"),
    ],
)
def test_words_without_a_space_between_them_are_words_and_together_one_run(title: str, expected: str) -> None:
    words = split([title], [""], 10)
    found = runs(words, 3)
    place = texts_of(words, found).index(expected)
    assert (int(found.key[place]), int(found.shape[place])) == (key_of(expected), shape_of(expected))


@pytest.mark.parametrize("title", ["Lamp", "LAMP", "4711", "B21", "a1b2c3d4e5f6"])
def test_words_and_codes_are_not_cut(title: str) -> None:
    assert texts_of(split([title], [""], 10), runs(split([title], [""], 10), 3)) == [title]


def test_a_sign_of_the_next_text_belongs_to_no_word_before_it() -> None:
    words = split(["9", " #"], ["", ""], 10)
    assert texts_of(words, runs(words, 2)) == ["9"]


@given(st.lists(st.text(alphabet="aB9+#&.-'\" é½", max_size=12), min_size=1, max_size=4))
def test_the_key_of_a_run_is_that_of_its_text(titles: list[str]) -> None:
    words = split(titles, [""] * len(titles), 50)
    found = runs(words, 3)
    for text, key in zip(texts_of(words, found), found.key.tolist(), strict=True):
        if not set(text) & set(".-'\""):  # what these signs mean depends on what stands around them
            assert key == key_of(text)


def test_spellings_of_one_value_have_one_key() -> None:
    assert key_of("WD-40") == key_of("wd 40") == key_of("WD40")
    assert key_of("LEGO\u00ae") == key_of("Lego\u2122") == key_of("LEGO")
    assert key_of("A+") != key_of("A")
    assert key_of("C++") != key_of("C+")


def test_shapes_tell_part_numbers_from_words() -> None:
    assert shape_of("AB-1234") == shape_of("XY-9876")
    assert shape_of("AB-1234") != shape_of("AB-12345")
    assert shape_of("Lamp") == shape_of("Chair")
    assert shape_of("Lamp") != shape_of("LAMP")


def test_a_run_knows_its_shape() -> None:
    words = split(["drive AB-1234 new"], [""], 10)
    found = runs(words, 2)
    place = texts_of(words, found).index("AB-1234")
    assert int(found.shape[place]) == shape_of("AB-1234")


def test_a_long_text_is_read_up_to_a_limit() -> None:
    words = split([" ".join(f"w{number}" for number in range(10_000))], [""], 50)
    assert int(words.is_word.sum()) == 50
    assert len(runs(words, 7).first) == 7 * 50 - 21
    assert np.array_equal(words.left[words.is_word], np.arange(50, 0, -1))
