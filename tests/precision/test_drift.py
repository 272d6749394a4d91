"""Drift of a stratum: bounds, and what chance alone gives."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from catalog_enrichment.config.operations import DriftConfig
from catalog_enrichment.precision.drift import Share, StratumScores, by_chance, drifted, stability_index

BOUNDS = DriftConfig()
FLAT = (50,) * 20


def scores(
    accepted: int = 500, products: int = 1000, histogram: tuple[int, ...] = FLAT, **masked: Share
) -> StratumScores:
    return StratumScores(products, accepted, histogram, masked)


@pytest.mark.parametrize(
    ("now", "says"),
    [
        (scores(accepted=660), "accept rate 66.0% instead of 50.0%"),
        (scores(accepted=340), "accept rate 34.0% instead of 50.0%"),
        (scores(histogram=(5,) * 10 + (95,) * 10), "stability index of the scores"),
        (scores(image=Share(40, 100)), "without the image 40.0% of the top values change instead of 10.0%"),
        (scores(text=Share(55, 100)), "without the text 55.0% of the top values change instead of 80.0%"),
    ],
)
def test_each_number_can_drift(now: StratumScores, says: str) -> None:
    reference = scores(image=Share(50, 500), text=Share(400, 500))
    (found,) = drifted(reference, now, BOUNDS)
    assert found.startswith(says)


@pytest.mark.parametrize(
    "now",
    [
        scores(image=Share(50, 500)),  # the same
        scores(accepted=640),
        scores(histogram=(35,) * 10 + (65,) * 10),
        scores(image=Share(24, 100)),
        scores(image=Share(40, 49)),  # too few
        scores(accepted=0, products=199, histogram=(199,) + (0,) * 19),  # too few
    ],
)
def test_within_the_bounds_or_too_little_to_compare(now: StratumScores) -> None:
    assert drifted(scores(image=Share(50, 500)), now, BOUNDS) == []


def test_just_enough_is_compared() -> None:
    assert drifted(scores(image=Share(5, 50)), scores(image=Share(40, 50)), BOUNDS) != []
    assert drifted(scores(accepted=0, products=199), scores(), BOUNDS) == []
    assert drifted(scores(accepted=0, products=200), scores(), BOUNDS) != []


def test_an_accept_rate_that_is_not_known_is_not_compared() -> None:
    """As after a recertification, where the reference was counted at the old threshold."""
    unknown = replace(scores(image=Share(50, 500)), accepted=None)
    assert drifted(unknown, scores(accepted=10, image=Share(10, 100)), BOUNDS) == []
    (other,) = drifted(unknown, scores(accepted=10, image=Share(40, 100)), BOUNDS)
    assert other.startswith("without the image")


def test_a_difference_that_chance_explains_is_none() -> None:
    few = replace(BOUNDS, min_products=10)
    assert drifted(scores(5, 10, (1,) * 10 + (0,) * 10), scores(8, 10, (0,) * 10 + (1,) * 10), few) == []
    assert drifted(scores(10, 40), scores(30, 40), few)[0].startswith("accept rate 75.0%")


def test_the_stability_index_is_that_of_the_definition() -> None:
    p, q = np.array([10.5, 30.5]) / 41, np.array([20.5, 20.5]) / 41
    assert stability_index([10, 30], [20, 20]) == pytest.approx(float(((q - p) * np.log(q / p)).sum()))
    assert stability_index([10, 30], [10, 30]) == 0.0
    assert stability_index([0, 40], [40, 0]) > 5


def test_samples_of_one_population_seldom_exceed_what_chance_gives() -> None:
    random, shares = np.random.default_rng(2), np.linspace(1, 3, 20) / np.linspace(1, 3, 20).sum()
    pairs = [(random.multinomial(400, shares), random.multinomial(700, shares)) for _ in range(3000)]
    over = [stability_index(a.tolist(), b.tolist()) > by_chance(a.tolist(), b.tolist()) for a, b in pairs]
    assert np.mean(over) <= 0.005
    closer = [stability_index(a.tolist(), b.tolist()) > by_chance(a.tolist(), b.tolist()) / 2 for a, b in pairs]
    assert np.mean(closer) > 0.05
