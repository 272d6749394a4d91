"""A model version's labels beside a dictionary that has changed since it was trained."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from catalog_enrichment.catalog.value_names import Names
from catalog_enrichment.dictionary import Attribute, Dictionary
from catalog_enrichment.models.spec import Head
from catalog_enrichment.precision.units import ValueCount
from catalog_enrichment.records import ANY_VALUE, Cardinality
from catalog_enrichment.registry.label_check import LabelCheck, check_labels, values_by_name
from catalog_enrichment.values.kinds import Kind, NumberRule, OpenRule

from ..sample_certificate import certificate

HEADS = {"color": Head(Cardinality.ONE, ("Blue", "Grey", "Red"))}
COLOR = Attribute(name="color", cardinality=Cardinality.ONE, values=("Blue", "Grey", "Red"))
GREY_IS_GRAY = Names({("color", "Grey"): "Gray"})


def words(*attributes: Attribute) -> Dictionary:
    return Dictionary({attribute.name: attribute for attribute in attributes})


def test_labels_that_fit_say_nothing() -> None:
    assert check_labels(HEADS, words(COLOR), Names()) == LabelCheck()
    renamed = replace(COLOR, values=("Blue", "Gray", "Red"))
    assert check_labels(HEADS, words(renamed), GREY_IS_GRAY) == LabelCheck()
    assert check_labels(HEADS, words(replace(COLOR, enabled=False, values=("X",))), Names()) == LabelCheck()


@pytest.mark.parametrize(
    ("changes", "line"),
    [
        ({"values": ("Blue", "Grey", "Red", "Black")}, "cannot predict color 'Black'"),
        ({"values": ("Blue", "Red")}, "color 'Grey' is not in the dictionary any more"),
        ({"name": "size"}, "cannot predict size: train_model"),
    ],
)
def test_differences_are_said_and_stop_nothing(changes: dict[str, Any], line: str) -> None:
    found = check_labels(HEADS, words(replace(COLOR, **changes)), Names())
    assert found.stopped == {}
    assert line in "\n".join(found.differences)


def test_another_kind_stops_the_attribute() -> None:
    number = Attribute(
        name="color",
        cardinality=Cardinality.ONE,
        kind=Kind.NUMBER,
        number=NumberRule(unit="cm"),
    )
    assert "kind number" in check_labels(HEADS, words(number), Names()).stopped["color"]
    heads = {"color": Head(Cardinality.ONE, (ANY_VALUE,))}
    assert "kind closed" in check_labels(heads, words(COLOR), Names()).stopped["color"]
    assert check_labels(heads, words(number), Names()) == LabelCheck()


@pytest.mark.parametrize(
    ("certified", "now", "says"),
    [
        ({"tolerance": 0.1}, {"tolerance": 0.01}, "says tolerance 0.01, the model version was certified with 0.1"),
        ({"tolerance": 0.01}, {"tolerance": 0.1}, ""),
        ({"low": 1.0}, {"low": 5.0}, ""),
        (None, {}, "says kind number, the model version was trained for text"),
        ({"HP": "Hewlett-Packard"}, {"HP": "Hewlett-Packard", "H.P. Inc": "Hewlett-Packard"}, ""),
        ({"HP": "Hewlett-Packard"}, {}, "has no alias 'hp'"),
        ({"HP": "Hewlett-Packard"}, {"HP": "Hewlett"}, "has no alias 'hp'"),
    ],
)
def test_a_stricter_rule_of_an_open_attribute_stops_it(certified: Any, now: dict[str, Any], says: str) -> None:
    """What was certified as the same value is not the same any more."""
    if certified and "HP" in certified:
        rule = OpenRule(kind=Kind.TEXT, aliases=certified)
        size = Attribute(name="size", cardinality=Cardinality.ONE, kind=Kind.TEXT, aliases={"en": now})
    else:
        number = certified and NumberRule(unit="cm", **certified)
        rule = OpenRule(kind=Kind.NUMBER if number else Kind.TEXT, number=number)
        size = Attribute(
            name="size", cardinality=Cardinality.ONE, kind=Kind.NUMBER, number=NumberRule(unit="cm", **now)
        )
    found = check_labels({"size": Head(Cardinality.ONE, (ANY_VALUE,), rule)}, words(size), Names())
    assert found.stopped == {} if not says else says in found.stopped["size"]


def test_another_cardinality_stops_the_attribute_alone() -> None:
    heads = HEADS | {"size": Head(Cardinality.ONE, ("S",))}
    size = Attribute(name="size", cardinality=Cardinality.ONE, values=("S",))
    found = check_labels(heads, words(replace(COLOR, cardinality=Cardinality.MANY), size), Names())
    assert list(found.stopped) == ["color"]
    assert "cardinality many" in found.stopped["color"]


@pytest.mark.parametrize(("wrong_of_others", "stopped"), [(10, False), (11, True)])
def test_values_whose_absence_breaks_the_promise_stop_the_attribute(wrong_of_others: int, stopped: bool) -> None:
    """Grey was never wrong; of the 200 other products at most 10 may be."""
    counts = (ValueCount("Grey", 300, 0), ValueCount("Blue", 200, wrong_of_others))
    issued = certificate(
        attribute="color",
        values=HEADS["color"].labels,
        threshold=0.9,
        accepted=500,
        wrong=wrong_of_others,
        by_value=counts,
    )
    for without, names in ((("Blue", "Red"), Names()), (("Blue", "Red"), GREY_IS_GRAY)):
        found = check_labels(HEADS, words(replace(COLOR, values=without)), names, [issued])
        assert bool(found.stopped) is stopped
    assert not check_labels(HEADS, words(COLOR), Names(), [issued]).stopped


def test_a_product_of_several_values_counts_for_each_that_stays() -> None:
    """Every product has two values: by value there are more than products."""
    counts = (ValueCount("Blue", 300, 2), ValueCount("Grey", 150, 3), ValueCount("Red", 120, 4))
    labels = HEADS["color"].labels
    issued = certificate(attribute="color", values=labels, threshold=0.9, accepted=300, wrong=9, by_value=counts)
    heads = {"color": Head(Cardinality.MANY, labels)}
    left = replace(COLOR, cardinality=Cardinality.MANY, values=("Grey", "Red"))
    assert check_labels(heads, words(left), Names(), [issued]).stopped == {}
    many_wrong = replace(issued, by_value=(*counts[:2], ValueCount("Red", 120, 11)))
    assert list(check_labels(heads, words(left), Names(), [many_wrong]).stopped) == ["color"]


def test_as_many_wrong_as_promised_are_not_more() -> None:
    for target, accepted, wrong in ((0.9, 100, 10), (0.8, 5, 1), (0.95, 60, 3)):
        counts = (ValueCount("Blue", 1, 0), ValueCount("Grey", accepted, wrong))
        rule = {"target": target, "threshold": 0.9, "accepted": accepted + 1, "wrong": wrong, "by_value": counts}
        issued = certificate(attribute="color", values=HEADS["color"].labels, **rule)
        left = words(replace(COLOR, values=("Grey", "Red")))
        assert not check_labels(HEADS, left, Names(), [issued]).stopped
        worse = replace(issued, by_value=(ValueCount("Grey", accepted, wrong + 1),))
        assert check_labels(HEADS, left, Names(), [worse]).stopped


def test_values_by_name_are_those_that_the_dictionary_lists() -> None:
    labels = {"color": ("Blue", "Grey", "Gray", "Red"), "size": ("S",)}
    merged = words(replace(COLOR, values=("Gray", "Red")))
    assert values_by_name(labels, merged, GREY_IS_GRAY) == {"color": ("Gray", "Red")}
