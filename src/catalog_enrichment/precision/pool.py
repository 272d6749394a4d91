"""The pool: the values that a certificate covers, chosen on the choosing fold alone (PRECISION, certificate 1).

Shapes: V values of the attribute.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray
from scipy import stats

from catalog_enrichment.precision.classification_metrics import Pairs, operating_point, pairs_from
from catalog_enrichment.precision.cluster import AcceptedSample, group_numbers, intraclass_correlation
from catalog_enrichment.precision.units import (
    WRITABLE_RANKS,
    Bools,
    ChoosingScores,
    Ints,
    Units,
    as_scores,
    units_from,
)
from catalog_enrichment.records import Cardinality

SLACK = 0.05
"""A value may be this much less precise than the target before it counts as bad."""

SIGNIFICANCE = 0.05
"""A value is dropped if so many errors have at most this probability at precision ``target - SLACK``."""

STAND_IN_QUANTILE = 0.8
"""Quantile of the choosing fold's best scores at which values are judged where no threshold reaches the target."""


class PrecisionRule(Protocol):
    """The fields of the config's section [precision] that certificates follow."""

    @property
    def target(self) -> float: ...
    @property
    def delta(self) -> float: ...
    @property
    def step(self) -> float: ...
    @property
    def suggest_precision(self) -> float: ...
    @property
    def valid_days(self) -> int: ...


@dataclass(frozen=True, kw_only=True)
class Pool:
    """Choices made on the choosing fold for one attribute, by :func:`select_pool`."""

    attribute: str
    labels: tuple[str, ...]
    cardinality: Cardinality
    mask: Bools  # (V,)
    choosing_threshold: float | None
    """The lowest threshold at which the pool reaches the target on the choosing fold; None if there is none."""
    suggest_threshold: float | None
    correlation: float
    """Correlation of errors within content groups; see :func:`intraclass_correlation`."""
    deff: float
    """Design effect of the accepted products."""
    units: Units = field(repr=False)
    """The choosing fold's products, by the values of the pool."""
    groups: NDArray[Any] = field(repr=False)
    """Content groups of the choosing fold, which must not be used to certify."""

    @property
    def values(self) -> tuple[str, ...]:
        return tuple(label for label, inside in zip(self.labels, self.mask.tolist(), strict=True) if inside)


def select_pool(choosing: ChoosingScores, rule: PrecisionRule) -> Pool:
    """Return the values of the pooled certificate, selected on the choosing fold only.

    A value is dropped only if it is significantly bad at the pooled choosing threshold: the lowest at which the
    remaining values reach ``rule.target``, or where there is none the 80% quantile of the best scores. Then the
    threshold of the remaining values is lower, and they are judged again. A value with little evidence stays.
    """
    pairs = pairs_from(choosing.probabilities, choosing.truth, choosing.cardinality, WRITABLE_RANKS)
    mask = np.ones(len(choosing.labels), dtype=bool)
    while True:
        units = units_from(choosing.probabilities, choosing.truth, choosing.cardinality, mask)
        threshold = _pooled_threshold(units, rule.target)
        judged_at = _stand_in_threshold(choosing) if threshold is None else threshold
        taken = pairs.scores >= judged_at
        accepted = np.bincount(pairs.values[taken], minlength=len(mask))
        wrong = np.bincount(pairs.values[taken & ~pairs.correct], minlength=len(mask))
        bad = mask & significantly_bad(accepted, wrong, rule.target)
        if not bad.any():
            break
        mask = mask & ~bad
    groups = group_numbers(choosing.groups)
    correlation = intraclass_correlation(np.isfinite(units.error), groups)
    sample = AcceptedSample.of(units.accept >= judged_at, units.error >= judged_at, groups)
    return Pool(
        attribute=choosing.attribute,
        labels=choosing.labels,
        cardinality=choosing.cardinality,
        mask=mask,
        choosing_threshold=threshold,
        suggest_threshold=suggest_threshold(pairs, rule.suggest_precision, below=threshold),
        correlation=correlation,
        deff=sample.deff(correlation),
        units=units,
        groups=np.unique(choosing.groups),
    )


def significantly_bad(accepted: Ints, wrong: Ints, target: float) -> Bools:
    """Return where so many wrong of the accepted have a probability of at most ``SIGNIFICANCE`` at precision
    ``target - SLACK``; (V,) counts -> (V,)."""
    return np.asarray(stats.binom.sf(wrong - 1, accepted, 1 - (target - SLACK)) <= SIGNIFICANCE, dtype=bool)


def suggest_threshold(pairs: Pairs, precision: float, below: float | None) -> float | None:
    """Return the lowest score from which (product, value) pairs up to ``below`` are right with ``precision``;
    descriptive.

    Pairs above the band are left out: they are written, and their precision is higher than that of the suggestions.
    """
    band = pairs.scores < (np.inf if below is None else below)
    return operating_point(pairs.scores[band], pairs.correct[band], pairs.total, precision).threshold


def _pooled_threshold(units: Units, target: float) -> float | None:
    """Return the lowest threshold at which the share of right products reaches ``target``; None if there is none."""
    # a unit can become wrong at a lower threshold than it becomes accepted, so both are counted at every threshold
    thresholds = np.unique(units.accept[np.isfinite(units.accept)])
    accepted = len(units) - np.searchsorted(np.sort(units.accept), thresholds, side="left")
    wrong = len(units) - np.searchsorted(np.sort(units.error), thresholds, side="left")
    good = (accepted - wrong) / np.maximum(accepted, 1) >= target
    return float(thresholds[good][0]) if good.any() else None


def _stand_in_threshold(fold: ChoosingScores) -> float:
    """Return the ``STAND_IN_QUANTILE`` of the products' best scores; infinite without a product."""
    best = as_scores(fold.probabilities).max(axis=1)
    return float(np.quantile(best, STAND_IN_QUANTILE)) if len(best) else np.inf
