"""The test of a certificate by people's verdicts on uniformly drawn proposals (PRECISION, "Certified by verdicts").

The unit is a product, in the order of the draw. At a threshold t the products with a score of at least t are a uniform
sample of the products that t would write. X_i is 1 if the i-th of them has a wrong value at or above t. A value that
nobody can tell counts as wrong.

    wealth     W_n(t) = sum over l of weight_l * prod(1 + l / target * ((1 - target) - X_i)); t is certified as soon as
               W_n(t) has reached 1 / delta for some n. By Ville's inequality a threshold whose precision is at most the
               target is ever certified with probability at most delta (Waudby-Smith and Ramdas 2020). So the verdicts
               may be looked at after each of them, and more may be given later.
    sequence   thresholds from the highest down; the first that is not certified (yet) stops the sequence. The first
               sample fixes the thresholds by its scores alone, before anybody judges it. A later sample with a lower
               lowest score adds thresholds below those of the earlier samples. A later sample whose lowest score is
               above every threshold begins a new sequence, which has its own share of delta.
    prefix     at each threshold only the products before the first product without a settled verdict count. Products
               that are settled first may be easy.

Draws without replacement from a small population only make the test safer. Shapes: n drawn products.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import cache, partial
from math import ceil, isfinite, log

import numpy as np
from numpy.typing import ArrayLike

from catalog_enrichment.precision.thresholds import fixed_sequence, last_passed, spent_delta
from catalog_enrichment.precision.units import Bools, Floats, Ints, bisect

BETS = {0.35: 0.1, 0.6: 0.35, 0.75: 0.55}
"""Bets l as shares of the largest bet that keeps every factor non-negative, with their weights, which add up to 1.

Medians until 95% is certified at delta 0.05, with reviewers who are wrong in 2%, at a precision of .999, .99, .98 and
.97: 85, 120, 190 and 637 products. Equal weights of .25, .5, .75, .9 and 1 need 74, 132, 248 and 718.
"""

START_SHARE = 0.25
"""The first threshold accepts at least this share of the first sample: reviewers judge in the order of the draw, and at
a threshold that accepts few products many verdicts count for nothing."""

PRIOR_ERROR, PRIOR_PRODUCTS = 0.02, 20
"""The error rate that forecasts expect before there are verdicts, and how many verdicts it is worth."""

FORECASTS = 400
"""Simulated continuations of a forecast."""

MOST_FORECAST = 5_000
"""The largest number of further products that a forecast simulates."""

_LARGEST_LOG = 700.0
"""Larger logarithms are cut, so that the wealth stays finite."""


# --- the wealth -------------------------------------------------------------------------------------------------------


def wealth(wrong: ArrayLike, target: float) -> Floats:
    """Return W after each verdict: (n,) verdicts, 1 = wrong -> (n,)."""
    x = np.asarray(wrong, dtype=bool)
    return _mixture(np.cumsum(~x), np.cumsum(x), target)


def highest_wealth(wrong: ArrayLike, target: float) -> float:
    """Return the largest wealth that was ever reached; 1, the wealth at the begin, if it never grew."""
    return float(wealth(wrong, target).max(initial=1.0))


def lower_bound(wrong: ArrayLike, delta: float) -> float:
    """Return the lower bound of the precision: the highest target that the test certifies; 0 if it certifies none.

    The bound holds at every look together with probability 1 - ``delta``.
    """
    x = np.asarray(wrong, dtype=bool)
    # the wealth against a higher target is smaller
    return bisect(lambda target: highest_wealth(x, target) < 1 / delta, 0.0, 1.0)[0]


def fewest_products(target: float, delta: float) -> int:
    """Return how many right products in a row certify ``target``: 85 for 95% at delta 0.05."""
    bet, weight = max(BETS.items())
    most = ceil(log(1 / (weight * delta)) / log(1 + bet * (1 - target) / target))  # the largest bet alone is enough
    return int(np.argmax(wealth(np.zeros(most), target) >= 1 / delta)) + 1


def _mixture(right: ArrayLike, wrong: ArrayLike, target: float) -> Floats:
    """Return the wealth after ``right`` right and ``wrong`` wrong products, two arrays of one shape."""
    right, wrong = np.asarray(right, dtype=np.float64), np.asarray(wrong, dtype=np.float64)
    total = np.zeros(right.shape)
    for bet, weight in BETS.items():
        logs = right * log(1 + bet * (1 - target) / target) + wrong * log(1 - bet)
        total += weight * np.exp(np.minimum(logs, _LARGEST_LOG))
    return total


# --- the drawn products -----------------------------------------------------------------------------------------------


@dataclass(frozen=True, kw_only=True)
class DrawnProducts:
    """The products of one modality path that were drawn, sample after sample, each in the order of its draw."""

    scores: Floats
    """(n,) the highest score of the product's values: it is accepted at t if this is at least t."""
    wrong_scores: Floats
    """(n,) the highest score of a value that is not known to be right; -inf where all are right."""
    settled: Bools
    """(n,) all values of the product have a settled verdict."""
    lowest: Floats
    """(n,) the score from which on the product's sample was drawn."""
    samples: Ints
    """(n,) the number of the product's sample, from 0; it does not decrease."""
    product_ids: tuple[str, ...]

    def __post_init__(self) -> None:
        columns = (self.scores, self.wrong_scores, self.settled, self.lowest, self.samples, self.product_ids)
        if len({len(column) for column in columns}) != 1:
            raise ValueError("drawn products: every column must have one entry per product")
        if np.any(np.diff(self.samples) < 0):
            raise ValueError("drawn products: the samples must follow each other")
        if np.any(self.wrong_scores > self.scores):
            raise ValueError("drawn products: a wrong score must not be above the product's score")

    def __len__(self) -> int:
        return len(self.scores)

    def at(self, threshold: float, first_sample: int = 0) -> Ints:
        """Return the places of the products that count at ``threshold``, in the order of the draw.

        Only samples from ``first_sample`` on that were drawn from ``threshold`` or from below it count. A product that
        was drawn several times counts once, where it was drawn first.
        """
        first: dict[str, int] = {}
        for place in np.flatnonzero(self._in_samples(threshold, first_sample) & (self.scores >= threshold)).tolist():
            first.setdefault(self.product_ids[place], place)
        return np.array(list(first.values()), dtype=np.int64)

    def number_sampled(self, threshold: float, first_sample: int = 0) -> int:
        """Return how many products the samples of :meth:`at` have, whatever their scores."""
        places = np.flatnonzero(self._in_samples(threshold, first_sample)).tolist()
        return len({self.product_ids[place] for place in places})

    def judged_at(self, threshold: float, first_sample: int = 0) -> Ints:
        """Return the places of the products of :meth:`at` before the first that is not settled."""
        places = self.at(threshold, first_sample)
        settled = self.settled[places]
        return places if settled.all() else places[: int(np.argmin(settled))]

    def _in_samples(self, threshold: float, first_sample: int) -> Bools:
        return np.asarray((self.lowest <= threshold) & (self.samples >= first_sample))


# --- the test ---------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, kw_only=True, slots=True)
class VerdictStep:
    """The test of one threshold."""

    threshold: float
    sampled: int
    """Products of the samples that count at the threshold, whatever their scores."""
    drawn: int
    """The number of these with a score of at least the threshold."""
    judged: int
    """The number of these before the first that is not settled."""
    waiting: int
    """Settled products behind the first that is not settled; they do not count yet."""
    wrong: int
    """Judged products with a wrong value at or above the threshold."""
    wealth: float
    """The largest wealth that was reached."""
    lower_bound: float
    """Lower bound of the precision at confidence 1 - the sequence's delta."""
    certified: bool

    @property
    def passed(self) -> bool:
        """True for a certified threshold, as in every test of a fixed sequence."""
        return self.certified


@dataclass(frozen=True, kw_only=True, slots=True)
class ThresholdSequence:
    """The thresholds that the scores of a sample fixed, and the share of delta that their tests may spend."""

    number: int
    """Number of the sequence, from 1."""
    delta: float
    first_sample: int
    """Samples from this number on count."""
    thresholds: tuple[float, ...]
    """Strictly decreasing."""


@dataclass(frozen=True, kw_only=True, slots=True)
class VerdictTest:
    """The tests of a sequence, from the highest threshold down to the first that is not certified."""

    sequence: ThresholdSequence
    steps: tuple[VerdictStep, ...]

    @property
    def certified(self) -> VerdictStep | None:
        """The lowest certified threshold; None if no threshold is certified."""
        return last_passed(self.steps)

    @property
    def undecided(self) -> VerdictStep | None:
        """The first threshold that is not certified; None if all are certified."""
        return next((step for step in self.steps if not step.certified), None)


def run_tests(drawn: DrawnProducts, target: float, delta: float, ratio: float) -> VerdictTest | None:
    """Test every sequence; return the test with the lowest certified threshold, else that of the newest sequence.

    ``ratio``: see :func:`sequences`. Return None without a drawn product.
    """
    tests = []
    for sequence in sequences(drawn, target, delta, ratio):
        test = partial(_step, drawn, sequence, target)
        tests.append(VerdictTest(sequence=sequence, steps=fixed_sequence(np.array(sequence.thresholds), test)))
    certified = [(test.certified.threshold, test) for test in tests if test.certified is not None]
    if certified:
        return min(certified, key=lambda pair: pair[0])[1]
    return tests[-1] if tests else None


def sequences(drawn: DrawnProducts, target: float, delta: float, ratio: float) -> list[ThresholdSequence]:
    """Return the sequences that the samples begin, by the scores alone, the oldest first.

    ``ratio``: how the number of products that are expected to be accepted grows from threshold to threshold.
    """
    found: list[ThresholdSequence] = []
    lowest = np.inf
    for sample in range(int(drawn.samples.max(initial=-1)) + 1):
        of_sample = drawn.samples == sample
        if not of_sample.any():
            continue
        scores, drawn_from = drawn.scores[of_sample], float(drawn.lowest[of_sample][0])
        if not found or drawn_from > found[-1].thresholds[0]:
            level = spent_delta(delta, len(found) + 1)
            first = max(fewest_products(target, level), START_SHARE * len(scores))
            thresholds = _thresholds(scores, first, ratio)
            found.append(
                ThresholdSequence(number=len(found) + 1, delta=level, first_sample=sample, thresholds=thresholds)
            )
            lowest = drawn_from
        elif drawn_from < lowest:
            first = max(fewest_products(target, found[-1].delta), ratio * np.count_nonzero(scores >= lowest))
            added = [threshold for threshold in _thresholds(scores, first, ratio) if threshold < lowest]
            found[-1] = replace(found[-1], thresholds=(*found[-1].thresholds, *added))
            lowest = drawn_from
    return found


def _thresholds(scores: Floats, first: float, ratio: float) -> tuple[float, ...]:
    """Return the scores that ``first``, ``first * ratio`` and so on of the products reach, and the lowest score."""
    ordered = np.sort(scores)[::-1]
    steps = ceil(log(len(ordered) / first) / log(ratio)) if len(ordered) > first else 0
    ranks = np.append(np.ceil(first * ratio ** np.arange(steps)), len(ordered)).astype(np.int64)
    chosen = ordered[np.minimum(ranks, len(ordered)) - 1]
    return tuple(np.unique(chosen)[::-1].tolist())


def _step(drawn: DrawnProducts, sequence: ThresholdSequence, target: float, threshold: float) -> VerdictStep:
    places, judged = (of(threshold, sequence.first_sample) for of in (drawn.at, drawn.judged_at))
    wrong = drawn.wrong_scores[judged] >= threshold
    reached = highest_wealth(wrong, target)
    return VerdictStep(
        threshold=threshold,
        sampled=drawn.number_sampled(threshold, sequence.first_sample),
        drawn=len(places),
        judged=len(judged),
        waiting=int(np.count_nonzero(drawn.settled[places[len(judged) :]])),
        wrong=int(np.count_nonzero(wrong)),
        wealth=reached,
        lower_bound=lower_bound(wrong, sequence.delta),
        certified=reached >= 1 / sequence.delta,
    )


# --- the verdicts that are missing ------------------------------------------------------------------------------------


@dataclass(frozen=True, kw_only=True, slots=True)
class Needed:
    """How many further products have to be judged until a threshold is certified, as numbers of drawn products:
    products below the threshold are included, because reviewers judge in the order of the draw."""

    at_best: int
    """The number of products that are needed if no further value is wrong."""
    likely: int | None
    """The median at the error rate so far; None if it is not reachable."""
    precision: float
    """The precision that the forecast expects: the share of right products so far, drawn towards the expectation."""
    left: int
    """Drawn products behind the judged products; for more, a sample has to be drawn."""


def verdicts_needed(step: VerdictStep, target: float, delta: float) -> Needed:
    """Forecast for a threshold that is not certified yet: see :class:`Needed`.

    ``delta``: of the sequence. The number is not reachable if more than half of the simulated continuations need more
    than :data:`MOST_FORECAST` products, as they do at an expected precision below the target.
    """
    error = (step.wrong + PRIOR_ERROR * PRIOR_PRODUCTS) / (step.judged + PRIOR_PRODUCTS)
    per_accepted = step.sampled / step.drawn if step.drawn else 1.0
    best = _first_reached(step, np.zeros((1, MOST_FORECAST), dtype=bool), target, delta)
    wrong = np.random.default_rng(0).random((FORECASTS, MOST_FORECAST)) < error
    median = float(np.median(_first_reached(step, wrong, target, delta)))
    return Needed(
        at_best=ceil(float(best[0]) * per_accepted),
        likely=ceil(median * per_accepted) if isfinite(median) else None,
        precision=1 - error,
        left=round((step.drawn - step.judged) * per_accepted),
    )


def _first_reached(step: VerdictStep, wrong: Bools, target: float, delta: float) -> Floats:
    """Return after how many further products each continuation is certified: (paths, m) -> (paths,), inf if never."""
    right = np.cumsum(~wrong, axis=1) + (step.judged - step.wrong)
    total = _mixture(right, np.arange(1, wrong.shape[1] + 1) + step.judged - right, target)
    reached = total >= 1 / delta
    return np.where(reached.any(axis=1), reached.argmax(axis=1) + 1.0, np.inf)


def promising_score(drawn: DrawnProducts, test: VerdictTest, target: float) -> float | None:
    """Return the lowest score above all tested thresholds from which on the judged products have at most half of the
    errors that ``target`` allows; None if there is none, or fewer than :data:`PRIOR_PRODUCTS` products reach it."""
    highest = test.sequence.thresholds[0]
    places = drawn.judged_at(highest, test.sequence.first_sample)
    found = None
    for score in np.unique(drawn.scores[places])[::-1].tolist():
        accepted = int(np.count_nonzero(drawn.scores[places] >= score))
        wrong = int(np.count_nonzero(drawn.wrong_scores[places] >= score))
        error = (wrong + PRIOR_ERROR * PRIOR_PRODUCTS) / (accepted + PRIOR_PRODUCTS)
        if score > highest and accepted >= PRIOR_PRODUCTS and error <= (1 - target) / 2:
            found = score
    return found


@cache
def usual_verdicts(target: float, delta: float) -> tuple[int, int]:
    """Return how many verdicts certify a threshold if none is wrong, and the median number if 2 in 100 are wrong."""
    nothing = VerdictStep(
        threshold=0.0, sampled=1, drawn=1, judged=0, waiting=0, wrong=0, wealth=1.0, lower_bound=0.0, certified=False
    )
    return fewest_products(target, delta), verdicts_needed(nothing, target, delta).likely or MOST_FORECAST
