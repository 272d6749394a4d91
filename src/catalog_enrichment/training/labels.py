"""The labels of one attribute: of a closed list, a column per learned value; of an open attribute, a single column that
says whether what a model proposes is right."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import chain

import numpy as np
from numpy.typing import NDArray

from catalog_enrichment.dictionary import Attribute
from catalog_enrichment.precision.units import Bools
from catalog_enrichment.records import ANY_VALUE, Cardinality

FEWEST_OPEN = 50
"""An open attribute with fewer labelled products is not learned."""


@dataclass(frozen=True, slots=True)
class Labels:
    """The labels of one attribute for N products, with V learned values."""

    attribute: str
    cardinality: Cardinality
    values: tuple[str, ...]
    """The learned values, in the dictionary's order."""
    truth: Bools
    """(N, V): the merchant gives this value."""
    labelled: Bools
    """(N,): the merchant gives a value, learned or not. Evaluation and certification use these products."""
    unlearned: NDArray[np.int64]
    """(N,): number of true values that are not learned; they count in the denominator of recall."""
    unlabelled: Bools
    """(N,): the attribute applies and the merchant gives no value: the products that enrichment fills."""
    too_few: str = ""
    """Why the learned values are too few for a model; "" if they are enough."""
    refused: Bools | None = None
    """(N, V): people answered that this value is wrong, and nobody which is right; None: for no product."""
    gold: Bools | None = None
    """(N,): people answered for this unlabelled product in a gold sample; None: for no product."""
    gold_truth: Bools | None = None
    """(N, V): their answers; all false where the product has no value, a value that is not learned, or where they
    could not tell."""

    right: tuple[str, ...] = ()
    """(N,): of an open attribute, the value that the merchant or, for products that only train, people give; "" where
    there is none. Empty for a closed list of values."""
    proposed: tuple[str, ...] = ()
    """(N,): of an open attribute, the value that a model proposes; "" for none. Empty before a model has proposed."""

    @property
    def is_open(self) -> bool:
        """True where no list holds the values: the only column says whether the proposed value is right."""
        return self.values == (ANY_VALUE,)

    def value(self, product: int, column: int) -> str:
        """Return the value that a column stands for: of an open attribute, the one that was proposed for the product,
        as the merchant gives it where it is right."""
        if not self.is_open:
            return self.values[column]
        right = self.right[product]
        return right if right and self.truth[product, column] else self.proposed[product]

    @property
    def learnable(self) -> Bools:
        """(N,): labelled with at least one learned value; these products are in the loss."""
        return np.asarray(self.truth.any(axis=1))

    @property
    def in_loss(self) -> Bools:
        """(N,): learnable, or with a refused value."""
        return self.learnable if self.refused is None else np.asarray(self.learnable | self.refused.any(axis=1))

    def people_only_in(self, train: NDArray[np.int64]) -> Labels:
        """Return the labels without people's answers about products that are not in ``train``: these measure
        nothing."""
        elsewhere = ~self.labelled
        elsewhere[train] = False
        if not (self.in_loss & elsewhere).any():
            return self
        if self.is_open:
            right = ["" if outside else value for value, outside in zip(self.right, elsewhere, strict=True)]
            return replace(self, truth=self.truth & ~elsewhere[:, None], right=tuple(right))
        keep = ~elsewhere[:, None]
        return replace(self, truth=self.truth & keep, refused=None if self.refused is None else self.refused & keep)


@dataclass(frozen=True, kw_only=True, slots=True)
class KnownValues:
    """What is known about one attribute of N products, a product each."""

    applies: Sequence[bool]
    """The attribute applies to the product's category."""
    merchant: Sequence[Collection[str]]
    """The merchant's values, distinct."""
    self_derived: Sequence[bool]
    """The merchant repeats a value that this system wrote or suggested."""
    people: Sequence[Sequence[str]]
    """Values that are right by people's answers, which only train."""
    refused: Sequence[Sequence[str]]
    """Values that are wrong by people's answers, which only train."""
    gold: Sequence[Sequence[str] | None]
    """People's answers in a gold sample; None: not asked."""

    def usable(self, most: float) -> list[Collection[str]]:
        """Return the merchant's values of each product; none where the truth is not known.

        It is not known where the attribute does not apply, a value is self-derived, or there are more than ``most``.
        """
        products = zip(self.applies, self.merchant, self.self_derived, strict=True)
        return [() if derived or not applies or len(values) > most else values for applies, values, derived in products]

    def unlabelled(self) -> Bools:
        """(N,): the attribute applies, and neither merchant nor people give a value."""
        products = zip(self.applies, self.merchant, self.people, self.refused, strict=True)
        return np.array([here and not (values or yes or no) for here, values, yes, no in products], dtype=bool)

    def in_gold(self, unlabelled: Bools) -> Bools:
        """(N,): people answered for this unlabelled product in a gold sample."""
        return np.asarray(unlabelled & np.array([answer is not None for answer in self.gold], dtype=bool))


def closed_labels(attribute: Attribute, known: KnownValues, min_count: int) -> Labels:
    """Return the labels of an attribute with a closed list of values; see :meth:`dataset.Dataset.labels`."""
    most = 1 if attribute.cardinality is Cardinality.ONE else np.inf
    given = known.usable(most)
    support = Counter(chain.from_iterable([*given, *known.people]))
    learned = tuple(value for value in attribute.values if support[value] >= min_count)
    truth = _in_columns(given, learned)
    unlearned = np.array([len(values) for values in given], dtype=np.int64) - truth.sum(axis=1)
    labelled = np.asarray(truth.any(axis=1) | (unlearned > 0))
    unlabelled, refused = known.unlabelled(), _in_columns(known.refused, learned)
    gold = known.in_gold(unlabelled)
    gold_truth = _in_columns([answer or () for answer in known.gold], learned) & gold[:, None]
    return Labels(
        attribute=attribute.name,
        cardinality=attribute.cardinality,
        values=learned,
        truth=truth | _in_columns(known.people, learned),
        labelled=labelled,
        unlearned=unlearned,
        unlabelled=unlabelled,
        too_few=_too_few(attribute.cardinality, learned, {v: support[v] for v in attribute.values}, labelled),
        refused=refused if refused.any() else None,
        gold=gold if gold.any() else None,
        gold_truth=gold_truth if gold.any() else None,
    )


def open_labels(attribute: Attribute, known: KnownValues) -> Labels:
    """Return the labels of an open attribute before a model has proposed anything; :func:`judged` completes them.

    A merchant value that is no value of the attribute, such as a number out of the plausible range, is no label: the
    product is neither labelled nor unlabelled. Until a model has proposed, the truth of the only column is that there
    is a value, so that folds are stratified by it.
    """
    given = [
        next((value for value in values if attribute.lists(value)), "") if values else "" for values in known.usable(1)
    ]
    people = [next((value for value in values if attribute.lists(value)), "") for values in known.people]
    labelled = np.array([bool(value) for value in given], dtype=bool)
    unlabelled = known.unlabelled()
    gold = known.in_gold(unlabelled)
    right = tuple(value or answer for value, answer in zip(given, people, strict=True))
    number = int(labelled.sum())
    return Labels(
        attribute=attribute.name,
        cardinality=attribute.cardinality,
        values=(ANY_VALUE,),
        truth=np.array([bool(value) for value in right], dtype=bool)[:, None],
        labelled=labelled,
        unlearned=np.zeros(len(given), dtype=np.int64),
        unlabelled=unlabelled,
        too_few=f"{number:,} products are labelled, and {FEWEST_OPEN} are needed" if number < FEWEST_OPEN else "",
        gold=gold if gold.any() else None,
        gold_truth=np.zeros((len(given), 1), dtype=bool) if gold.any() else None,
        right=right,
    )


def judged(
    labels: Labels, attribute: Attribute, proposed: Sequence[str], gold: Sequence[Sequence[str] | None]
) -> Labels:
    """Return the labels of an open attribute for what a model proposes: the truth is that it is the merchant's value,
    by the attribute's kind.

    ``proposed``: (N,) the stored value, "" where nothing is proposed or the product was not scored, which is never
    right. ``gold``: (N,) people's answers in a gold sample. A labelled product whose value is not proposed has an
    unlearned value: it counts in the denominator of recall.
    """
    pairs = zip(proposed, labels.right, strict=True)
    right = np.array([bool(own and value) and attribute.is_same(value, own) for value, own in pairs], dtype=bool)
    gold_truth = None
    if labels.gold is not None:
        answered = zip(proposed, gold, strict=True)
        same = [any(attribute.is_same(value, one) for one in answer or () if value) for value, answer in answered]
        gold_truth = (np.array(same, dtype=bool) & labels.gold)[:, None]
    return replace(
        labels,
        truth=right[:, None],
        unlearned=(labels.labelled & ~right).astype(np.int64),
        gold_truth=gold_truth,
        proposed=tuple(proposed),
    )


def _too_few(cardinality: Cardinality, learned: Sequence[str], support: Mapping[str, int], labelled: Bools) -> str:
    """Return why a model cannot learn an attribute by the number of its ``learned`` values; "" if it can.

    ``support``: the dictionary's values -> labelled products. A model needs two values of an attribute of cardinality
    ONE, which it tells apart, and one of an attribute of cardinality MANY.
    """
    needed = 2 if cardinality is Cardinality.ONE else 1
    if len(learned) >= needed:
        return ""
    given = {value: products for value, products in support.items() if products}
    if not given:
        products = int(labelled.sum())
        return (
            f"none of its {products:,} labelled products has a value of the dictionary"
            if products
            else ("no product has a value of it")
        )
    most = max(given, key=lambda value: given[value])
    if len(given) < needed:
        return f"all {given[most]:,} products with a value of the dictionary have {most!r}, and a model tells two apart"
    return (
        f"{len(learned)} of {len(support):,} values have enough labelled products (training.min_label_count), and "
        f"{needed} are needed: the most frequent, {most!r}, has {given[most]:,}"
    )


def _in_columns(values_by_product: Sequence[Collection[str]], columns: Sequence[str]) -> Bools:
    """(N, V): the product has the value of the column."""
    column_of = {value: column for column, value in enumerate(columns)}
    found = np.zeros((len(values_by_product), len(columns)), dtype=bool)
    for product, values in enumerate(values_by_product):
        found[product, [column_of[value] for value in values if value in column_of]] = True
    return found
