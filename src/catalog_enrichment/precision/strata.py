"""Weights of certification products, so that they represent the unlabelled products (PRECISION, certificate 5).

A slice is a language and a category path. Only slices with certification products and unlabelled products take part. A
cell is part of one language: a category and a class of content-group sizes. The weight of a product is its cell's share
of the unlabelled products over its cell's share of the certification products. A cell with too little evidence (fewer
than ``MIN_ACCEPTED`` accepted certification products, or a weight above ``MAX_WEIGHT``) is merged, by size first, then
with the parent category, never across languages; a first-level category or a language with too little is refused.
Cells depend on languages, categories, group sizes and acceptance, never on labels, so they may differ between
thresholds.

Shapes: n certification products, S slices, C = 3 S combinations of a slice and a size class.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from math import ceil
from typing import Any, TypeVar

import numpy as np
from numpy.typing import ArrayLike

from catalog_enrichment.precision.certificate import RefusedCategory, RefusedLanguage, Stratum
from catalog_enrichment.precision.units import Bools, Floats, Ints, StratifiedProducts, ratio

MIN_ACCEPTED = 20
"""A cell with fewer accepted certification products is merged; a first-level category or language with fewer is
refused."""

LARGE_CATEGORY = 100
"""A category below the first level has cells of its own from this many accepted certification products on."""

MAX_WEIGHT = 20.0
"""A cell that would weigh more is merged, a first-level category refused. Cutting the weight instead would count such
products too little while they are written (11.6% violations simulated with 25 of 2,200 products for 60% of the
unlabelled)."""

FEW = f"fewer than {MIN_ACCEPTED} certification products are accepted"
HEAVY = f"too little evidence: one certification product would stand for more than {MAX_WEIGHT:.0f}"
"""The reasons for the refusal of a category or language."""

SIZE_STARTS = (1, 2, 6)
"""First content-group size of each size class: 1, 2-5, 6 and more."""

_SIZE_MERGES = (((0,), (1,), (2,)), ((0,), (1, 2)), ((0, 1, 2),))
"""Ways to divide the size classes, the finest first."""

_SIZE_NAMES = {(0,): "groups of 1", (1,): "groups of 2-5", (2,): "groups of 6+", (1, 2): "groups of 2+"}

Item = TypeVar("Item")
Key = TypeVar("Key")

Slice = tuple[str, str]
"""Language and category path; "" for a product without it."""


@dataclass(frozen=True, slots=True)
class Weighting:
    """Weights at one threshold."""

    weights: Floats  # (n,) 0 for products of refused slices, and of slices and cells without unlabelled products
    strata: tuple[Stratum, ...]
    refused: tuple[RefusedCategory, ...]
    refused_languages: tuple[RefusedLanguage, ...]
    unlabelled_products: float
    """Unlabelled products that the cells represent."""


class UniformDraw:
    """The cells of certification products that are a uniform sample of the unlabelled: every weight is 1.

    Nothing is refused for too little evidence in a category: the sample represents all of them together.
    """

    def __init__(self, certification: StratifiedProducts, unlabelled: StratifiedProducts) -> None:
        self.slices = _common_slices(certification, unlabelled)
        """The slices with a product of the sample. Slices that are newer than the draw, or were too rare to be drawn,
        are not certified."""
        known = set(self.slices)
        inside = [name in known for name in unlabelled.slices]
        self.unlabelled_products = float(unlabelled.counts[np.array(inside, dtype=bool)].sum())
        self._weights = np.ones(len(certification.group_sizes))

    def weighting(self, accepted: Bools) -> Weighting:
        """Return weights of 1."""
        del accepted
        return Weighting(self._weights, (), (), (), self.unlabelled_products)


class Cells:
    """Counts of certification and unlabelled products per slice and size class; :meth:`weighting` makes the cells."""

    def __init__(
        self, certification: StratifiedProducts, unlabelled: StratifiedProducts, fold_share: float = 1.0
    ) -> None:
        """``fold_share``: the certification fold's share of the labelled products."""
        self.slices = _common_slices(certification, unlabelled)
        """The slices with certification and unlabelled products; nothing is written to others."""
        self._fold_share, self._size = fold_share, len(self.slices) * len(SIZE_STARTS)
        number = {name: position for position, name in enumerate(self.slices)}
        self._combination, fold_counts = self._counted(certification, number)  # (n,), -1 outside the slices
        _, self._unlabelled = self._counted(unlabelled, number)
        self._certification = fold_counts.astype(np.int64)

    @property
    def unlabelled_products(self) -> float:
        """Unlabelled products in the slices."""
        return float(self._unlabelled.sum())

    def _counted(self, products: StratifiedProducts, number: Mapping[Slice, int]) -> tuple[Ints, Floats]:
        """Return the combination of each product, -1 outside the slices, and how many products each combination stands
        for."""
        position = np.array([number.get(name, -1) for name in products.slices], dtype=np.int64)
        combination = np.where(position < 0, -1, position * len(SIZE_STARTS) + size_classes(products.group_sizes))
        inside = combination >= 0
        counts = np.bincount(combination[inside], weights=products.counts[inside], minlength=self._size)
        return combination, counts.astype(np.float64)

    def weighting(self, accepted: Bools) -> Weighting:
        """Return the weights of the certification products, with the cells for the ``accepted`` (n,) products."""
        counts = np.bincount(self._combination[accepted & (self._combination >= 0)], minlength=self._size)
        evidence = _Evidence(counts.astype(np.int64), self._certification, self._unlabelled)
        languages, roots, refused = self._covered(evidence)
        covered = _combinations([position for below in roots.values() for position in below])
        evidence = evidence.within(covered)
        weight_of = np.zeros(self._size + 1)  # the last place is for products outside the slices
        strata = []
        for name, combinations in self._cells(roots, evidence):
            weight_of[combinations] = weight = evidence.weight(combinations)
            share = float(ratio(self._unlabelled[combinations].sum(), evidence.unlabelled_total))
            in_fold = int(self._certification[combinations].sum())
            strata.append(Stratum(name, in_fold, evidence.count(combinations), share, weight))
        return Weighting(
            weight_of[self._combination],
            tuple(strata),
            tuple(
                RefusedCategory(language=language, category=root, **evidence.refusal(below, why, self._fold_share))
                for (language, root), (below, why) in sorted(refused.items())
            ),
            tuple(
                RefusedLanguage(language=language, **evidence.refusal(below, FEW, self._fold_share))
                for language, below in sorted(languages.items())
            ),
            evidence.unlabelled_total,
        )

    def _covered(
        self, evidence: _Evidence
    ) -> tuple[dict[str, list[int]], dict[Slice, list[int]], dict[Slice, tuple[list[int], str]]]:
        """Return the refused languages, the first-level categories that are covered, and the refused categories of
        other languages (with why), each with the positions of its slices.

        A first-level category that would weigh too much is refused, which makes the others heavier: until none does.
        """
        positions = range(len(self.slices))
        by_language = _grouped(positions, lambda position: self.slices[position][0])
        languages = {name: below for name, below in by_language.items() if not evidence.many(_combinations(below))}
        roots = _grouped(
            (position for position in positions if self.slices[position][0] not in languages),
            lambda position: (self.slices[position][0], first_level(self.slices[position][1])),
        )
        refused = {root: (below, FEW) for root, below in roots.items() if not evidence.many(_combinations(below))}
        while True:
            roots = {root: below for root, below in roots.items() if root not in refused}
            rest = evidence.within(_combinations([position for below in roots.values() for position in below]))
            heavy = {root: (below, HEAVY) for root, below in roots.items() if rest.heavy(_combinations(below))}
            if not heavy:
                return languages, roots, refused
            refused |= heavy

    def _cells(self, roots: Mapping[Slice, list[int]], evidence: _Evidence) -> list[tuple[str, Ints]]:
        """Return name and combinations of each cell: the category cells, divided by group size where there are
        enough."""
        several = len({language for language, _ in roots}) > 1
        cells = []
        for (language, root), below in sorted(roots.items()):
            position_of = {self.slices[position][1]: position for position in below}

            def of(names: Sequence[str], position_of: Mapping[str, int] = position_of) -> Ints:
                return _combinations([position_of[name] for name in names])

            cell_of = divide(root, list(position_of), lambda names: evidence.count(of(names)),
                             lambda names: evidence.enough(of(names)))  # fmt: skip
            for cell, members in sorted(_grouped(cell_of, cell_of.__getitem__).items()):
                combinations = of(members).reshape(-1, len(SIZE_STARTS))
                label = (f"{language or 'no language'}: " if several else "") + (cell or "no category")
                for classes in _size_division(combinations, evidence):
                    name = f"{label}, {_SIZE_NAMES[classes]}" if classes in _SIZE_NAMES else label
                    cells.append((name, combinations[:, list(classes)].ravel()))
        return cells


@dataclass(frozen=True)
class _Evidence:
    """Counts per combination, (C,) each; weights are relative to the totals."""

    accepted: Ints
    certification: Ints
    unlabelled: Floats
    certification_total: float = 0.0
    unlabelled_total: float = 0.0

    def within(self, combinations: Ints) -> _Evidence:
        """Return the evidence with the totals of these combinations."""
        return replace(
            self,
            certification_total=float(self.certification[combinations].sum()),
            unlabelled_total=float(self.unlabelled[combinations].sum()),
        )

    def count(self, combinations: Ints) -> int:
        return int(self.accepted[combinations].sum())

    def many(self, combinations: Ints) -> bool:
        return self.count(combinations) >= MIN_ACCEPTED

    def present(self, combinations: Ints) -> bool:
        return bool((self.unlabelled[combinations] > 0).any() or (self.certification[combinations] > 0).any())

    def weight(self, combinations: Ints) -> float:
        """Return the share of the unlabelled products over the share of the certification products."""
        share = ratio(self.unlabelled[combinations].sum(), self.unlabelled_total)
        return float(ratio(share, ratio(self.certification[combinations].sum(), self.certification_total)))

    def heavy(self, combinations: Ints) -> bool:
        return self.weight(combinations) > MAX_WEIGHT

    def enough(self, combinations: Ints) -> bool:
        """Return whether the combinations can be a cell."""
        return self.many(combinations) and not self.heavy(combinations)

    def refusal(self, below: Sequence[int], why: str, fold_share: float) -> dict[str, Any]:
        """Return the fields of a refusal of the slices at the positions ``below``."""
        combinations = _combinations(below)
        accepted, in_fold = self.count(combinations), int(self.certification[combinations].sum())
        unlabelled = float(self.unlabelled[combinations].sum())
        if why == HEAVY:  # w = MAX_WEIGHT, solved for the certification products of this category
            allowed = MAX_WEIGHT * (self.unlabelled_total + unlabelled) - unlabelled
            more = unlabelled * self.certification_total / allowed - in_fold
            missing = max(ceil(more * accepted / in_fold), 1)
        else:
            # the accept rate of all, as if ``MIN_ACCEPTED`` more products had been seen here: it is never 0
            rate = float(ratio(self.accepted.sum(), self.certification.sum()))
            missing = MIN_ACCEPTED - accepted
            more = float(ratio(missing, (accepted + MIN_ACCEPTED * rate) / (in_fold + MIN_ACCEPTED)))
        return {
            "accepted": accepted,
            "missing": missing,
            "labelled_missing": max(ceil(more / fold_share), missing),
            "unlabelled_products": round(unlabelled),
            "why": why,
        }


def divide(
    root: str,
    members: Sequence[str],
    count: Callable[[Sequence[str]], int],
    enough: Callable[[Sequence[str]], bool],
) -> dict[str, str]:
    """Return category -> the category whose cells it belongs to, for the ``members`` of ``root``, which are enough
    together.

    Each large child has a cell, which is divided further, and the rest has a cell. A rest that is not enough takes in
    the smallest large children. ``count``: accepted certification products of some categories; ``enough``: returns
    whether they can be a cell.
    """

    def child(category: str) -> str:
        return "/".join(category.split("/")[: len(root.split("/")) + 1])

    children = {name: below for name, below in _grouped(members, child).items() if name != root}
    large = sorted(
        (name for name, below in children.items() if count(below) >= LARGE_CATEGORY and enough(below)),
        key=lambda name: count(children[name]),
    )
    rest = [category for category in members if child(category) not in large]
    while rest and large and not enough(rest):
        rest += children[large.pop(0)]
    cell_of = dict.fromkeys(rest, root)
    for name in large:
        cell_of |= divide(name, children[name], count, enough)
    return cell_of


def _size_division(combinations: Ints, evidence: _Evidence) -> tuple[tuple[int, ...], ...]:
    """Return the finest division of a category's size classes in which every part that occurs is enough; (k, 3)."""
    for division in _SIZE_MERGES[:-1]:
        parts = {part: combinations[:, list(part)].ravel() for part in division}
        occurring = {part: of for part, of in parts.items() if evidence.present(of)}
        if all(evidence.enough(of) for of in occurring.values()):
            return tuple(occurring)
    return _SIZE_MERGES[-1]


def size_classes(group_sizes: ArrayLike) -> Ints:
    """Return class 0, 1, 2 of each group size, by ``SIZE_STARTS``."""
    return np.searchsorted(np.array(SIZE_STARTS), np.asarray(group_sizes), side="right").astype(np.int64) - 1


def first_level(category: str) -> str:
    """Return the first part of a category path."""
    return category.partition("/")[0]


def _common_slices(certification: StratifiedProducts, unlabelled: StratifiedProducts) -> list[Slice]:
    return sorted(set(certification.slices) & set(unlabelled.slices))


def _combinations(positions: Sequence[int]) -> Ints:
    """Return all size classes of the slices at ``positions``, slice by slice."""
    starts = np.array(positions, dtype=np.int64)[:, None] * len(SIZE_STARTS)
    return np.asarray((starts + np.arange(len(SIZE_STARTS))).ravel(), dtype=np.int64)


def _grouped(items: Iterable[Item], key: Callable[[Item], Key]) -> dict[Key, list[Item]]:
    groups: defaultdict[Key, list[Item]] = defaultdict(list)
    for item in items:
        groups[key(item)].append(item)
    return dict(groups)
