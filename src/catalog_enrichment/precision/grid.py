"""The thresholds that a certificate tests, fixed without certification labels (PRECISION, certificate 2 and 6)."""

from __future__ import annotations

from dataclasses import dataclass
from math import ceil, log

import numpy as np
from numpy.typing import ArrayLike

from catalog_enrichment.precision.classification_metrics import Floats


def smallest_sample(target: float, delta: float) -> int:
    """The fewest independent products that certify ``target`` without an error: 59 for 95% at delta 0.05."""
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
    """Thresholds to test, strictly decreasing, chosen without any label.

    Quantiles of the accept scores of unlabelled products (-inf: never accepted) at which ``n_products`` products of
    the same catalog have ``first * step^j`` accepted ones, up to all that can be accepted. Empty if fewer than
    ``size.fewest`` can be.
    """
    scores = np.sort(np.asarray(unlabelled_scores, dtype=np.float64))[::-1]
    reachable = int(np.count_nonzero(np.isfinite(scores)))
    if not reachable:
        return np.empty(0)
    most = n_products * reachable / len(scores)
    start = size.first if most >= size.first else size.fewest
    if most < start:
        return np.empty(0)
    steps = int(np.floor(np.log(most / start) / np.log(size.step))) + 1
    expected = np.append(start * size.step ** np.arange(steps), most)
    return np.unique(thresholds_at(scores, expected, n_products))[::-1]


def thresholds_at(unlabelled_scores: ArrayLike, expected: Floats, n_products: int) -> Floats:
    """Return the accept scores of unlabelled products at which ``n_products`` products of the same catalog have the
    ``expected`` (J,) numbers of accepted ones; the lowest finite score where fewer can be accepted."""
    scores = np.sort(np.asarray(unlabelled_scores, dtype=np.float64))[::-1]
    ranks = np.ceil(expected / n_products * len(scores) - 1e-9).astype(np.int64)
    return np.asarray(scores[np.clip(ranks, 1, np.count_nonzero(np.isfinite(scores))) - 1])
