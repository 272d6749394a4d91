"""Labels of attributes without a closed list, before and after a model has proposed values."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from catalog_enrichment.dictionary import Attribute
from catalog_enrichment.records import ANY_VALUE, Cardinality
from catalog_enrichment.training.labels import FEWEST_OPEN, KnownValues, Labels, judged, open_labels
from catalog_enrichment.values.kinds import Kind, NumberRule

WIDTH = Attribute(
    name="width",
    cardinality=Cardinality.ONE,
    kind=Kind.NUMBER,
    number=NumberRule(unit="cm", low=1, high=500),
)


def known(*merchant: tuple[str, ...], **changes: Any) -> KnownValues:
    number = len(merchant)
    usual: dict[str, Any] = {
        "applies": [True] * number,
        "merchant": list(merchant),
        "self_derived": [False] * number,
        "people": [()] * number,
        "refused": [()] * number,
        "gold": [None] * number,
    }
    return KnownValues(**usual | changes)


def given(labels: Labels) -> list[tuple[bool, bool, str]]:
    """Labelled, unlabelled and the right value of every product."""
    return list(zip(labels.labelled.tolist(), labels.unlabelled.tolist(), labels.right, strict=True))


def test_only_what_is_a_value_of_the_attribute_is_a_label() -> None:
    labels = open_labels(WIDTH, known(("50 cm",), ("12-15 cm",), ("900 cm",), (), ("50 cm", "60 cm")))
    nothing = (False, False, "")
    assert given(labels) == [(True, False, "50 cm"), nothing, nothing, (False, True, ""), nothing]
    assert labels.values == (ANY_VALUE,)
    assert labels.is_open
    assert labels.truth[:, 0].tolist() == [True, False, False, False, False]


def test_what_the_system_wrote_itself_is_no_label_and_other_categories_are_not_filled() -> None:
    labels = open_labels(WIDTH, known(("50 cm",), (), self_derived=[True, False], applies=[True, False]))
    assert given(labels) == [(False, False, ""), (False, False, "")]


def test_peoples_answers_train_and_measure_nothing() -> None:
    labels = open_labels(WIDTH, known((), ("50 cm",), people=[("70 cm",), ()]))
    assert given(labels) == [(False, False, "70 cm"), (True, False, "50 cm")]
    assert labels.learnable.tolist() == [True, True]
    elsewhere = labels.people_only_in(np.array([1]))
    assert (elsewhere.right, elsewhere.learnable.tolist()) == (("", "50 cm"), [False, True])


@pytest.mark.parametrize(("number", "few"), [(FEWEST_OPEN - 1, True), (FEWEST_OPEN, False)])
def test_few_labels_are_too_few(number: int, few: bool) -> None:
    assert bool(open_labels(WIDTH, known(*[("50 cm",)] * number)).too_few) is few


def test_what_is_proposed_is_judged_by_the_kind() -> None:
    merchant = [("100 cm",), ("100 cm",), ("100 cm",), ()]
    labels = open_labels(WIDTH, known(*merchant))
    found = judged(labels, WIDTH, ["100.5 cm", "102 cm", "", "70 cm"], [None] * 4)
    assert found.truth[:, 0].tolist() == [True, False, False, False]
    assert found.unlearned.tolist() == [0, 1, 1, 0]
    assert [found.value(product, 0) for product in range(4)] == ["100 cm", "102 cm", "", "70 cm"]


def test_people_answer_for_a_gold_sample() -> None:
    gold = [("70 cm",), (), ("70 cm",), None]
    labels = open_labels(WIDTH, known((), (), (), (), gold=gold))
    assert labels.gold is not None
    assert labels.gold.tolist() == [True, True, True, False]
    found = judged(labels, WIDTH, ["70.2 cm", "70 cm", "", "70 cm"], gold)
    assert found.gold_truth is not None
    assert found.gold_truth[:, 0].tolist() == [True, False, False, False]
