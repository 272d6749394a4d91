"""Weights of certification products, so that they represent the products to fill (PRECISION, certificate 5).

A cell is a category and a class of content-group sizes. The weight of a product is its cell's share of the open
products over its cell's share of the certification products. Cells depend on categories, group sizes and acceptance,
never on labels, so they may differ between thresholds.

Shapes: n certification products, m open products, C combinations of a category and a size class.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike

from catalog_enrichment.classification_metrics import Bools, Floats, Ints, ratio
from catalog_enrichment.precision.certificate import RefusedCategory, Stratum

MIN_ACCEPTED = 20
"""A cell with fewer accepted certification products is merged; a first-level category with fewer is refused."""

LARGE_CATEGORY = 100
"""A category below the first level has cells of its own from this many accepted certification products on."""

MAX_WEIGHT = 20.0

SIZE_STARTS = (1, 2, 6)
"""First content-group size of each size class: 1, 2-5, 6 and more."""

_SIZE_MERGES = (((0,), (1,), (2,)), ((0,), (1, 2)), ((0, 1, 2),))
"""Ways to divide the size classes, the finest first."""

_SIZE_NAMES = {(0,): "groups of 1", (1,): "groups of 2-5", (2,): "groups of 6+", (1, 2): "groups of 2+"}


@dataclass(frozen=True, kw_only=True)
class Population:
    """What the cells need to know of n products."""

    categories: Sequence[str]
    """Category path of each product; "" for a product without one."""
    group_sizes: Ints
    """(n,) products in each product's content group, counted in the whole catalog."""
    counts: Floats
    """(n,) how many products of the catalog each product stands for."""


@dataclass(frozen=True, slots=True)
class Weighting:
    """Weights at one threshold."""

    weights: Floats  # (n,) 0 for products of refused categories and of cells without open products
    strata: tuple[Stratum, ...]
    refused: tuple[RefusedCategory, ...]


class Cells:
    """Counts of certification and open products per category and size class; :meth:`weighting` makes the cells."""

    def __init__(self, certification: Population, open_products: Population) -> None:
        """Open products of categories without a certification product are left out: nothing is written to them."""
        known = sorted(set(certification.categories))
        number = {category: position for position, category in enumerate(known)}
        column_of = [np.array([number.get(c, -1) for c in p.categories], dtype=np.int64) for p in (
            certification, open_products)]  # fmt: skip
        self._combination = column_of[0] * len(SIZE_STARTS) + size_classes(certification.group_sizes)  # (n,)
        seen = column_of[1] >= 0
        open_combination = column_of[1][seen] * len(SIZE_STARTS) + size_classes(open_products.group_sizes[seen])
        self._size = len(known) * len(SIZE_STARTS)
        self._certification = np.bincount(self._combination, minlength=self._size)  # (C,)
        self._open = np.bincount(open_combination, weights=open_products.counts[seen], minlength=self._size)
        self._categories = known

    def weighting(self, accepted: Bools) -> Weighting:
        """Weights of the certification products, with the cells for the ``accepted`` (n,) ones."""
        counts = np.bincount(self._combination[accepted], minlength=self._size)
        by_category = counts.reshape(-1, len(SIZE_STARTS))
        totals = dict(zip(self._categories, by_category.sum(axis=1).tolist(), strict=True))
        cell_of, refused = category_cells(totals)
        cells = self._cells(cell_of, counts)
        covered = np.concatenate([combinations for _, combinations in cells]) if cells else np.empty(0, dtype=np.int64)
        open_total, certification_total = self._open[covered].sum(), self._certification[covered].sum()
        weight_of = np.zeros(self._size)
        strata = []
        for name, combinations in cells:
            open_share = float(ratio(self._open[combinations].sum(), open_total))
            in_fold = int(self._certification[combinations].sum())
            weight = min(float(ratio(open_share, ratio(in_fold, certification_total))), MAX_WEIGHT)
            weight_of[combinations] = weight
            strata.append(Stratum(name, in_fold, int(counts[combinations].sum()), open_share, weight))
        return Weighting(weight_of[self._combination], tuple(strata), self._refused(refused, totals))

    def _cells(self, cell_of: Mapping[str, str], accepted: Ints) -> list[tuple[str, Ints]]:
        """Name and combinations of each cell: the category cells, divided by group size where there are enough."""
        members: defaultdict[str, list[int]] = defaultdict(list)
        for position, category in enumerate(self._categories):
            if category in cell_of:
                members[cell_of[category]].append(position)
        present = (self._open > 0) | (self._certification > 0)
        cells = []
        for cell, positions in sorted(members.items()):
            of_size = [np.array(positions) * len(SIZE_STARTS) + size for size in range(len(SIZE_STARTS))]
            for classes in _size_division(
                [int(accepted[of].sum()) for of in of_size], [bool(present[of].any()) for of in of_size]
            ):
                label = cell or "no category"
                name = f"{label}, {_SIZE_NAMES[classes]}" if classes in _SIZE_NAMES else label
                cells.append((name, np.concatenate([of_size[size] for size in classes])))
        return cells

    def _refused(self, refused: Sequence[str], accepted: Mapping[str, int]) -> tuple[RefusedCategory, ...]:
        rows = []
        for root in refused:
            below = [position for position, category in enumerate(self._categories) if first_level(category) == root]
            count = sum(accepted[self._categories[position]] for position in below)
            open_products = self._open.reshape(-1, len(SIZE_STARTS))[below].sum()
            rows.append(RefusedCategory(root, count, MIN_ACCEPTED - count, round(float(open_products))))
        return tuple(rows)


def size_classes(group_sizes: ArrayLike) -> Ints:
    """Class 0, 1, 2 of each group size, by ``SIZE_STARTS``."""
    return np.searchsorted(np.array(SIZE_STARTS), np.asarray(group_sizes), side="right").astype(np.int64) - 1


def first_level(category: str) -> str:
    return category.partition("/")[0]


def category_cells(accepted: Mapping[str, int]) -> tuple[dict[str, str], list[str]]:
    """Category -> the category whose cells it belongs to, and the first-level categories that are refused.

    ``accepted``: category path -> accepted certification products.
    """
    cell_of: dict[str, str] = {}
    refused = []
    for root, members in _grouped(accepted, first_level).items():
        if sum(accepted[category] for category in members) < MIN_ACCEPTED:
            refused.append(root)
        else:
            cell_of |= _divide(root, members, accepted)
    return cell_of, sorted(refused)


def _divide(root: str, members: Sequence[str], accepted: Mapping[str, int]) -> dict[str, str]:
    """Cells below ``root``, which has enough accepted products: one per large child, which is divided further, and one
    for the rest. A rest that is too small takes in the smallest large child."""

    def child(category: str) -> str:
        return "/".join(category.split("/")[: len(root.split("/")) + 1])

    total = {name: sum(map(accepted.__getitem__, below)) for name, below in _grouped(members, child).items()}
    large = sorted((name for name in total if name != root and total[name] >= LARGE_CATEGORY), key=total.__getitem__)
    rest = [category for category in members if child(category) not in large]
    if rest and large and sum(map(accepted.__getitem__, rest)) < MIN_ACCEPTED:
        smallest = large.pop(0)
        rest += [category for category in members if child(category) == smallest]
    cell_of = dict.fromkeys(rest, root)
    for name in large:
        cell_of |= _divide(name, [category for category in members if child(category) == name], accepted)
    return cell_of


def _size_division(accepted: Sequence[int], present: Sequence[bool]) -> tuple[tuple[int, ...], ...]:
    """The finest division of the size classes of a category in which every part that occurs has enough accepted."""
    for division in _SIZE_MERGES[:-1]:
        parts = [part for part in division if any(present[size] for size in part)]
        if all(sum(accepted[size] for size in part) >= MIN_ACCEPTED for part in parts):
            return tuple(parts)
    return _SIZE_MERGES[-1]


def _grouped(categories: Iterable[str], key: Callable[[str], str]) -> dict[str, list[str]]:
    groups: defaultdict[str, list[str]] = defaultdict(list)
    for category in categories:
        groups[key(category)].append(category)
    return dict(groups)
