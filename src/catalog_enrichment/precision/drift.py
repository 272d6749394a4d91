"""Drift: the scores of a run against the scores that the model had when it was certified, stratum by stratum.

A number has drifted if it differs by more than the configured bound, and by more than chance explains: small strata
differ by chance, large strata significantly by little.

    accept rate     share of the unlabelled products with a score at or above the threshold; two proportions
    histogram       top scores in 20 bins; population stability index, of which chance alone gives chi-squared values
                    with 19 degrees of freedom times (1 / n + 1 / m)
    modality use    share of the products whose top value changes when one modality is masked; two proportions

Shapes: B bins.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from math import sqrt
from typing import Literal, Protocol

import numpy as np
from scipy import special

from catalog_enrichment.precision.units import Floats

CHANCE = 0.001
"""Probability with which chance alone exceeds the difference that counts: in 1 of 1,000 comparisons."""

IMAGE: Literal["image"] = "image"
TEXT: Literal["text"] = "text"

MASKED = (IMAGE, TEXT)
"""Modalities that are masked, one at a time, at certification and in runs."""

MIN_MASKED = 50
"""Masked products that a comparison of the modality use needs on both sides."""

MODALITY_CHANGE = 0.15
"""Largest difference of the share of products whose top value changes when a modality is masked."""


class DriftBounds(Protocol):
    """The fields of the config's section [drift] that the comparison follows."""

    @property
    def min_products(self) -> int: ...
    @property
    def accept_rate_change(self) -> float: ...
    @property
    def histogram_change(self) -> float: ...


@dataclass(frozen=True, slots=True)
class Share:
    """A number of products out of a larger number."""

    number: int
    of: int

    @property
    def value(self) -> float:
        return self.number / self.of if self.of else 0.0


@dataclass(frozen=True, slots=True)
class StratumScores:
    """The scores of one attribute, modality path, language and first-level category."""

    products: int
    accepted: int | None
    """Products with a score at or above the threshold. None where it is not known, as for a certificate that was issued
    anew from audits: the accept rate is not compared then."""
    histogram: tuple[int, ...]
    """(B,) top scores in equal bins of [0, 1]."""
    masked: Mapping[str, Share] = field(default_factory=dict)
    """Masked modality -> products whose top value changes without it, of the products that were scored so."""


def drifted(reference: StratumScores, now: StratumScores, bounds: DriftBounds) -> list[str]:
    """Return a text for each number that has changed by more than the bounds; empty for a stratum with too few products
    to compare."""
    if min(reference.products, now.products) < bounds.min_products:
        return []
    found = []
    if now.accepted is not None and reference.accepted is not None:
        accepted, was = Share(now.accepted, now.products), Share(reference.accepted, reference.products)
        if _differs(was, accepted, bounds.accept_rate_change):
            found.append(f"accept rate {accepted.value:.1%} instead of {was.value:.1%}")
    index = stability_index(reference.histogram, now.histogram)
    if index > bounds.histogram_change and index > by_chance(reference.histogram, now.histogram):
        found.append(f"stability index of the scores {index:.2f}")
    for name in MASKED:
        before, after = reference.masked.get(name, Share(0, 0)), now.masked.get(name, Share(0, 0))
        if min(before.of, after.of) >= MIN_MASKED and _differs(before, after, MODALITY_CHANGE):
            found.append(f"without the {name} {after.value:.1%} of the top values change instead of {before.value:.1%}")
    return found


def _differs(before: Share, after: Share, bound: float) -> bool:
    """Return whether two shares differ by more than ``bound`` and by more than chance (pooled z test, two-sided)."""
    difference = abs(after.value - before.value)
    pooled = (before.number + after.number) / (before.of + after.of)
    spread = sqrt(pooled * (1 - pooled) * (1 / before.of + 1 / after.of))
    return difference > bound and difference > spread * float(special.ndtri(1 - CHANCE / 2))


def stability_index(reference: Sequence[int], now: Sequence[int]) -> float:
    """Return the population stability index of two histograms (B,): sum of (q - p) ln(q / p). Half a product is added
    to every bin, so that an empty bin gives a finite number."""
    p, q = _shares(reference), _shares(now)
    return float(((q - p) * np.log(q / p)).sum())


def by_chance(reference: Sequence[int], now: Sequence[int]) -> float:
    """Return the index that two samples of one population exceed with probability :data:`CHANCE`."""
    bins = int(np.count_nonzero(np.asarray(reference) + np.asarray(now)))
    quantile = float(special.chdtri(max(bins - 1, 1), CHANCE))
    return quantile * (1 / max(sum(reference), 1) + 1 / max(sum(now), 1))


def _shares(histogram: Sequence[int]) -> Floats:
    counts = np.asarray(histogram, dtype=np.float64) + 0.5
    return np.asarray(counts / counts.sum(), dtype=np.float64)
