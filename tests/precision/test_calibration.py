"""Temperature scaling finds the temperature that made the logits, and leaves small folds alone."""

from __future__ import annotations

import numpy as np
import pytest

from catalog_enrichment.precision.calibration import BOUNDS, fit_temperature
from catalog_enrichment.records import Cardinality

ONE, MANY = Cardinality.ONE, Cardinality.MANY


@pytest.mark.parametrize("true", [0.5, 1.0, 3.0])
def test_softmax_temperature_is_recovered(true: float) -> None:
    rng = np.random.default_rng(1)
    calibrated = rng.normal(0, 2, (8000, 4))
    drawn = (calibrated + rng.gumbel(size=calibrated.shape)).argmax(axis=1)  # a draw from softmax(calibrated)
    assert fit_temperature(calibrated * true, np.eye(4, dtype=bool)[drawn], ONE) == pytest.approx(true, rel=0.06)


@pytest.mark.parametrize("true", [0.5, 2.5])
def test_sigmoid_temperature_is_recovered(true: float) -> None:
    rng = np.random.default_rng(2)
    calibrated = rng.normal(0, 2, (5000, 4))
    truth = rng.random(calibrated.shape) < 1 / (1 + np.exp(-calibrated))
    assert fit_temperature(calibrated * true, truth, MANY) == pytest.approx(true, rel=0.06)


def test_too_few_products_leave_the_temperature_at_one() -> None:
    truth = np.zeros((500, 3), dtype=bool)
    truth[:29, 0] = True
    logits = np.random.default_rng(3).normal(size=(500, 3)) * 9
    assert fit_temperature(logits, truth, ONE) == 1.0
    truth[29, 0] = True
    assert fit_temperature(logits, truth, ONE) > 2  # thirty are enough
    assert fit_temperature(np.empty((0, 3)), np.empty((0, 3), dtype=bool), MANY) == 1.0


def test_a_perfect_head_is_not_frozen_into_ties() -> None:
    truth = np.eye(3, dtype=bool)[np.arange(90) % 3]
    assert fit_temperature(truth * 5.0, truth, ONE) == pytest.approx(BOUNDS[0], rel=0.01)
    assert fit_temperature(truth * 1000.0, ~truth, MANY) <= BOUNDS[1]
