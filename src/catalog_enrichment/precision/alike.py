"""Comparison of labelled and unlabelled products (PRECISION, "Products that have no value").

Labelled products can certify values that are written to unlabelled products only if the two are alike: products may
lack a value because they have none. Two tests look for a difference, after the labelled products are weighted to
represent the unlabelled products by language, category and content-group size:

    scores       the largest difference of the distribution functions of the scores (Kolmogorov-Smirnov)
    has value    the area under the ROC curve of a classifier that tells labelled from unlabelled products and has not
                 seen the product that it scores (:mod:`catalog_enrichment.training.alikeness`)

Products of a content group are not independent, and a group may have products on both sides. So both tests take the
group as the unit: the p-value of the first is by a multiplier bootstrap of groups, that of the second by the variance
between groups of the area's influence function.

Where a difference is found, only the part that the labelled products explain counts. Let pi be the share of unlabelled
products without a value. Unlabelled products with a value are distributed as the labelled products, so in every region
the unlabelled density is at least 1 - pi times the labelled density. The smallest ratio over the regions that the
classifier finds most like the labelled products is an upper bound of 1 - pi. Products that are accepted beyond that
ratio count as wrong.

Simulated (make promise): no test of this kind notices products without a value that look like the others, or a few in
a hundred of them. Only people's answers can.

Shapes: n labelled products, m unlabelled products, G content groups, K thresholds.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Hashable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy import special

from catalog_enrichment.precision.certificate import Alikeness
from catalog_enrichment.precision.strata import MAX_WEIGHT, MIN_ACCEPTED, first_level
from catalog_enrichment.precision.units import Bools, Floats, ratio

LEVEL = 0.1
"""Probability with which a difference is found between products that are alike."""

SMALLEST_REGION = 200.0
"""Effective labelled products that a region needs."""

_REGIONS = (0.1, 0.15, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 1.0)
"""Shares of the labelled products in the regions, products that the classifier finds most like labelled first."""

_NOTICED_AT = 0.8
"""Probability with which the noticeable share is noticed."""

_THRESHOLDS = 64
"""Scores at which the distribution functions are compared, at most: quantiles of both sides together."""

_DRAWS = 999
"""Draws of the multiplier bootstrap."""

_APART = 0.5
"""Largest difference of the distribution functions between products with and without a value that the noticeable share
assumes: products without a value score below the median of the others."""


@dataclass(frozen=True, slots=True)
class Side:
    """The labelled or the unlabelled products of a comparison."""

    scores: Floats
    """(n,) best score of a value of the pool; -inf where there is none."""
    has_value: Floats
    """(n,) output of the classifier: large for products like the labelled."""
    groups: NDArray[Any]
    """(n,) content group."""
    weights: Floats
    """(n,) positive."""

    def __len__(self) -> int:
        return len(self.scores)

    def share(self, inside: Bools) -> float:
        """Return the weighted share of the products that are ``inside`` (n,)."""
        return float(ratio(self.weights[inside].sum(), self.weights.sum()))


def side_of(scores: ArrayLike, has_value: ArrayLike, groups: ArrayLike, weights: ArrayLike) -> Side:
    """Return the products with a positive weight."""
    weight = np.asarray(weights, dtype=np.float64)
    kept = weight > 0
    score, output, group = (np.asarray(column)[kept] for column in (scores, has_value, groups))
    return Side(score, output, group, weight[kept])


class AlikenessTest:
    """The comparison of two sides: ``result``, and :meth:`unexplained` for what counts as wrong where they differ."""

    def __init__(self, labelled: Side, unlabelled: Side) -> None:
        self._labelled, self._unlabelled = labelled, unlabelled
        self._groups = _GroupSums(labelled, unlabelled)
        self.result = self._compared()
        self._explained = 1.0 if self.result.alike else self._smallest_ratio()

    def unexplained(self, threshold: float, alpha: float = 0.025) -> float:
        """Return the share of the unlabelled products accepted at ``threshold`` that the labelled do not explain,
        an upper bound at confidence 1 - ``alpha``; 0 where the sides are alike, 1 where nothing is accepted."""
        if self.result.alike:
            return 0.0
        accepted = self._labelled.scores >= threshold, self._unlabelled.scores >= threshold
        expected, found = self._labelled.share(accepted[0]), self._unlabelled.share(accepted[1])
        if not expected or not found:
            return 1.0
        explained = self._explained * expected / found
        log_error = self._groups.error(  # of the logarithm of expected / found
            np.asarray((accepted[0] - expected) / expected), np.asarray((accepted[1] - found) / found)
        )
        return float(np.clip(1 - explained * (1 - special.ndtri(1 - alpha) * log_error), 0.0, 1.0))

    def _compared(self) -> Alikeness:
        labelled, unlabelled = self._labelled, self._unlabelled
        distance = below_tenth = 0.0
        score_p = auc_p = noticeable = 1.0
        auc = 0.5
        if len(labelled) and len(unlabelled):
            distance, score_p, noticeable = self._score_test()
            auc, auc_p = self._rank_test()
            tenth = _quantile(labelled.scores, labelled.weights, 0.1)
            below_tenth = unlabelled.share(unlabelled.scores < tenth) if np.isfinite(tenth) else 0.0
        return Alikeness(
            labelled=len(labelled),
            unlabelled=len(unlabelled),
            score_distance=distance,
            score_p_value=score_p,
            auc=auc,
            auc_p_value=auc_p,
            noticeable_share=noticeable,
            below_tenth=below_tenth,
            level=LEVEL,
        )

    def _score_test(self) -> tuple[float, float, float]:
        """Return the largest difference of the distribution functions, its p-value, and the noticeable share.

        The latter rests on the difference that is significant at half of :data:`LEVEL`, and on the largest standard
        error of a difference.
        """
        sides = (self._labelled, self._unlabelled)
        quantiles = np.linspace(0, 1, _THRESHOLDS + 1)[1:]
        at = np.unique(np.quantile(np.concatenate([side.scores for side in sides]), quantiles, method="inverted_cdf"))
        below = [side.scores[:, None] <= at for side in sides]
        shares = [np.average(inside, axis=0, weights=side.weights) for inside, side in zip(below, sides, strict=True)]
        distance = float(np.abs(shares[0] - shares[1]).max())
        sums = self._groups(below[0] - shares[0], below[1] - shares[1])
        noise = np.random.default_rng(0).standard_normal((_DRAWS, len(sums)))
        drawn = np.abs(noise @ sums).max(axis=1)
        p_value = (1 + int(np.count_nonzero(drawn >= distance))) / (_DRAWS + 1)
        critical, error = float(np.quantile(drawn, 1 - LEVEL / 2)), float(np.sqrt(np.square(sums).sum(axis=0)).max())
        return distance, p_value, float(min(1.0, (critical + special.ndtri(_NOTICED_AT) * error) / _APART))

    def _rank_test(self) -> tuple[float, float]:
        """Return the area under the ROC curve and its one-sided p-value."""
        labelled, unlabelled = self._labelled, self._unlabelled
        above, below = _ranks(labelled, unlabelled), 1 - _ranks(unlabelled, labelled)
        auc = float(np.average(above, weights=labelled.weights))
        error = self._groups.error(above - auc, below - auc, sign=1.0)
        return auc, float(special.ndtr(-(auc - 0.5) / error)) if error else 1.0

    def _smallest_ratio(self) -> float:
        """Return an upper bound of the share of unlabelled products that have a value: the smallest unlabelled share
        over the labelled share of a region."""
        labelled, unlabelled = self._labelled, self._unlabelled
        smallest = 1.0
        for share in _REGIONS:
            level = _quantile(labelled.has_value, labelled.weights, 1 - share)
            inside = labelled.has_value >= level
            weights = labelled.weights[inside]
            if share < 1 and weights.sum() ** 2 < SMALLEST_REGION * np.square(weights).sum():
                continue
            smallest = min(smallest, unlabelled.share(unlabelled.has_value >= level) / labelled.share(inside))
        return smallest


class _GroupSums:
    """Sums over content groups of the differences between the labelled and the unlabelled side's weighted means."""

    def __init__(self, labelled: Side, unlabelled: Side) -> None:
        names, self._group = np.unique(np.concatenate([labelled.groups, unlabelled.groups]), return_inverse=True)
        self._count = len(names)
        self._shares = [side.weights / max(float(side.weights.sum()), 1e-12) for side in (labelled, unlabelled)]

    def __call__(self, labelled: Floats, unlabelled: Floats, sign: float = -1.0) -> Floats:
        """Return (G, K) sums of the weighted (n, K) and, times ``sign``, (m, K) deviations from their means."""
        rows = np.concatenate([self._shares[0][:, None] * labelled, sign * self._shares[1][:, None] * unlabelled])
        sums = np.zeros((self._count, rows.shape[1]))
        np.add.at(sums, self._group, rows)
        return sums

    def error(self, labelled: Floats, unlabelled: Floats, sign: float = -1.0) -> float:
        """Return the standard error of the difference (or, with ``sign`` 1, the sum) of two means; (n,) and (m,)
        deviations."""
        sums = self(labelled[:, None], unlabelled[:, None], sign)
        correction = self._count / (self._count - 1) if self._count > 1 else 1.0
        return float(np.sqrt(correction * np.square(sums).sum()))


def _ranks(first: Side, second: Side) -> Floats:
    """Return the (n,) weighted shares of the products of ``second`` that the classifier ranks below each product of
    ``first``; products of equal rank count half."""
    order = np.argsort(second.has_value, kind="stable")
    values = second.has_value[order]
    below = np.concatenate([[0.0], np.cumsum(second.weights[order])]) / second.weights.sum()
    left, right = (np.searchsorted(values, first.has_value, side=side) for side in ("left", "right"))
    return np.asarray((below[left] + below[right]) / 2)


def _quantile(values: Floats, weights: Floats, share: float) -> float:
    """Return the smallest value that has at least ``share`` of the weight at or below it."""
    order = np.argsort(values, kind="stable")
    cumulated = np.cumsum(weights[order])
    return float(values[order][min(int(np.searchsorted(cumulated, share * cumulated[-1] - 1e-12)), len(values) - 1)])


# --- cells and weights ------------------------------------------------------------------------------------------------

Product = tuple[str, str, int]
"""Language, category path and class of the content group's size."""


def cell_weights(labelled: Sequence[Hashable], unlabelled: Sequence[Hashable]) -> tuple[Floats, Floats]:
    """Return weights (n,) by which the labelled products are distributed over the cells as the unlabelled, at most
    ``MAX_WEIGHT``, and (m,) 1 for the unlabelled products. Both are 0 in cells that only one side has."""
    names = {name: number for number, name in enumerate(dict.fromkeys([*labelled, *unlabelled]))}
    first, second = (np.array([names[name] for name in side], dtype=np.int64) for side in (labelled, unlabelled))
    n, m = (np.bincount(side, minlength=len(names)).astype(np.float64) for side in (first, second))
    both = (n > 0) & (m > 0)
    share = ratio(np.where(both, m, 0.0) / max(m[both].sum(), 1.0), n / max(n[both].sum(), 1.0))
    return np.minimum(share, MAX_WEIGHT)[first], both[second].astype(np.float64)


def matched_cells(labelled: Sequence[Product], unlabelled: Sequence[Product]) -> tuple[list[Hashable], list[Hashable]]:
    """Return the cells of the labelled and the unlabelled products, as fine as both sides allow.

    A category path has cells of its own where both sides have ``MIN_ACCEPTED`` products of it. The other paths of a
    first-level category share a cell; all of its paths do where the others have too few labelled products.
    A cell is divided by size classes where every class of its unlabelled products has as many labelled products.
    """
    sides = (labelled, unlabelled)
    paths = [Counter(product[:2] for product in side) for side in sides]
    own = {path for path in paths[0] if min(paths[0][path], paths[1][path]) >= MIN_ACCEPTED}

    def root(product: Product) -> Hashable:
        return (product[0], first_level(product[1]))

    rest = [Counter(root(product) for product in side if product[:2] not in own) for side in sides]
    whole = {name for name in rest[1] if rest[0][name] < MIN_ACCEPTED}

    def category(product: Product) -> Hashable:
        if root(product) in whole or product[:2] not in own:
            return root(product)
        return product[:2]

    sized = [Counter((category(product), product[2]) for product in side) for side in sides]
    undivided = {name for name, size in sized[1] if sized[0][name, size] < MIN_ACCEPTED}

    def cell(product: Product) -> Hashable:
        name = category(product)
        return name if name in undivided else (name, product[2])

    return [cell(product) for product in labelled], [cell(product) for product in unlabelled]
