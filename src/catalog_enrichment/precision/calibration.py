"""Temperature scaling (Guo et al. 2017): one number per head, fitted on the choosing fold.

It makes scores readable as probabilities and comparable across values. Certificates do not depend on it: they are
valid for any scores.
"""

from __future__ import annotations

from math import log

import numpy as np
from numpy.typing import ArrayLike
from scipy import optimize, special

from catalog_enrichment.precision.classification_metrics import Bools, Floats
from catalog_enrichment.records import Cardinality

MIN_PRODUCTS = 30
"""With fewer labelled products the temperature stays 1."""

BOUNDS = (0.25, 10.0)
"""Below the lower bound float32 scores become ties at 1.0, which no threshold can separate."""


def fit_temperature(logits: ArrayLike, truth: ArrayLike, cardinality: Cardinality) -> float:
    """The temperature T > 0 that minimises the loss of ``logits / T``; (n, V) logits, (n, V) bool truth.

    ONE: negative log-likelihood of the softmax, without products that have no true value. MANY: mean binary
    cross-entropy of the sigmoids. Returns 1.0 with fewer than ``MIN_PRODUCTS`` products.
    """
    z, y = np.asarray(logits, dtype=np.float64), np.asarray(truth, dtype=bool)
    if cardinality is Cardinality.ONE:
        labelled = y.any(axis=1)
        z, y = z[labelled], y[labelled]
    if len(z) < MIN_PRODUCTS:
        return 1.0

    def loss(log_temperature: float) -> float:
        return _loss(z / np.exp(log_temperature), y, cardinality)

    bounds = (log(BOUNDS[0]), log(BOUNDS[1]))
    minimum = optimize.minimize_scalar(loss, bounds=bounds, method="bounded", options={"xatol": 1e-4})
    return float(np.exp(minimum.x))


def _loss(z: Floats, y: Bools, cardinality: Cardinality) -> float:
    if cardinality is Cardinality.ONE:
        return float(-special.log_softmax(z, axis=1)[y].mean())
    return float((np.logaddexp(0.0, z) - z * y).mean())  # BCE with logits
