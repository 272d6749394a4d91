"""The fixed sequence of thresholds that a certificate tests: its grid, its start and how it runs.

Grid and start are fixed without certification labels, so the certificate is valid wherever the sequence starts
(PRECISION, certificate 2, 3 and 6, and "Where the sequence starts"). The first test decides between all and nothing.
Merchants' labels are wrong in a few percent, and a wrong label counts as an error of the model at every score: then 150
accepted products, which allow 2 errors, mostly fail where 600 pass. A start with more products lies at a lower
threshold, where the model is wrong more often.

Shapes: m unlabelled products, J thresholds, the highest first; K numbers of errors.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from math import ceil, log
from typing import Protocol, TypeVar

import numpy as np
from numpy.typing import ArrayLike
from scipy import stats

from catalog_enrichment.precision.pool import Pool, PrecisionRule
from catalog_enrichment.precision.units import Floats, Ints, Units, UnlabelledProducts, accept_scores

LARGEST_SHARE = 0.3
"""The sequence starts at no more than this share of the certification fold."""

ALWAYS_ALLOWED = 100
"""Starts of up to so many independent products are candidates in a small fold too: 95 allow one error, 59 none."""

RATIO = 1.1
"""Ratio of the expected accepted products of neighbouring candidates for the start."""

PRIOR_ERROR_RATE, PRIOR_PRODUCTS = 0.02, 20
"""The error rate before the choosing fold is seen, and how many of its products that counts as."""


class PassedOrNot(Protocol):
    """The test of one threshold."""

    @property
    def passed(self) -> bool: ...


Test = TypeVar("Test", bound=PassedOrNot)


def fixed_sequence(thresholds: Floats, test: Callable[[float], Test]) -> tuple[Test, ...]:
    """Test the thresholds in order and stop at the first that fails. The last threshold that passed is certified."""
    if np.any(np.diff(thresholds) >= 0):
        raise ValueError("the thresholds of a fixed sequence must be strictly decreasing")
    tests: list[Test] = []
    for threshold in thresholds.tolist():
        tests.append(test(threshold))
        if not tests[-1].passed:
            break
    return tuple(tests)


def last_passed(tests: Sequence[Test]) -> Test | None:
    """Return the last test that passed; None if none did."""
    return next((test for test in reversed(tests) if test.passed), None)


def spent_delta(delta: float, k: int) -> float:
    """Return the share of ``delta`` that the k-th use of a label set may spend: all, then delta / (k (k + 1)).

    All uses together may be wrong with a probability of at most 1.5 delta.
    """
    return delta if k == 1 else delta / (k * (k + 1))


def smallest_sample(target: float, delta: float) -> int:
    """Return the fewest independent products that certify ``target`` without an error: 59 for 95% at delta 0.05."""
    return ceil(log(delta) / log(target))


@dataclass(frozen=True, slots=True)
class GridSize:
    """Expected accepted products at the first threshold of the sequence, and how they grow."""

    first: float
    """n0, where so many products can be accepted."""
    fewest: float
    """Where fewer than ``first`` can be accepted, the sequence starts here; with fewer nothing is tested."""
    step: float
    """Ratio of the expected accepted counts of neighbouring thresholds."""


def threshold_grid(unlabelled_scores: ArrayLike, n_products: int, size: GridSize) -> Floats:
    """Return the thresholds to test, strictly decreasing, chosen without any label.

    They are quantiles of the accept scores of unlabelled products (-inf: never accepted) at which ``n_products``
    products of the same catalog have ``first * step^j`` accepted products, up to all that can be accepted. Empty if
    fewer than ``size.fewest`` can be.
    """
    scores = np.asarray(unlabelled_scores, dtype=np.float64)
    reachable = int(np.count_nonzero(np.isfinite(scores)))
    if not reachable:
        return np.empty(0)
    most = n_products * reachable / len(scores)
    start = size.first if most >= size.first else size.fewest
    if most < start:
        return np.empty(0)
    steps = int(np.floor(np.log(most / start) / np.log(size.step))) + 1
    expected = np.append(start * size.step ** np.arange(steps), most)
    return np.unique(_thresholds_at(scores, expected, n_products))[::-1]


def _thresholds_at(unlabelled_scores: Floats, expected: Floats, n_products: int) -> Floats:
    """Return the accept scores of unlabelled products at which ``n_products`` products of the same catalog have
    ``expected`` (J,) accepted products; the lowest finite score where fewer can be accepted."""
    scores = np.sort(unlabelled_scores)[::-1]
    ranks = np.ceil(expected / n_products * len(scores) - 1e-9).astype(np.int64)
    return np.asarray(scores[np.clip(ranks, 1, np.count_nonzero(np.isfinite(scores))) - 1])


@dataclass(frozen=True, slots=True)
class ThresholdPlan:
    """The thresholds that a certification will test, before its labels are read."""

    accept: Floats  # (m,) accept scores of the unlabelled products
    size: GridSize
    grid: Floats  # (J,)


def plan_thresholds(
    pool: Pool, n_products: int, unlabelled: UnlabelledProducts, rule: PrecisionRule, delta: float
) -> ThresholdPlan:
    """Return the thresholds for a certification fold of ``n_products`` products, tested at the level ``delta``."""
    accept = accept_scores(unlabelled.probabilities, pool.cardinality, pool.mask)
    size = choose_grid_size(pool.units, accept, n_products, Requirement(rule.target, delta, pool.deff), rule.step)
    return ThresholdPlan(accept, size, threshold_grid(accept, n_products, size))


# --- the first threshold ----------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Requirement:
    """The requirements of the test of a threshold."""

    target: float
    delta: float
    deff: float
    """Design effect of the choosing fold's accepted products."""


def choose_grid_size(
    choosing: Units, unlabelled_scores: ArrayLike, n_products: int, required: Requirement, step: float
) -> GridSize:
    """Return where the sequence starts on a certification fold of ``n_products`` products.

    Candidates are the fewest independent products that a model without an error needs, times ``RATIO``^j, up to
    ``LARGEST_SHARE`` of the fold or ``ALWAYS_ALLOWED``; each times ``required.deff``. The start is the candidate from
    which the sequence is expected to accept most products at the last threshold that passes
    (:func:`expected_accepted`), at the error rates that the ``choosing`` fold shows above each threshold.

    Recall / oracle by simulation (worlds of tests/benchmarks/promise.py, the same 100 to 200 draws) at 10,000 labelled
    products with 1% and 2% wrong labels, and at 2,000 without: .78, .51, .58. The start whose first test most likely
    passes instead, the smallest of those within .01: .67, .34, .56; the largest of them: .78, .48, .58. Starts up to
    60% of the fold: .77, .50, .45. Error rates by a logistic fit or with posterior draws: no better.
    """
    fewest = smallest_sample(required.target, required.delta)
    scores = np.asarray(unlabelled_scores, dtype=np.float64)
    reachable = n_products * float(np.isfinite(scores).mean()) / required.deff if len(scores) else 0.0
    first, largest = float(fewest), max(LARGEST_SHARE * n_products / required.deff, ALWAYS_ALLOWED)
    if reachable > fewest:
        steps = np.arange(int(np.log(reachable / fewest) / np.log(RATIO)) + 1)
        counts = np.asarray(fewest * RATIO**steps, dtype=np.float64)
        rates = error_rates(choosing, _thresholds_at(scores, counts * required.deff, n_products))
        expected = expected_accepted(counts, rates, errors_allowed(counts, required))
        first = float(counts[np.argmax(np.where(counts <= largest, expected, 0.0))])
    return GridSize(first=first * required.deff, fewest=fewest * required.deff, step=step)


def error_rates(choosing: Units, thresholds: Floats) -> Floats:
    """Return the error rates of the choosing fold above each of the ``thresholds`` (J,), with the prior."""
    accepted, wrong = np.array([choosing.counts(threshold) for threshold in thresholds.tolist()]).T
    return np.asarray((wrong + PRIOR_ERROR_RATE * PRIOR_PRODUCTS) / (accepted + PRIOR_PRODUCTS), dtype=np.float64)


def errors_allowed(counts: Floats, required: Requirement) -> Ints:
    """Return the largest numbers of errors among ``counts`` (J,) independent products at which the exact binomial test
    passes; -1 where it passes at none."""
    # ppf is the smallest number whose probability reaches delta
    smallest_failing = stats.binom.ppf(required.delta, np.round(counts), 1 - required.target)
    return np.asarray(smallest_failing, dtype=np.int64) - 1


def expected_accepted(counts: Floats, rates: Floats, allowed: Ints) -> Floats:
    """Return, for a sequence that starts at each of the thresholds, the expected number of accepted products at the
    last threshold that passes before one fails; 0 products count where the first fails.

    ``counts`` (J,) accepted products, ``rates`` (J,) their error rates, ``allowed`` (J,) errors with which each test
    passes. The errors among the first products are binomial, further errors at each threshold are Poisson.
    """
    errors = np.arange(max(int(allowed.max()), 0) + 1)
    expected = np.zeros(len(counts))
    further = np.zeros(len(errors))  # (K,) further products that are accepted in the end, with so many errors so far
    for position in range(len(counts) - 1, -1, -1):
        passes = errors <= allowed[position]
        first_errors = stats.binom.pmf(errors, round(counts[position]), rates[position])
        expected[position] = (first_errors * (counts[position] + further))[passes].sum()
        if position:
            gain = np.where(passes, counts[position] - counts[position - 1] + further, 0.0)
            more_errors = counts[position] * rates[position] - counts[position - 1] * rates[position - 1]
            added = stats.poisson.pmf(errors, max(more_errors, 0.0))
            further = np.correlate(np.append(gain, np.zeros(len(errors) - 1)), added, mode="valid")
    return expected
