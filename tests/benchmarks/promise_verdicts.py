"""Certificates by people's verdicts: what they cost, and how often they are false. Simulated, the truth is known.

    python tests/benchmarks/promise_verdicts.py                 (about a minute; promise.py calls it as well)
    python tests/benchmarks/promise_verdicts.py --draws 200     (a try)

A single threshold accepts every drawn product; several thresholds are the product's own sequence on drawn scores. A
reviewer is wrong with probability REVIEWER_NOISE; two judge each product, and where they differ a third reviewer
decides. The last line is one JSON object.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from benchmark import arguments, print_json
from numpy.typing import NDArray

from catalog_enrichment.precision import verdict_test
from catalog_enrichment.precision.verdict_test import BETS, DrawnProducts, sequences

TARGET, DELTA, RATIO = 0.95, 0.05, 1.05
REVIEWER_NOISE = 0.02
PRECISIONS = (0.999, 0.99, 0.98, 0.97)
REACH = {"0.99": 130, "0.98": 210, "0.97": 640}
"""Goal for the median number of verdicts, by true precision."""

CAP = 3_000
"""The most verdicts of a simulation."""

Wrong = NDArray[np.bool_]
World = Callable[[np.random.Generator, int], tuple[NDArray[np.float64], Wrong]]
"""Draws n scores and whether each proposal is wrong."""


def judged(wrong: Wrong, noise: float, rng: np.random.Generator) -> Wrong:
    """Return what two reviewers and an adjudicator say: (n,) or (draws, n), the same shape."""
    said = [wrong ^ (rng.random(wrong.shape) < noise) for _ in range(3)]
    return np.where(said[0] == said[1], said[0], said[2])


def first_certified(wrong: Wrong) -> NDArray[np.float64]:
    """Return after how many verdicts each row of (draws, n) verdicts is certified; inf if it is not."""
    return np.array([_first(row, TARGET, DELTA) for row in wrong])


def _first(wrong: Wrong, target: float, delta: float) -> float:
    reached = verdict_test.wealth(wrong, target) >= 1 / delta
    return float(reached.argmax()) + 1 if reached.any() else np.inf


def cost(precision: float, noise: float) -> dict[str, float | None]:
    """Return the verdicts until a threshold is certified that accepts every product: exact quantiles.

    Forward recursion over the number of wrong verdicts; what is certified leaves it.
    """
    turned = noise**2 + 2 * noise * (1 - noise) * noise  # both are wrong, or a reviewer and the adjudicator
    right = precision * (1 - turned) + (1 - precision) * turned
    most = round(CAP * (1 - TARGET)) + 1  # with more wrong verdicts nothing is certified within CAP
    certified_from = np.array([_boundary(errors) for errors in range(most)])
    share = np.zeros(most)
    share[0], done = 1.0, np.zeros(CAP + 1)
    for n in range(1, CAP + 1):
        share = share * right + np.append(0.0, share[:-1]) * (1 - right)
        reached = certified_from <= n
        done[n] = share[reached].sum()
        share[reached] = 0.0
    total = np.cumsum(done)
    found: dict[str, float | None] = {"certified": round(float(total[-1]), 4)}
    for name, quantile in (("p10", 0.1), ("median", 0.5), ("p90", 0.9)):
        found[name] = float(np.searchsorted(total, quantile)) if total[-1] >= quantile else None
    return found


def _boundary(errors: int) -> float:
    """Return after how many verdicts, ``errors`` of them wrong, a threshold is certified; inf if not within CAP."""
    wrong = np.arange(CAP) < errors
    reached = np.flatnonzero(verdict_test.wealth(wrong, TARGET)[max(errors - 1, 0) :] >= 1 / DELTA)
    return float(reached[0]) + max(errors, 1) if len(reached) else np.inf


def first_of_sequence(scores: NDArray[np.float64], wrong: Wrong, first_sample: int) -> float:
    """Return after how many drawn products, judged in their order, the highest threshold is certified; else inf.

    ``first_sample``: how many of the products are the first sample, which fixes the thresholds.
    """
    n = len(scores)
    drawn = DrawnProducts(
        scores=scores,
        wrong_scores=np.where(wrong, scores, -np.inf),
        settled=np.ones(n, dtype=bool),
        lowest=np.zeros(n),
        samples=np.minimum(np.arange(n) // first_sample, 1),
        product_ids=tuple(map(str, range(n))),
    )
    (sequence,) = sequences(drawn, TARGET, DELTA, RATIO)
    places = np.flatnonzero(scores >= sequence.thresholds[0])
    number = _first(wrong[places], TARGET, sequence.delta)
    return float(places[int(number) - 1]) + 1 if np.isfinite(number) else np.inf


def flat(precision: float) -> World:
    """Return a world whose scores say nothing: every proposal is right with the same probability."""
    return lambda rng, n: (rng.random(n), rng.random(n) >= precision)


def falling(rng: np.random.Generator, n: int) -> tuple[NDArray[np.float64], Wrong]:
    """Draw scores that are right in 95% in their highest quarter and in 94% below: every threshold is false."""
    scores = rng.random(n)
    return scores, rng.random(n) >= np.where(scores > 0.75, 0.95, 0.94)


def false_certificates(draws: int, seed: int = 0) -> dict[str, float]:
    """Return how often a certificate is issued within CAP verdicts though every threshold has at most the target."""
    rng = np.random.default_rng(seed)
    single = np.isfinite(first_certified(rng.random((draws, CAP)) >= TARGET)).mean()
    small = np.arange(400) < round(400 * (1 - TARGET))  # the whole population is judged
    without_replacement = np.isfinite(first_certified(np.array([rng.permutation(small) for _ in range(draws)]))).mean()
    found = {"one_threshold": float(single), "population_of_400": float(without_replacement)}
    for name, world in (("thresholds", flat(TARGET)), ("thresholds_falling", falling)):
        some = [first_of_sequence(*world(rng, CAP), first_sample=300) for _ in range(draws // 4)]
        found[name] = float(np.isfinite(some).mean())
    return found


def verdicts_promise(draws: int = 2_000) -> dict[str, Any]:
    """Return all figures of this module; ``draws``: simulations of each."""
    return {
        "fewest": verdict_test.fewest_products(TARGET, DELTA),
        "bets": {str(bet): weight for bet, weight in BETS.items()},
        "cost": {
            str(precision): {"reviewers_2%": cost(precision, REVIEWER_NOISE), "exact": cost(precision, 0.0)}
            for precision in PRECISIONS
        },
        "reach_median": REACH,
        "false_certificates_at_95%": false_certificates(draws),
    }


def main() -> None:
    parser = arguments(__doc__)
    parser.add_argument("--draws", type=int, default=2_000)
    found = verdicts_promise(parser.parse_args().draws)
    for precision, costs in found["cost"].items():
        noisy, exact = costs["reviewers_2%"], costs["exact"]
        print(f"right {precision}: {noisy['median']} ({noisy['p10']} to {noisy['p90']}), exact {exact['median']}")
    print(f"false at exactly 95%: {found['false_certificates_at_95%']}")
    print_json(found)


if __name__ == "__main__":
    main()
