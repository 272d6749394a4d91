"""Places: what of a text can be a value, and the features that rank it."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from catalog_enrichment.models.extraction.lexicon import Counts, Known, Lexicon
from catalog_enrichment.models.extraction.places import COMMON, SPECIFIC, Own, PlaceFinder
from catalog_enrichment.models.extraction.recipe import CandidateSpec
from catalog_enrichment.models.extraction.words import key_of, shape_of
from catalog_enrichment.values.kinds import Kind, NumberRule, OpenRule

WIDTH = OpenRule(kind=Kind.NUMBER, number=NumberRule(unit="cm", low=1, high=500))
BRAND = OpenRule(kind=Kind.TEXT)


def lexicon(values: list[str]) -> Lexicon:
    shapes = Counts.of([shape_of(value) for value in values])
    return Lexicon({"brand": Known(Counts.of([key_of(value) for value in values]), shapes)})


def finder(words: Lexicon | None = None) -> PlaceFinder:
    return PlaceFinder({"brand": BRAND, "width": WIDTH}, words or Lexicon(), CandidateSpec())


def test_numbers_of_the_attributes_dimension_are_places_in_its_unit() -> None:
    places = finder().find(["Lamp 510 mm, 5 kg, 160x200 cm"], ["9000 cm and 12"])
    numbers = [(places.value[place], int(places.start[place])) for place in np.flatnonzero(places.attribute == 1)]
    assert numbers == [("51 cm", 5), ("160 cm", 19), ("200 cm", 23), ("12 cm", 12)]
    assert places.specific.shape == (len(places), SPECIFIC)
    assert places.common.shape == (len(places.words), COMMON)
    assert places.part.max() < len(places.common)


def test_the_order_in_a_product_of_numbers_is_a_feature() -> None:
    places = finder().find(["80x200x35 cm or 40 cm"], [""])
    numbers = np.flatnonzero(places.attribute == 1)
    assert places.common[places.part[numbers]][:, 8:11].tolist() == [[1, 0, 0], [0, 1, 0], [0, 0, 1], [0, 0, 0]]


def test_known_values_count_by_the_share_of_texts_in_which_they_are_the_value() -> None:
    words = lexicon(["One", "Acme", "Acme"])
    words.known["brand"].values.add_texts(np.array([key_of("one")] * 50 + [key_of("acme")] * 2, dtype=np.uint64))
    places = finder(words).find(["Acme one lamp"], [""])
    by_text = {
        "Acme one lamp"[start:end]: places.specific[place, :2].tolist()
        for place, (start, end) in enumerate(zip(places.start.tolist(), places.end.tolist(), strict=True))
        if places.attribute[place] == 0
    }
    assert by_text["Acme"] == pytest.approx([np.log1p(2), 0.5])
    assert by_text["one"] == pytest.approx([np.log1p(1), 1 / 52])
    assert by_text["lamp"] == [0, 0]


def own(values: list[str], unknown: bool) -> Own:
    return Own(
        keys={
            "brand": np.array([[key_of(value) for value in values]], np.uint64),
            "width": np.zeros((1, 0), np.uint64),
        },
        shapes={"brand": np.array([[shape_of(value) for value in values]], np.uint64)},
        asked={"brand": np.array([True]), "width": np.array([True])},
        unknown=np.array([unknown]),
        numbers={"width": np.array([[12.0, 80.0]])},
        rules={"brand": BRAND, "width": WIDTH},
    )


def test_in_training_a_products_own_label_does_not_count() -> None:
    words = lexicon(["Acme"])
    places = finder(words).find(["Acme lamp"], [""], own(["Acme"], unknown=False))
    assert not places.specific[:, :3].any()
    assert finder(words).find(["Acme lamp"], [""]).specific[:, 0].any()


def test_values_of_products_that_are_taken_for_unknown_are_not_known() -> None:
    words = lexicon(["Acme", "Acme", "Beta"])
    places = finder(words).find(["Acme lamp"], [""], own(["Acme"], unknown=True))
    assert not places.specific[:, :5].any()


def test_a_longer_known_value_from_the_same_word_is_a_feature() -> None:
    places = finder(lexicon(["Peter", "Peter England"])).find(["Peter England shirt"], [""])
    longer = {int(places.end[place]): bool(places.specific[place, 4]) for place in np.flatnonzero(places.start == 0)}
    assert longer == {5: True, 13: False, 19: False}


def test_what_says_the_label_is_right() -> None:
    labels = own(["Beta", "ACME"], unknown=False)
    title = "Acme lamp 80.5 cm 90 cm"
    places = finder().find([title], [""])
    right = labels.right(places)
    said = [title[start:end] for start, end in zip(places.start[right], places.end[right], strict=True)]
    assert said == ["Acme", "80.5 cm"]


def test_a_title_of_ten_thousand_numbers_has_a_bounded_number_of_places() -> None:
    places = finder().find([" ".join(str(number) for number in range(10_000))], [""])
    assert len(places) < 2000


def test_a_batch_without_any_word_has_no_place() -> None:
    assert len(finder().find(["...", ""], ["", ""])) == 0


def test_the_lexicon_is_the_same_after_it_was_stored() -> None:
    words = lexicon(["Acme", "Acme", "Beta"])
    again = Lexicon.of_arrays({"brand": words.known["brand"].logs}, words.arrays())
    texts = ["Acme Beta lamp"], [""]
    assert np.array_equal(finder(again).find(*texts).specific, finder(words).find(*texts).specific)


def test_in_training_only_attributes_with_a_label_have_places() -> None:
    labels = own(["Acme"], unknown=False)
    unasked = replace(labels, asked={"brand": np.array([False]), "width": np.array([True])})
    places = finder().find(["Acme lamp 80 cm"], [""], unasked)
    assert set(places.attribute.tolist()) == {1}
    assert [places.value[place] for place in range(len(places))] == ["80 cm"]
